/** The panels of a page of charts: the main ones, a folded box with further metrics, and the cursor that all share. */

import { h, setText } from "../lib/dom";
import type { Panel } from "./panel";

export class PanelSet<P extends Panel> {
  readonly main = h("div", { class: "ml-grid" });
  /** The step that the pointer or the keyboard selects, in any panel. */
  cursor: number | null = null;
  private readonly more = h("div", { class: "ml-grid" });
  private readonly count = h("span");
  readonly moreBox = h(
    "details",
    { class: "ml-more", hidden: true },
    h("summary", {}, "More metrics ", this.count),
    this.more,
  );
  private readonly panels = new Map<string, P>();
  /** The chart and place that each panel was created for, as text. */
  private readonly createdFor = new Map<string, string>();
  private frame = 0;

  constructor(isOpen: boolean, onToggle: (isOpen: boolean) => void) {
    this.moreBox.open = isOpen;
    this.moreBox.addEventListener("toggle", () => onToggle(this.moreBox.open));
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    for (const panel of this.panels.values()) panel.dispose();
    this.panels.clear();
  }

  get(name: string): P | undefined {
    return this.panels.get(name);
  }

  values(): IterableIterator<P> {
    return this.panels.values();
  }

  /** Show the numbers at `step` in every panel. */
  point(step: number | null): void {
    if (step === this.cursor) return;
    this.cursor = step;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      for (const panel of this.panels.values()) panel.point(step);
    });
  }

  /** Create panels for new or changed charts, keep the others, and dispose of panels whose chart is gone. */
  arrange<C extends { name: string }>(
    main: readonly C[],
    more: readonly C[],
    create: (chart: C, isMore: boolean) => P,
  ): void {
    const placed = [...main.map((chart) => [chart, false] as const), ...more.map((chart) => [chart, true] as const)];
    const wanted = new Map(placed.map((place) => [place[0].name, JSON.stringify(place)]));
    for (const [name, panel] of this.panels) {
      if (wanted.get(name) === this.createdFor.get(name)) continue;
      panel.dispose();
      this.panels.delete(name);
    }
    this.fill(this.main, main, (chart) => create(chart, false));
    this.fill(this.more, more, (chart) => create(chart, true));
    for (const [name, key] of wanted) this.createdFor.set(name, key);
    this.moreBox.hidden = more.length === 0;
    setText(this.count, `(${more.length})`);
  }

  private fill<C extends { name: string }>(parent: HTMLElement, charts: readonly C[], create: (chart: C) => P): void {
    charts.forEach((chart, i) => {
      const panel = this.panels.get(chart.name) ?? create(chart);
      this.panels.set(chart.name, panel);
      // Keep the order of the charts, whichever panels existed before.
      const current = parent.children[i] ?? null;
      if (current !== panel.element) parent.insertBefore(panel.element, current);
    });
  }
}
