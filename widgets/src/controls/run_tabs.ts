/** The runs that a workbench can show: the first one and its forks. Without forks there is nothing to see. */

import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { visible } from "../lib/text";
import type { RunStore } from "../run_store";

export class RunTabs {
  private readonly buttons = h("span", { class: "ml-tab-list" });
  private readonly about = h("span", { class: "ml-quiet" });
  readonly element = h("nav", { class: "ml-tabs", "aria-label": "Runs", hidden: true }, this.buttons, this.about);
  private readonly disposers: Dispose[] = [];
  private drawnKey = "";

  /** @param onRefusal Called with the reason for each refusal, and with "" when a request was accepted. */
  constructor(
    private readonly store: RunStore,
    onRefusal: (message: string) => void,
  ) {
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.buttons, "click", (event) => {
        const run = (event.target as Element).closest<HTMLElement>("button")?.dataset.run;
        if (run !== undefined) void store.request({ type: "show_run", run: Number(run) }).then(onRefusal);
      }),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  private draw(): void {
    const { tabs } = this.store;
    const key = JSON.stringify(tabs);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    const runs = tabs?.runs ?? [];
    this.element.hidden = runs.length < 2;
    this.buttons.replaceChildren(
      ...runs.map(({ name, about }, i) => {
        const button = h("button", {
          type: "button",
          class: "ml-tab",
          "data-run": i,
          title: about ? visible(about) : null,
        });
        setAttributes(button, { "aria-current": i === tabs?.shown ? "true" : null });
        button.append(h("bdi", {}, visible(name)));
        return button;
      }),
    );
    const about = runs[tabs?.shown ?? 0]?.about;
    setText(this.about, about ? visible(about) : "");
  }
}
