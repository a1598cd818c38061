/** One chart: a caption whose legend carries the latest numbers, and a plot below it. */

import { type Dispose, h, setAttributes, setText } from "../dom";
import Plotly from "../plotly";
import type { Chart } from "../protocol";
import type { Store } from "../store";
import type { Theme } from "../theme";

/** What every chart is drawn with. */
export interface View {
  store: Store;
  theme: Theme;
  /** Steps after which a value counts half in the smoothed line; 0 draws none. */
  halfLife: number;
}

export interface LegendEntry {
  label: string;
  colour: string;
  value: string;
}

export interface Drawing {
  traces: Record<string, unknown>[];
  layout: Record<string, unknown>;
  legend: LegendEntry[];
  /** Points held, before decimation. */
  points: number;
  last: number | undefined;
}

const CONFIG = {
  displayModeBar: false,
  showTips: false,
  doubleClick: "reset+autosize",
};

export abstract class Panel {
  readonly element: HTMLElement;
  private readonly legend = h("div", { class: "ml-legend" });
  private readonly plot = h("div", { class: "ml-plot" });
  private readonly disposers: Dispose[] = [];
  private width = 0;
  private drawn = false;

  constructor(readonly chart: Chart) {
    const unit = h("span", { class: "ml-unit" }, chart.unit);
    const title = h("span", { class: "ml-title", title: chart.title }, chart.title);
    const caption = h("figcaption", {}, h("div", { class: "ml-heading" }, title, unit), this.legend);
    this.element = h(
      "figure",
      { class: "ml-chart", role: "group", "data-name": chart.name, "data-points": 0 },
      caption,
      this.plot,
    );
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.plot);
    this.disposers.push(() => observer.disconnect());
  }

  protected abstract drawing(view: View): Drawing;

  draw(view: View): void {
    const drawing = this.drawing(view);
    const marks = view.store.state?.marks.length ?? 0;
    setAttributes(this.element, {
      "data-points": drawing.points,
      "data-last": drawing.last ?? null,
      "data-marks": marks,
      "aria-label": `${this.chart.title}: ${drawing.legend.map((entry) => `${entry.label} ${entry.value}`).join(", ")}`,
    });
    this.describe(drawing.legend);
    const width = this.plot.clientWidth;
    if (width === 0) return; // not laid out yet; the observer draws it then
    this.width = width;
    this.drawn = true;
    void Plotly.react(
      this.plot,
      drawing.traces,
      { ...frame(view, drawing.layout), width, height: this.plot.clientHeight },
      CONFIG,
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    if (this.drawn) Plotly.purge(this.plot);
    this.element.remove();
  }

  /** Set by the grid: called when the panel has another width than it was drawn for. */
  onResize: () => void = () => {};

  private fit(): void {
    if (Math.abs(this.plot.clientWidth - this.width) >= 1) this.onResize();
  }

  private describe(entries: LegendEntry[]): void {
    while (this.legend.children.length > entries.length) this.legend.lastElementChild?.remove();
    entries.forEach((entry, i) => {
      let row = this.legend.children[i] as HTMLElement | undefined;
      if (!row) {
        row = h(
          "span",
          { class: "ml-key" },
          h("i"),
          h("span", { class: "ml-key-label" }),
          h("b", { class: "ml-value" }),
        );
        this.legend.append(row);
      }
      const [swatch, label, value] = row.children as unknown as [HTMLElement, HTMLElement, HTMLElement];
      swatch.style.background = entry.colour;
      setText(label, entry.label);
      setText(value, entry.value);
    });
  }
}

/** The layout all charts share. The text in it is ours: names that come from a loss never reach plotly. */
function frame({ theme }: View, own: Record<string, unknown>): Record<string, unknown> {
  const { xaxis, yaxis, ...rest } = own as { xaxis: object; yaxis: object };
  const axis = {
    gridcolor: theme.grid,
    linecolor: theme.grid,
    tickcolor: theme.grid,
    zeroline: false,
    automargin: false,
    tickfont: { size: 11, color: theme.muted },
    nticks: 5,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: theme.font, size: 11, color: theme.muted },
    margin: { l: 46, r: 16, t: 14, b: 36 },
    showlegend: false,
    dragmode: "zoom",
    uirevision: "kept",
    hoverlabel: {
      bgcolor: theme.surface,
      bordercolor: theme.grid,
      font: { family: theme.font, size: 12, color: theme.text },
    },
    xaxis: { ...axis, showgrid: false, showline: true, ticks: "outside", ticklen: 4, ...xaxis },
    yaxis: { ...axis, fixedrange: true, tickformat: "~g", ...yaxis },
    ...rest,
  };
}

export function axisTitle(text: string, theme: Theme): object {
  return { text, standoff: 4, font: { size: 11, color: theme.muted } };
}
