/** Small multiples: a chart a metric, all runs in each; drawn at most once a frame and only when something changed. */

import { Pace } from "../charts/pace";
import type { PanelEvents, View } from "../charts/panel";
import { PanelSet } from "../charts/panels";
import { type Dispose, h, setAttributes } from "../dom";
import { type Theme, watchTheme } from "../theme";
import { type OverlayChart, type OverlayRun, overlayCharts, strayCharts } from "./curves";
import { OverlayPanel } from "./panel";

const MORE_AT_MOST = 18;

/** How a person wants the charts; kept outside, so that another view starts alike. */
export interface OverlayView {
  smoothing: number;
  more: boolean;
  hidden: Set<string>;
}

export class OverlayGrid {
  readonly element: HTMLElement;
  private readonly set: PanelSet<OverlayPanel>;
  private readonly unwatch: Dispose;
  private readonly pace = new Pace(() => {
    this.draw();
    return false;
  });
  private readonly events: PanelEvents = {
    resized: () => this.schedule(),
    changed: () => this.schedule(),
    pointed: (step) => this.set.point(step),
    cursor: () => this.set.cursor,
    zoomed: (range) => this.change({ range }),
    enlarged: (name) => this.change({ large: this.runs()[0]?.store.view.large === name ? "" : name }),
  };

  constructor(
    private readonly runs: () => readonly OverlayRun[],
    private readonly view: OverlayView,
    private readonly theme: () => Theme,
  ) {
    this.set = new PanelSet(view.more, (open) => {
      view.more = open;
      this.schedule();
    });
    const smoothing = h("input", {
      ...{ type: "range", min: 0, max: 3, step: 0.5, value: view.smoothing },
      "aria-label": "Smoothing of the training curves",
    });
    smoothing.addEventListener("input", () => {
      view.smoothing = Number(smoothing.value);
      this.schedule();
    });
    const footer = h(
      "div",
      { class: "ml-footer" },
      h("span", { class: "ml-quiet ml-overlay-key" }, "strong: held-out data; faint: training batches"),
      h("label", { class: "ml-smoothing" }, "smoothing", smoothing),
    );
    this.element = h(
      "section",
      { class: "ml-charts ml-overlay", "aria-label": "Charts of all runs" },
      this.set.main,
      footer,
      this.set.box,
    );
    this.unwatch = watchTheme(() => this.schedule());
    this.arrange(this.charts(), []);
    this.schedule();
  }

  dispose(): void {
    this.unwatch();
    this.pace.dispose();
    this.set.dispose();
    this.element.remove();
  }

  /** What the person wants of the charts is kept with the first run. */
  private change(wish: { range?: readonly [number, number] | null; large?: string }): void {
    const first = this.runs()[0];
    if (first) Object.assign(first.store.view, wish);
    this.schedule();
  }

  schedule(): void {
    this.pace.soon();
  }

  /** The runs have news. */
  told(): void {
    if (this.runs().some(({ store }) => store.state?.status === "running")) this.pace.later();
    else this.pace.soon();
  }

  private charts(): OverlayChart[] {
    return overlayCharts(this.runs().map((run) => run.store.charts));
  }

  private draw(): void {
    const runs = this.runs();
    const charts = this.charts();
    const stray = strayCharts(runs, charts, MORE_AT_MOST);
    this.arrange(charts, stray);
    const seen = runs.map((run) => run.store.seen);
    const begun = runs.some((run) => run.store.seen > 0 || Object.keys(run.store.state?.baseline ?? {}).length > 0);
    setAttributes(this.element, { "data-empty": !begun, "data-seen": seen.join(" ") });
    const first = runs[0];
    if (!first) return;
    const view: View = {
      store: first.store,
      theme: this.theme(),
      halfLife: this.halfLife(runs),
      cursor: this.set.cursor,
    };
    for (const chart of [...charts, ...(this.set.box.open ? stray : [])]) this.set.panels.get(chart.name)?.draw(view);
  }

  /** Half-life in steps: a share of the longest run. */
  private halfLife(runs: readonly OverlayRun[]): number {
    const totals = runs.flatMap(({ store }) => [store.state?.steps_total ?? 0, store.seen]);
    const { smoothing } = this.view;
    return smoothing === 0 ? 0 : (Math.max(100, ...totals) / 200) * 2 ** smoothing;
  }

  private arrange(charts: OverlayChart[], stray: OverlayChart[]): void {
    this.set.arrange(charts, stray, (chart) => {
      const hidden = (place: number) => this.view.hidden.has(this.runs()[place]?.label ?? "");
      const panel = new OverlayPanel(chart, this.runs, hidden);
      panel.attach(this.events);
      return panel;
    });
  }
}
