/** The run that an earlier execution of the cell left, with a button that continues it. */

import { type Dispose, h, listen, setText } from "../lib/dom";
import { thousands } from "../lib/format";
import { visible } from "../lib/text";
import type { RunStore } from "../run_store";

export class EarlierRun {
  private readonly loss = h("bdi");
  private readonly progress = h("span");
  private readonly button = h("button", { type: "button", class: "ml-button" }, "Continue it");
  readonly element = h(
    "div",
    { class: "ml-earlier", role: "status", hidden: true },
    h("span", {}, "This cell started a run before, which is paused: ", this.loss, this.progress),
    this.button,
  );
  private readonly disposers: Dispose[] = [];

  /** @param onRefusal Called with the reason for each refusal, and with "" when a request was accepted. */
  constructor(
    private readonly store: RunStore,
    onRefusal: (message: string) => void,
  ) {
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.button, "click", () => {
        this.button.disabled = true;
        void store.request({ type: "continue_earlier" }).then((error) => {
          this.button.disabled = false;
          onRefusal(error);
        });
      }),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  private draw(): void {
    const { earlier } = this.store;
    this.element.hidden = earlier === null;
    if (!earlier) return;
    setText(this.loss, visible(earlier.loss_label));
    const total = earlier.steps_total ? ` of ${thousands(earlier.steps_total)}` : "";
    setText(this.progress, `, ${thousands(earlier.steps_done)}${total} steps.`);
  }
}
