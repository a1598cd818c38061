/** What the run says about itself in plain words; beside the charts, so that nothing moves when it comes or goes. */

import { type Dispose, h, setText } from "../dom";
import type { Store } from "../store";

export class Warnings {
  private readonly list = h("ul");
  readonly element = h(
    "section",
    { class: "ml-card ml-warnings", hidden: true, "aria-live": "polite" },
    h("div", { class: "ml-label" }, "Worth knowing"),
    this.list,
  );
  private readonly unsubscribe: Dispose;
  private shown = "";

  /** Alone in its cell (`always`) it says so when there is nothing to say. */
  constructor(
    private readonly store: Store,
    private readonly always = false,
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
    const shown = JSON.stringify(warnings);
    if (shown === this.shown) return;
    this.shown = shown;
    this.element.hidden = warnings.length === 0 && !this.always;
    this.list.replaceChildren(
      ...(warnings.length ? warnings : ["Nothing so far."]).map((text) => {
        const item = h("li");
        setText(item, text);
        return item;
      }),
    );
  }
}
