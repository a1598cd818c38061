/** One chart per metric, with all runs in each; drawn at most once a frame and only when something changed. */

import { DrawScheduler } from "../charts/draw_scheduler";
import type { PanelEvents, PanelView } from "../charts/panel";
import { PanelSet } from "../charts/panel_set";
import { halfLifeSteps, smoothingSlider } from "../charts/smoothing";
import { type Dispose, h, setAttributes } from "../lib/dom";
import type { Range } from "../lib/scale";
import { type Theme, watchTheme } from "../lib/theme";
import type { LabelledRun, OverlayView } from "../multi_run_store";
import { type OverlayChart, otherCharts, overlayCharts } from "./curves";
import { OverlayPanel } from "./overlay_panel";

export class OverlayGrid {
  readonly element: HTMLElement;
  private readonly panels: PanelSet<OverlayPanel>;
  private readonly unwatch: Dispose;
  private readonly scheduler = new DrawScheduler(() => {
    this.draw();
    return false;
  });
  private readonly events: PanelEvents = {
    onResize: () => this.schedule(),
    onViewChange: () => this.schedule(),
    onPoint: (step) => this.panels.point(step),
    cursor: () => this.panels.cursor,
    onZoom: (range) => this.changeView({ range }),
    onEnlarge: (name) => this.changeView({ large: this.runs()[0]?.store.view.large === name ? "" : name }),
  };

  constructor(
    private readonly runs: () => readonly LabelledRun[],
    private readonly view: OverlayView,
    private readonly theme: () => Theme,
  ) {
    this.panels = new PanelSet(view.more, (isOpen) => {
      view.more = isOpen;
      this.schedule();
    });
    const smoothing = smoothingSlider("Smoothing of the training curves", (value) => {
      view.smoothing = value;
      this.schedule();
    });
    smoothing.value = String(view.smoothing);
    const footer = h(
      "div",
      { class: "ml-footer" },
      h("span", { class: "ml-quiet ml-overlay-key" }, "strong: held-out data; faint: training batches"),
      h("label", { class: "ml-smoothing" }, "smoothing", smoothing),
    );
    this.element = h(
      "section",
      { class: "ml-charts ml-overlay", "aria-label": "Charts of all runs" },
      this.panels.main,
      footer,
      this.panels.moreBox,
    );
    this.unwatch = watchTheme(() => this.schedule());
    this.arrange(this.charts(), []);
    this.schedule();
  }

  dispose(): void {
    this.unwatch();
    this.scheduler.dispose();
    this.panels.dispose();
    this.element.remove();
  }

  /** Zoom and enlarged chart are stored with the first run. */
  private changeView(change: { range?: Range | null; large?: string }): void {
    const first = this.runs()[0];
    if (first) Object.assign(first.store.view, change);
    this.schedule();
  }

  /** Draw in the next frame. */
  schedule(): void {
    this.scheduler.drawNext();
  }

  /** Draw the new records, at once only if no run is running. */
  onRunsChanged(): void {
    if (this.runs().some(({ store }) => store.state?.status === "running")) this.scheduler.drawLater();
    else this.scheduler.drawNext();
  }

  private charts(): OverlayChart[] {
    return overlayCharts(this.runs().map((run) => run.store.charts));
  }

  private draw(): void {
    const runs = this.runs();
    const charts = this.charts();
    const others = otherCharts(runs, charts);
    this.arrange(charts, others);
    const seen = runs.map((run) => run.store.seen);
    const hasData = runs.some(({ store }) => store.seen > 0 || Object.keys(store.state?.baseline ?? {}).length > 0);
    setAttributes(this.element, { "data-empty": !hasData, "data-seen": seen.join(" ") });
    const first = runs[0];
    if (!first) return;
    const totals = runs.flatMap(({ store }) => [store.state?.steps_total ?? 0, store.seen]);
    const view: PanelView = {
      store: first.store,
      theme: this.theme(),
      halfLife: halfLifeSteps(this.view.smoothing, Math.max(...totals)),
      cursor: this.panels.cursor,
    };
    const visible = [...charts, ...(this.panels.moreBox.open ? others : [])];
    for (const chart of visible) this.panels.get(chart.name)?.draw(view);
  }

  private arrange(charts: OverlayChart[], others: OverlayChart[]): void {
    this.panels.arrange(charts, others, (chart) => {
      const isHidden = (index: number) => this.view.hidden.has(this.runs()[index]?.label ?? "");
      const panel = new OverlayPanel(chart, this.runs, isHidden);
      panel.attach(this.events);
      return panel;
    });
  }
}
