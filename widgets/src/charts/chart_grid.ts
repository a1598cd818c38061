/**
 * All charts of a run, drawn only when something changed: a few a frame, in turn, so that the page answers meanwhile.
 */

import { type Dispose, h, setAttributes, setText } from "../dom";
import type { Chart } from "../protocol";
import type { Store } from "../store";
import { type Theme, watchTheme } from "../theme";
import { BarsPanel } from "./bars";
import { downloads } from "./downloads";
import { LinesPanel } from "./lines";
import { MarkList } from "./marks";
import { Pace } from "./pace";
import type { Panel, PanelEvents, View } from "./panel";
import { PanelSet } from "./panels";
import { RatiosPanel } from "./ratios";

const MORE_AT_MOST = 18;

/** Time after which the other charts wait for the next frame, ms. */
const BUDGET = 8;

export class ChartGrid {
  readonly element: HTMLElement;
  private readonly empty = h("div", { class: "ml-empty" });
  private readonly smoothing = h("input", {
    ...{ type: "range", min: 0, max: 3, step: 0.5, "aria-label": "Smoothing of the curves" },
  });
  private readonly marks = new MarkList();
  private readonly set: PanelSet<Panel>;
  private readonly disposers: Dispose[] = [];
  private readonly pace = new Pace(() => this.draw());
  private wishes = 0;
  private changed = false;
  /** Charts still to be drawn; what is asked for again while it waits keeps its turn. */
  private readonly due = new Set<string>();
  private draftFrame = 0;
  private readonly events: PanelEvents = {
    resized: () => this.schedule(),
    changed: () => this.store.viewChanged(),
    pointed: (step) => this.set.point(step),
    cursor: () => this.set.cursor,
    zoomed: (range) => {
      this.store.view.range = range;
      this.store.viewChanged();
    },
    enlarged: (name) => {
      const { view } = this.store;
      view.large = view.large === name ? "" : name;
      this.store.viewChanged();
    },
  };

  constructor(
    private readonly store: Store,
    private readonly theme: () => Theme,
  ) {
    this.set = new PanelSet(store.view.more, (open) => {
      store.view.more = open;
      this.schedule();
    });
    this.smoothing.addEventListener("input", () => {
      store.view.smoothing = Number(this.smoothing.value);
      store.viewChanged();
    });
    const stage = h("div", { class: "ml-stage" }, this.set.main, this.empty);
    const save = downloads(store, () => this.set.main, this.theme);
    this.disposers.push(save.dispose);
    const tools = h(
      "div",
      { class: "ml-tools" },
      save.element,
      h("label", { class: "ml-smoothing" }, "smoothing", this.smoothing),
    );
    const footer = h("div", { class: "ml-footer" }, this.marks.element, tools);
    this.element = h("section", { class: "ml-charts", "aria-label": "Charts" }, stage, footer, this.set.box);
    this.disposers.push(
      store.subscribe(() => this.told()),
      store.onDraft(() => this.follow()),
      watchTheme(() => this.schedule()),
    );
    // Panels stand from the first moment, so that a view that replaces another has its height at once.
    this.arrange(this.extraCharts());
    this.schedule();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.pace.dispose();
    cancelAnimationFrame(this.draftFrame);
    this.set.dispose();
    this.element.remove();
  }

  private schedule(): void {
    this.changed = true;
    this.pace.soon();
  }

  /** The run has news, or the person wants something else of the charts. */
  private told(): void {
    this.changed = true;
    const { state, wishes } = this.store;
    if (state?.status === "running" && wishes === this.wishes) this.pace.later();
    else this.pace.soon();
    this.wishes = wishes;
  }

  private draw(): boolean {
    if (this.changed) this.arrangeAll();
    this.changed = false;
    const view = this.view();
    const until = performance.now() + BUDGET;
    for (const name of this.due) {
      this.due.delete(name);
      this.set.panels.get(name)?.draw(view);
      if (performance.now() >= until) break;
    }
    return this.due.size > 0;
  }

  /** While a slider moves, only the charts that show its setting are drawn. */
  private follow(): void {
    cancelAnimationFrame(this.draftFrame);
    this.draftFrame = requestAnimationFrame(() => {
      for (const panel of this.set.panels.values()) if (panel.followsDrafts) panel.draw(this.view());
    });
  }

  private view(): View {
    return { store: this.store, theme: this.theme(), halfLife: this.halfLife(), cursor: this.set.cursor };
  }

  private arrangeAll(): void {
    const { store } = this;
    const state = store.state;
    const extra = this.extraCharts();
    this.arrange(extra);
    for (const chart of [...store.charts, ...(this.set.box.open ? extra : [])]) this.due.add(chart.name);
    const begun = store.seen > 0 || Object.keys(state?.baseline ?? {}).length > 0;
    setText(this.empty, begun ? "" : emptyText(state?.status));
    setAttributes(this.element, { "data-empty": !begun, "data-seen": store.seen });
    this.marks.draw(state?.marks ?? [], state?.marks_total ?? 0);
    this.smoothing.value = String(store.view.smoothing);
  }

  /** Half-life in steps: a share of the run, so that the default looks alike for 100 steps and for 10,000. */
  private halfLife(): number {
    const total = Math.max(this.store.state?.steps_total ?? 0, this.store.seen, 100);
    return this.store.view.smoothing === 0 ? 0 : (total / 200) * 2 ** this.store.view.smoothing;
  }

  /** A chart each for the metrics that are in none: whatever a loss reports is shown. */
  private extraCharts(): Chart[] {
    const shown = new Set(
      this.store.charts.flatMap((chart) => [
        chart.name,
        ...chart.lines.flatMap((line) => [line.series, line.spread].filter(Boolean)),
      ]),
    );
    const names = new Set<string>();
    for (const column of this.store.history.series.keys()) {
      const name = column.replace(/^held_out\//, "");
      if (!shown.has(column) && !shown.has(name)) names.add(name);
    }
    return [...names].sort().slice(0, MORE_AT_MOST).map(extraChart);
  }

  private arrange(extra: Chart[]): void {
    this.set.arrange(this.store.charts, extra, (chart, stray) => {
      const panel = panelOf(chart, stray);
      panel.attach(this.events);
      return panel;
    });
  }
}

function panelOf(chart: Chart, stray: boolean): Panel {
  if (chart.kind === "ratios") return new RatiosPanel(chart);
  return chart.kind === "bars" ? new BarsPanel(chart) : new LinesPanel(chart, stray);
}

function extraChart(name: string): Chart {
  return {
    ...{ name, title: name, unit: "", kind: "lines", bounds: null },
    lines: [
      { series: name, label: "training", role: "train", spread: "" },
      { series: `held_out/${name}`, label: "held-out", role: "held_out", spread: "" },
    ],
  };
}

function emptyText(status: string | undefined): string {
  if (status === "running") return "Loading the model and the data…";
  return status === "ready" ? "Press Start and watch the model learn" : "No step has been made yet";
}
