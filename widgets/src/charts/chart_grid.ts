/** All charts of a run. They are drawn only after a change, a few per frame, so that the page stays responsive. */

import type { StepPlace } from "../controls/step_menu";
import { type Dispose, h, setAttributes, setText } from "../lib/dom";
import { type Theme, watchTheme } from "../lib/theme";
import type { Chart } from "../messages";
import type { RunStore } from "../run_store";
import { BarsPanel } from "./bars";
import { BranchLegend } from "./branch_curves";
import { downloads } from "./downloads";
import { DrawScheduler } from "./draw_scheduler";
import { LinesPanel } from "./lines";
import { MarkList } from "./marks";
import { otherChart, otherMetrics } from "./other_charts";
import type { Panel, PanelEvents, PanelView } from "./panel";
import { PanelSet } from "./panel_set";
import { RatiosPanel } from "./ratios";
import { halfLifeSteps, smoothingSlider } from "./smoothing";

/** After this time in one frame, the remaining charts wait for the next frame. */
const FRAME_BUDGET_MS = 8;
const HINT = "Click a step to rewind to it or to fork the run.";

export class ChartGrid {
  readonly element: HTMLElement;
  private readonly emptyNotice = h("div", { class: "ml-empty" });
  private readonly smoothing: HTMLInputElement;
  private readonly marks: MarkList;
  private readonly branches: BranchLegend;
  private readonly hint = h("span", { class: "ml-quiet ml-step-hint" });
  private readonly panels: PanelSet<Panel>;
  private readonly disposers: Dispose[] = [];
  private readonly scheduler = new DrawScheduler(() => this.draw());
  private viewChanges = 0;
  private hasChanged = false;
  /** Names of the charts to be drawn, in turn: one that is added again keeps its place. */
  private readonly due = new Set<string>();
  private draftFrame = 0;
  private readonly events: PanelEvents = {
    onResize: () => this.schedule(),
    onViewChange: () => this.store.viewChanged(),
    onPoint: (step) => this.panels.point(step),
    cursor: () => this.panels.cursor,
    onZoom: (range) => {
      this.store.view.range = range;
      this.store.viewChanged();
    },
    onEnlarge: (name) => {
      const { view } = this.store;
      view.large = view.large === name ? "" : name;
      this.store.viewChanged();
    },
  };

  constructor(
    private readonly store: RunStore,
    private readonly theme: () => Theme,
    private readonly onStep?: (place: StepPlace) => void,
  ) {
    this.branches = new BranchLegend(store, theme);
    this.marks = new MarkList(onStep);
    if (onStep) this.events.onStep = onStep;
    this.panels = new PanelSet(store.view.more, (isOpen) => {
      store.view.more = isOpen;
      this.schedule();
    });
    this.smoothing = smoothingSlider("Smoothing of the curves", (smoothing) => {
      store.view.smoothing = smoothing;
      store.viewChanged();
    });
    const stage = h("div", { class: "ml-stage" }, this.panels.main, this.emptyNotice);
    const save = downloads(store, () => this.panels.main, this.theme);
    this.disposers.push(save.dispose);
    const tools = h(
      "div",
      { class: "ml-tools" },
      save.element,
      h("label", { class: "ml-smoothing" }, "smoothing", this.smoothing),
    );
    const notes = h("div", { class: "ml-chart-notes" }, this.branches.element, this.marks.element, this.hint);
    const footer = h("div", { class: "ml-footer" }, notes, tools);
    this.element = h("section", { class: "ml-charts", "aria-label": "Charts" }, stage, footer, this.panels.moreBox);
    this.disposers.push(
      store.subscribe(() => this.onStoreChanged()),
      store.onDraft(() => this.drawDraft()),
      watchTheme(() => this.schedule()),
    );
    // Create the panels now, so that a view that replaces another has its height at once.
    this.arrange(this.otherCharts());
    this.schedule();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.scheduler.dispose();
    cancelAnimationFrame(this.draftFrame);
    this.panels.dispose();
    this.branches.dispose();
    this.element.remove();
  }

  private schedule(): void {
    this.hasChanged = true;
    this.scheduler.drawNext();
  }

  /** Draw new records of a running run after a pause, and anything that a person changed at once. */
  private onStoreChanged(): void {
    this.hasChanged = true;
    const { state, viewChanges } = this.store;
    if (state?.status === "running" && viewChanges === this.viewChanges) this.scheduler.drawLater();
    else this.scheduler.drawNext();
    this.viewChanges = viewChanges;
  }

  /** Draw until the time of a frame is used up; returns true if charts remain. */
  private draw(): boolean {
    if (this.hasChanged) this.arrangeAll();
    this.hasChanged = false;
    const view = this.panelView();
    const endMs = performance.now() + FRAME_BUDGET_MS;
    for (const name of this.due) {
      this.due.delete(name);
      this.panels.get(name)?.draw(view);
      if (performance.now() >= endMs) break;
    }
    return this.due.size > 0;
  }

  /** While a slider moves, draw only the charts that show its setting. */
  private drawDraft(): void {
    cancelAnimationFrame(this.draftFrame);
    this.draftFrame = requestAnimationFrame(() => {
      for (const panel of this.panels.values()) if (panel.followsDrafts) panel.draw(this.panelView());
    });
  }

  private panelView(): PanelView {
    const { store } = this;
    const totalSteps = Math.max(store.state?.steps_total ?? 0, store.seen);
    const halfLife = halfLifeSteps(store.view.smoothing, totalSteps);
    return { store, theme: this.theme(), halfLife, cursor: this.panels.cursor };
  }

  private arrangeAll(): void {
    const { store } = this;
    const { state } = store;
    const others = this.otherCharts();
    this.arrange(others);
    for (const chart of [...store.charts, ...(this.panels.moreBox.open ? others : [])]) this.due.add(chart.name);
    const hasData = store.seen > 0 || Object.keys(state?.baseline ?? {}).length > 0;
    setText(this.emptyNotice, hasData ? "" : emptyText(state?.status));
    setAttributes(this.element, { "data-empty": !hasData, "data-seen": store.seen });
    this.branches.draw();
    setText(this.hint, this.onStep && store.seen > 0 ? HINT : "");
    this.marks.draw(state?.marks ?? [], state?.marks_total ?? 0);
    this.smoothing.value = String(store.view.smoothing);
  }

  /** A chart for each metric that is in no chart of the recipe. */
  private otherCharts(): Chart[] {
    const { charts, history, metrics } = this.store;
    const columns = charts.flatMap((chart) => chart.lines.flatMap((line) => [line.series, line.spread]));
    const shown = new Set([...charts.map((chart) => chart.name), ...columns]);
    return otherMetrics(history.series.keys(), shown).map((name) => otherChart(name, metrics[name]));
  }

  private arrange(others: Chart[]): void {
    this.panels.arrange(this.store.charts, others, (chart, isOther) => {
      const panel = panelOf(chart, isOther);
      panel.attach(this.events);
      return panel;
    });
  }
}

function panelOf(chart: Chart, isOther: boolean): Panel {
  if (chart.kind === "ratios") return new RatiosPanel(chart);
  return chart.kind === "bars" ? new BarsPanel(chart) : new LinesPanel(chart, isOther);
}

function emptyText(status: string | undefined): string {
  if (status === "running") return "Loading the model and the data…";
  return status === "ready" ? "Press Start and watch the model learn" : "No step is complete yet";
}
