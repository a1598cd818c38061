/** The run's advice in plain words; beside the charts, so that nothing moves when it appears or disappears. */

import { type Dispose, h, setText } from "../lib/dom";
import type { RunStore } from "../run_store";

export class Warnings {
  private readonly list = h("ul");
  readonly element = h(
    "section",
    { class: "ml-card ml-warnings", hidden: true, "aria-live": "polite" },
    h("div", { class: "ml-label" }, "Worth knowing"),
    this.list,
  );
  private readonly unsubscribe: Dispose;
  private drawnKey = "";

  /** @param isAlwaysShown Say so if there is no advice, instead of hiding: for a widget of its own. */
  constructor(
    private readonly store: RunStore,
    private readonly isAlwaysShown = false,
  ) {
    this.unsubscribe = store.subscribe(() => this.draw());
    this.draw();
  }

  dispose(): void {
    this.unsubscribe();
    this.element.remove();
  }

  private draw(): void {
    const warnings = this.store.state?.warnings ?? [];
    const key = JSON.stringify(warnings);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    this.element.hidden = warnings.length === 0 && !this.isAlwaysShown;
    this.list.replaceChildren(
      ...(warnings.length ? warnings : ["Nothing so far."]).map((text) => {
        const item = h("li");
        setText(item, text);
        return item;
      }),
    );
  }
}
