/** A loss as a `%%loss` cell: inserted into the notebook by JupyterLab's extension, or else shown for copying. */

import { type Dispose, h, listen, setText } from "../lib/dom";
import { insertCell } from "../lib/events";
import type { RunStore } from "../run_store";

export class CellSource {
  readonly element = h("div", {
    class: "ml-card ml-cell",
    hidden: true,
    role: "group",
    "aria-label": "The loss as a cell",
  });
  private readonly code = h("pre", { tabindex: 0 });
  private readonly copy = h("button", { type: "button", class: "ml-slim" }, "Copy");
  private readonly close = h("button", { type: "button", class: "ml-slim" }, "Close");
  private readonly disposers: Dispose[];

  /** @param onRefusal Called with the reason if the kernel sends no source, and with "" if it does. */
  constructor(
    private readonly store: RunStore,
    private readonly onRefusal: (message: string) => void,
  ) {
    const instruction = h("p", { class: "ml-quiet" }, "Paste it into a new cell and run it.");
    this.element.append(instruction, this.code, h("div", { class: "ml-picker-buttons" }, this.copy, this.close));
    this.disposers = [
      listen(this.copy, "click", () => void this.copyText()),
      listen(this.close, "click", () => {
        this.element.hidden = true;
      }),
    ];
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  /** Request the cell of loss `name`, for the notebook that contains `origin`. */
  open(name: string, origin: HTMLElement): void {
    this.store.requestText({ type: "cell", name }).then(
      (source) => {
        this.onRefusal("");
        if (insertCell({ source, origin })) return;
        setText(this.code, source);
        setText(this.copy, "Copy");
        this.element.hidden = false;
        this.copy.focus();
      },
      (error: unknown) => this.onRefusal(error instanceof Error ? error.message : String(error)),
    );
  }

  private async copyText(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.code.textContent ?? "");
      setText(this.copy, "Copied");
    } catch {
      // The page may not write to the clipboard: select the text, so that a person can copy it with the keyboard.
      getSelection()?.selectAllChildren(this.code);
      setText(this.copy, "Press Ctrl+C");
    }
  }
}
