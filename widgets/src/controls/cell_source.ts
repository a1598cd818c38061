/** A loss as a `%%loss` cell: put into the notebook where JupyterLab's extension does it, else shown, to be copied. */

import { type Dispose, h, listen, setText } from "../dom";
import { insertCell } from "../events";
import type { Store } from "../store";

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

  constructor(
    private readonly store: Store,
    private readonly failed: (message: string) => void,
  ) {
    const words = h("p", { class: "ml-quiet" }, "Paste it into a cell of its own and run it.");
    this.element.append(words, this.code, h("div", { class: "ml-picker-buttons" }, this.copy, this.close));
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

  /** Fetches the cell of loss `name`, for the notebook in which `origin` stands. */
  open(name: string, origin: HTMLElement): void {
    this.store.ask({ type: "cell", name }).then(
      (source) => {
        this.failed("");
        if (insertCell({ source, origin })) return;
        setText(this.code, source);
        setText(this.copy, "Copy");
        this.element.hidden = false;
        this.copy.focus();
      },
      (error: unknown) => this.failed(error instanceof Error ? error.message : String(error)),
    );
  }

  private async copyText(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.code.textContent ?? "");
      setText(this.copy, "Copied");
    } catch {
      // A page without the right to the clipboard: the text is selected, for the keyboard to copy.
      getSelection()?.selectAllChildren(this.code);
      setText(this.copy, "Press Ctrl+C");
    }
  }
}
