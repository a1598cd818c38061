/** The panels of a page of charts: the main ones, a folded box for further metrics, and the cursor that all share. */

import { h, setText } from "../dom";
import type { Panel } from "./panel";

export class PanelSet<P extends Panel> {
  readonly main = h("div", { class: "ml-grid" });
  readonly more = h("div", { class: "ml-grid" });
  private readonly count = h("span");
  readonly box = h(
    "details",
    { class: "ml-more", hidden: true },
    h("summary", {}, "More metrics ", this.count),
    this.more,
  );
  readonly panels = new Map<string, P>();
  /** What each panel was made for: where it stands, and its chart. */
  private readonly made = new Map<string, string>();
  /** The step that is pointed at, in any panel. */
  cursor: number | null = null;
  private frame = 0;

  constructor(open: boolean, toggled: (open: boolean) => void) {
    this.box.open = open;
    this.box.addEventListener("toggle", () => toggled(this.box.open));
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    for (const panel of this.panels.values()) panel.dispose();
    this.panels.clear();
  }

  /** Every panel tells its numbers at the step that one of them is pointed at. */
  point(step: number | null): void {
    if (step === this.cursor) return;
    this.cursor = step;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      for (const panel of this.panels.values()) panel.point(step);
    });
  }

  /** Panels for these charts and no others: `main`, and in the box `more`. */
  arrange<C extends { name: string }>(
    main: readonly C[],
    more: readonly C[],
    make: (chart: C, stray: boolean) => P,
  ): void {
    const places = [...main.map((chart) => [chart, false] as const), ...more.map((chart) => [chart, true] as const)];
    const wanted = new Map(places.map((place) => [place[0].name, JSON.stringify(place)]));
    for (const [name, panel] of this.panels) {
      if (wanted.get(name) === this.made.get(name)) continue;
      panel.dispose();
      this.panels.delete(name);
    }
    this.fill(this.main, main, (chart) => make(chart, false));
    this.fill(this.more, more, (chart) => make(chart, true));
    for (const [name, made] of wanted) this.made.set(name, made);
    this.box.hidden = more.length === 0;
    setText(this.count, `(${more.length})`);
  }

  private fill<C extends { name: string }>(parent: HTMLElement, charts: readonly C[], make: (chart: C) => P): void {
    charts.forEach((chart, i) => {
      const panel = this.panels.get(chart.name) ?? make(chart);
      this.panels.set(chart.name, panel);
      // In the same order whether they came at once or one by one.
      const there = parent.children[i] ?? null;
      if (there !== panel.element) parent.insertBefore(panel.element, there);
    });
  }
}
