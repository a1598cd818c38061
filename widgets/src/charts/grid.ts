/** All charts of a run, drawn at most once a frame and only when something changed. */

import { type Dispose, h, setAttributes, setText } from "../dom";
import type { Chart } from "../protocol";
import type { Store } from "../store";
import { type Theme, watchTheme } from "../theme";
import { BarsPanel } from "./bars";
import { LinesPanel } from "./lines";
import { MarkList } from "./marks";
import type { Panel } from "./panel";

const MORE_AT_MOST = 18;

export class ChartGrid {
  readonly element: HTMLElement;
  private readonly main = h("div", { class: "ml-grid" });
  private readonly more = h("div", { class: "ml-grid" });
  private readonly moreCount = h("span");
  private readonly moreBox = h(
    "details",
    { class: "ml-more", hidden: true },
    h("summary", {}, "More metrics ", this.moreCount),
    this.more,
  );
  private readonly empty = h("div", { class: "ml-empty" });
  private readonly marks = new MarkList();
  private readonly panels = new Map<string, Panel>();
  private readonly disposers: Dispose[] = [];
  private frame = 0;

  constructor(
    private readonly store: Store,
    private readonly theme: () => Theme,
  ) {
    const smoothing = h("input", {
      type: "range",
      min: 0,
      max: 3,
      step: 0.5,
      value: store.view.smoothing,
      "aria-label": "Smoothing of the curves",
    });
    smoothing.addEventListener("input", () => {
      this.store.view.smoothing = Number(smoothing.value);
      this.schedule();
    });
    const footer = h(
      "div",
      { class: "ml-footer" },
      this.marks.element,
      h("label", { class: "ml-smoothing" }, "smoothing", smoothing),
    );
    const stage = h("div", { class: "ml-stage" }, this.main, this.empty);
    this.element = h("section", { class: "ml-charts", "aria-label": "Charts" }, stage, footer, this.moreBox);
    this.moreBox.open = store.view.more;
    this.moreBox.addEventListener("toggle", () => {
      store.view.more = this.moreBox.open;
      this.schedule();
    });
    this.disposers.push(
      store.subscribe(() => this.schedule()),
      watchTheme(() => this.schedule()),
    );
    // Panels stand from the first moment, so that a view that replaces another has its height at once.
    this.arrange(this.main, store.charts);
    this.moreBox.hidden = this.extraCharts().length === 0;
    this.schedule();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    cancelAnimationFrame(this.frame);
    for (const panel of this.panels.values()) panel.dispose();
    this.panels.clear();
    this.element.remove();
  }

  private schedule(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    const { store } = this;
    const state = store.state;
    const view = { store, theme: this.theme(), halfLife: this.halfLife() };
    const extra = this.extraCharts();
    this.arrange(this.main, store.charts);
    this.arrange(this.more, extra, true);
    this.forget(new Set([...store.charts, ...extra].map((chart) => chart.name)));
    this.moreBox.hidden = extra.length === 0;
    setText(this.moreCount, `(${extra.length})`);
    for (const chart of [...store.charts, ...(this.moreBox.open ? extra : [])]) this.panels.get(chart.name)?.draw(view);
    const begun = store.seen > 0 || Object.keys(state?.baseline ?? {}).length > 0;
    setText(this.empty, begun ? "" : emptyText(state?.status));
    setAttributes(this.element, { "data-empty": !begun, "data-seen": store.seen });
    this.marks.draw(state?.marks ?? [], state?.marks_total ?? 0);
  }

  /** Half-life in steps: a share of the run, so that the default looks alike for 100 steps and for 10,000. */
  private halfLife(): number {
    const total = Math.max(this.store.state?.steps_total ?? 0, this.store.seen, 100);
    return this.store.view.smoothing === 0 ? 0 : (total / 200) * 2 ** this.store.view.smoothing;
  }

  /** A chart each for the metrics that are in none: whatever a loss reports is shown. */
  private extraCharts(): Chart[] {
    const shown = new Set(
      this.store.charts.flatMap((chart) => [chart.name, ...chart.lines.map((line) => line.series)]),
    );
    const names = new Set<string>();
    for (const column of this.store.history.series.keys()) {
      const name = column.replace(/^held_out\//, "");
      if (!shown.has(column) && !shown.has(name)) names.add(name);
    }
    return [...names].sort().slice(0, MORE_AT_MOST).map(extraChart);
  }

  private arrange(parent: HTMLElement, charts: Chart[], stray = false): void {
    for (const chart of charts) {
      if (this.panels.has(chart.name)) continue;
      const panel = chart.kind === "bars" ? new BarsPanel(chart) : new LinesPanel(chart, stray);
      panel.onResize = () => this.schedule();
      this.panels.set(chart.name, panel);
      parent.append(panel.element);
    }
  }

  private forget(wanted: Set<string>): void {
    for (const [name, panel] of this.panels) {
      if (wanted.has(name)) continue;
      panel.dispose();
      this.panels.delete(name);
    }
  }
}

function extraChart(name: string): Chart {
  return {
    ...{ name, title: name, unit: "", kind: "lines", bounds: null },
    lines: [
      { series: name, label: "training", role: "train" },
      { series: `held_out/${name}`, label: "held-out", role: "held_out" },
    ],
  };
}

function emptyText(status: string | undefined): string {
  if (status === "running") return "Loading the model and the data…";
  return status === "ready" ? "Press Start and watch the model learn" : "No step has been made yet";
}
