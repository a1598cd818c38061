/** One chart: a caption whose legend carries the latest numbers, or those at the cursor, and a plot below it. */

import { type Dispose, h, listen, setAttributes, setText } from "../dom";
import { thousands } from "../format";
import Plotly, { type Plot } from "../plotly";
import type { Chart } from "../protocol";
import type { Store } from "../store";
import type { Theme } from "../theme";
import { Legend, type LegendEntry, spoken } from "./legend";

export type { LegendEntry } from "./legend";

/** What every chart is drawn with. */
export interface View {
  store: Store;
  theme: Theme;
  /** Steps after which a value counts half in the smoothed line; 0 draws none. */
  halfLife: number;
  /** The step that the mouse or the keyboard points at, in any chart. */
  cursor: number | null;
  /** Pixels the plot is wide, once it is laid out. */
  width?: number;
}

export interface Drawing {
  traces: Record<string, unknown>[];
  layout: Record<string, unknown>;
  legend: LegendEntry[];
  /** Points held, before decimation. */
  points: number;
  last: number | undefined;
  /** Further attributes of the figure, and what it says instead of its legend. */
  attributes?: Record<string, string | number | null>;
  words?: string;
  /** The horizontal axis counts steps. */
  overSteps?: boolean;
  /** The legend at a step, for charts over steps. */
  readout?: (step: number) => LegendEntry[];
  toggle?: Toggle | null;
}

/** A switch in a chart's caption. */
export interface Toggle {
  label: string;
  title: string;
  on: boolean;
  flip: () => void;
}

/** What a panel tells its grid. */
export interface PanelEvents {
  resized: () => void;
  changed: () => void;
  pointed: (step: number | null) => void;
  /** The step that is pointed at; what is drawn may lag behind by a frame. */
  cursor: () => number | null;
  zoomed: (range: readonly [number, number] | null) => void;
  enlarged: (name: string) => void;
}

const CONFIG = { displayModeBar: false, showTips: false, doubleClick: false };

export abstract class Panel {
  readonly element: HTMLElement;
  private readonly unit: HTMLElement;
  private readonly toggle = h("button", { type: "button", class: "ml-toggle", hidden: true });
  private readonly enlarge = h("button", { type: "button", class: "ml-toggle ml-enlarge" }, "⤢");
  private readonly legend = new Legend();
  private readonly plot = h("div", { class: "ml-plot", tabindex: 0 });
  private readonly line = h("div", { class: "ml-cursor", hidden: true });
  private readonly disposers: Dispose[] = [];
  /** Whether it follows a setting while it is being chosen. */
  protected readonly live: boolean = false;
  private events: PanelEvents | null = null;
  private drawing_: Drawing | null = null;
  private width = 0;
  private drawn = false;

  constructor(readonly chart: Chart) {
    this.unit = h("span", { class: "ml-unit" }, chart.unit);
    const title = h("span", { class: "ml-title", title: chart.title }, chart.title);
    const heading = h("div", { class: "ml-heading" }, title, this.enlarge, this.toggle, this.unit);
    const caption = h("figcaption", {}, heading, this.legend.element);
    this.element = h(
      "figure",
      {
        ...{ class: "ml-chart", role: "group", "data-name": chart.name, "data-points": 0 },
        "data-kind": chart.kind,
      },
      caption,
      h("div", { class: "ml-room" }, this.plot, this.line),
    );
    this.plot.setAttribute("data-lm-suppress-shortcuts", "true");
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.plot);
    this.disposers.push(
      () => observer.disconnect(),
      listen(this.plot, "pointermove", (event) => this.events?.pointed(this.stepAt(event.clientX))),
      listen(this.plot, "pointerleave", () => this.events?.pointed(null)),
      listen(this.plot, "blur", () => this.events?.pointed(null)),
      listen(this.plot, "keydown", (event) => this.key(event)),
      listen(this.toggle, "click", () => {
        this.drawing_?.toggle?.flip();
        this.events?.changed();
      }),
      listen(this.enlarge, "click", () => this.events?.enlarged(this.chart.name)),
    );
  }

  protected abstract drawing(view: View): Drawing;

  get followsDrafts(): boolean {
    return this.live;
  }

  /** The grid listens from here on. */
  attach(events: PanelEvents): void {
    this.events = events;
  }

  draw(view: View): void {
    const large = view.store.view.large === this.chart.name;
    setAttributes(this.element, { "data-large": large });
    const words = large ? "As small as the others" : "Enlarge";
    setAttributes(this.enlarge, { "aria-label": words, title: words, "aria-pressed": String(large) });
    const width = this.plot.clientWidth;
    const drawing = this.drawing({ ...view, width });
    this.drawing_ = drawing;
    const marks = view.store.state?.marks.length ?? 0;
    setAttributes(this.element, {
      "data-points": drawing.points,
      "data-last": drawing.last ?? null,
      "data-marks": marks,
      ...drawing.attributes,
    });
    this.legend.flip = (key) => {
      const { hidden } = view.store.view;
      if (!hidden.delete(key)) hidden.add(key);
      this.events?.changed();
    };
    this.showToggle(drawing);
    this.point(view.cursor);
    if (width === 0) return; // not laid out yet; the observer draws it then
    this.width = width;
    const layout = { ...frame(view, drawing.layout), width, height: this.plot.clientHeight };
    void Plotly.react(this.plot, drawing.traces, layout, CONFIG);
    if (!this.drawn) this.listenToZoom(this.plot as unknown as Plot);
    this.drawn = true;
    this.point(view.cursor);
  }

  /** Shows the numbers at `step`, or the latest. */
  point(step: number | null): void {
    const drawing = this.drawing_;
    if (!drawing) return;
    const entries = step !== null && drawing.readout ? drawing.readout(step) : drawing.legend;
    this.legend.draw(entries);
    const at = step !== null && drawing.readout ? `step ${thousands(step)}` : "";
    setText(this.unit, at || this.chart.unit);
    const words = drawing.words ?? spoken(entries);
    setAttributes(this.element, { "aria-label": `${this.chart.title}${at ? `, ${at}` : ""}: ${words}` });
    setAttributes(this.plot, { "aria-label": `${this.chart.title}${at ? `, ${at}` : ""}: ${words}`, role: "img" });
    const x = step === null || !drawing.overSteps ? null : this.pixel(step);
    this.line.hidden = x === null;
    if (x !== null) this.line.style.transform = `translateX(${x}px)`;
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.legend.dispose();
    if (this.drawn) Plotly.purge(this.plot);
    this.element.remove();
  }

  private fit(): void {
    if (Math.abs(this.plot.clientWidth - this.width) >= 1) this.events?.resized();
  }

  private showToggle({ toggle }: Drawing): void {
    this.toggle.hidden = !toggle;
    if (!toggle) return;
    setText(this.toggle, toggle.label);
    setAttributes(this.toggle, { title: toggle.title, "aria-pressed": String(toggle.on) });
  }

  private axis() {
    return (this.plot as unknown as Plot)._fullLayout?.xaxis;
  }

  private pixel(step: number): number | null {
    const axis = this.axis();
    if (!axis) return null;
    const inside = axis.d2p(step);
    return inside >= -0.5 && inside <= axis._length + 0.5 ? axis._offset + inside : null;
  }

  private stepAt(clientX: number): number | null {
    const axis = this.axis();
    if (!axis || !this.drawing_?.overSteps) return null;
    const inside = clientX - this.plot.getBoundingClientRect().left - axis._offset;
    return inside < 0 || inside > axis._length ? null : Math.max(0, Math.round(axis.p2d(inside)));
  }

  /** Arrow keys walk through the steps; Escape leaves. */
  private key(event: KeyboardEvent): void {
    const axis = this.axis();
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Escape") this.events?.pointed(null);
    if (!axis || by === undefined || !this.drawing_?.overSteps) return;
    event.preventDefault();
    const [low, high] = axis.range;
    const from = this.events?.cursor() ?? Math.round(high);
    const stride = Math.max(1, Math.round((high - low) / 100));
    this.events?.pointed(Math.min(Math.round(high), Math.max(Math.round(low), from + by * stride)));
  }

  private listenToZoom(plot: Plot): void {
    plot.on("plotly_relayout", (change) => {
      const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (typeof low === "number" && typeof high === "number" && this.drawing_?.overSteps) {
        this.events?.zoomed([low, high]);
      }
    });
    plot.on("plotly_doubleclick", () => this.events?.zoomed(null));
  }
}

/** The layout all charts share. The text in it is ours: names that come from a loss never reach plotly. */
function frame({ theme, store }: View, own: Record<string, unknown>): Record<string, unknown> {
  const { xaxis, yaxis, yaxis2, ...rest } = own as { xaxis: object; yaxis: object; yaxis2?: object };
  const axis = {
    gridcolor: theme.grid,
    linecolor: theme.grid,
    tickcolor: theme.grid,
    zeroline: false,
    automargin: false,
    tickfont: { size: 11, color: theme.muted },
    nticks: 5,
  };
  const vertical = { ...axis, fixedrange: true, tickformat: "~g" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: theme.font, size: 11, color: theme.muted },
    margin: { l: 46, r: 16, t: 14, b: 36 },
    showlegend: false,
    dragmode: "zoom",
    // What the person zoomed to is kept in the store, for all charts.
    uirevision: String(store.view.range),
    hoverlabel: {
      bgcolor: theme.surface,
      bordercolor: theme.grid,
      font: { family: theme.font, size: 12, color: theme.text },
    },
    xaxis: { ...axis, showgrid: false, showline: true, ticks: "outside", ticklen: 4, ...xaxis },
    yaxis: { ...vertical, ...yaxis },
    ...(yaxis2 ? { yaxis2: { ...vertical, ...yaxis2 } } : {}),
    ...rest,
  };
}

export function axisTitle(text: string, theme: Theme): object {
  return { text, standoff: 4, font: { size: 11, color: theme.muted } };
}
