/** One chart: a caption whose legend has the numbers at the cursor or the latest, and a plot below it. */

import type { StepPlace } from "../controls/step_menu";
import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { thousands } from "../lib/format";
import Plotly, { type Plot } from "../lib/plotly";
import type { Range } from "../lib/scale";
import type { Theme } from "../lib/theme";
import type { Chart } from "../messages";
import type { RunStore } from "../run_store";
import { ChartLegend, type LegendEntry, legendText } from "./chart_legend";

/** What every chart needs for drawing. */
export interface PanelView {
  store: RunStore;
  theme: Theme;
  /** Steps after which a value has half its weight in the smoothed line; 0 draws none. */
  halfLife: number;
  /** The step that the pointer or the keyboard selects, in any chart. */
  cursor: number | null;
  /** Width of the plot, once it is laid out. */
  widthPx?: number;
}

/** What a chart draws: traces and layout for plotly, and the legend. */
export interface Drawing {
  traces: Record<string, unknown>[];
  layout: Record<string, unknown>;
  legend: LegendEntry[];
  /** Number of points before decimation. */
  points: number;
  last: number | undefined;
  /** Further attributes of the figure element. */
  attributes?: Record<string, string | number | null>;
  /** Text for screen readers, instead of the legend's. */
  text?: string;
  /** Whether the horizontal axis counts steps. */
  isOverSteps?: boolean;
  /** The legend at a step, for charts over steps. */
  readout?: (step: number) => LegendEntry[];
  toggle?: Toggle | null;
}

/** A switch in the caption of a chart. */
export interface Toggle {
  label: string;
  title: string;
  isOn: boolean;
  flip: () => void;
}

/** How a panel reports to its grid. */
export interface PanelEvents {
  onResize: () => void;
  onViewChange: () => void;
  onPoint: (step: number | null) => void;
  /** The selected step; what is drawn may lag behind by a frame. */
  cursor: () => number | null;
  onZoom: (range: Range | null) => void;
  onEnlarge: (name: string) => void;
  /** A person has chosen a step, by a click or by the Enter key. */
  onStep?: (place: StepPlace) => void;
}

/** A pointer that moves farther between press and release drags. */
const CLICK_PX = 5;
/** The margin above a plot. */
const PLOT_TOP_PX = 14;

const CONFIG = { displayModeBar: false, showTips: false, doubleClick: false };

export abstract class Panel {
  readonly element: HTMLElement;
  private readonly unit: HTMLElement;
  private readonly toggle = h("button", { type: "button", class: "ml-toggle", hidden: true });
  private readonly enlarge = h("button", { type: "button", class: "ml-toggle ml-enlarge" }, "⤢");
  private readonly legend = new ChartLegend();
  private readonly plot = h("div", { class: "ml-plot", tabindex: 0 });
  private readonly cursorLine = h("div", { class: "ml-cursor", hidden: true });
  private readonly disposers: Dispose[] = [];
  /** Whether the chart shows a setting while it is being chosen. */
  readonly followsDrafts: boolean = false;
  private events: PanelEvents | null = null;
  private current: Drawing | null = null;
  private widthPx = 0;
  private isDrawn = false;

  constructor(readonly chart: Chart) {
    this.unit = h("span", { class: "ml-unit" }, chart.unit);
    const title = h("span", { class: "ml-title", title: chart.definition || chart.title }, chart.title);
    const heading = h("div", { class: "ml-heading" }, title, this.enlarge, this.toggle, this.unit);
    const caption = h("figcaption", {}, heading, this.legend.element);
    this.element = h(
      "figure",
      {
        ...{ class: "ml-chart", role: "group", "data-name": chart.name, "data-points": 0 },
        "data-kind": chart.kind,
      },
      caption,
      h("div", { class: "ml-room" }, this.plot, this.cursorLine),
    );
    this.plot.setAttribute("data-lm-suppress-shortcuts", "true");
    const onLayout = new ResizeObserver(() => this.checkWidth());
    onLayout.observe(this.plot);
    this.disposers.push(
      () => onLayout.disconnect(),
      listen(this.plot, "pointermove", (event) => this.events?.onPoint(this.stepAt(event.clientX))),
      listen(this.plot, "pointerleave", () => this.events?.onPoint(null)),
      listen(this.plot, "blur", () => this.events?.onPoint(null)),
      listen(this.plot, "keydown", (event) => this.onKey(event)),
      listen(this.plot, "pointerdown", (event) => this.onPress(event)),
      listen(this.toggle, "click", () => {
        this.current?.toggle?.flip();
        this.events?.onViewChange();
      }),
      listen(this.enlarge, "click", () => this.events?.onEnlarge(this.chart.name)),
    );
  }

  /** Compute what to draw; changes nothing. */
  abstract drawing(view: PanelView): Drawing;

  /** Report to `events` from now on. */
  attach(events: PanelEvents): void {
    this.events = events;
  }

  draw(view: PanelView): void {
    const isLarge = view.store.view.large === this.chart.name;
    setAttributes(this.element, { "data-large": isLarge });
    const label = isLarge ? "As small as the others" : "Enlarge";
    setAttributes(this.enlarge, { "aria-label": label, title: label, "aria-pressed": String(isLarge) });
    const widthPx = this.plot.clientWidth;
    const drawing = this.drawing({ ...view, widthPx });
    this.current = drawing;
    setAttributes(this.element, {
      "data-points": drawing.points,
      "data-last": drawing.last ?? null,
      "data-marks": view.store.state?.marks.length ?? 0,
      ...drawing.attributes,
    });
    this.legend.onToggle = (key) => {
      const { hidden } = view.store.view;
      if (!hidden.delete(key)) hidden.add(key);
      this.events?.onViewChange();
    };
    this.showToggle(drawing);
    this.point(view.cursor);
    if (widthPx === 0) return; // not laid out yet: the ResizeObserver triggers the first drawing
    this.widthPx = widthPx;
    const layout = { ...layoutOf(view, drawing.layout), width: widthPx, height: this.plot.clientHeight };
    void Plotly.react(this.plot, drawing.traces, layout, CONFIG);
    if (!this.isDrawn) this.listenToZoom(this.plot as unknown as Plot);
    this.isDrawn = true;
    this.point(view.cursor);
  }

  /** Show the numbers at `step`, or the latest. */
  point(step: number | null): void {
    const drawing = this.current;
    if (!drawing) return;
    const entries = step !== null && drawing.readout ? drawing.readout(step) : drawing.legend;
    this.legend.draw(entries);
    const stepText = step !== null && drawing.readout ? `step ${thousands(step)}` : "";
    setText(this.unit, stepText || this.chart.unit);
    const label = `${this.chart.title}${stepText && `, ${stepText}`}: ${drawing.text ?? legendText(entries)}`;
    setAttributes(this.element, { "aria-label": label });
    setAttributes(this.plot, { "aria-label": label, role: "img" });
    const x = step === null || !drawing.isOverSteps ? null : this.pixelOf(step);
    this.cursorLine.hidden = x === null;
    if (x !== null) this.cursorLine.style.transform = `translateX(${x}px)`;
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.legend.dispose();
    if (this.isDrawn) Plotly.purge(this.plot);
    this.element.remove();
  }

  private checkWidth(): void {
    if (Math.abs(this.plot.clientWidth - this.widthPx) >= 1) this.events?.onResize();
  }

  private showToggle({ toggle }: Drawing): void {
    this.toggle.hidden = !toggle;
    if (!toggle) return;
    setText(this.toggle, toggle.label);
    setAttributes(this.toggle, { title: toggle.title, "aria-pressed": String(toggle.isOn) });
  }

  private xAxis() {
    return (this.plot as unknown as Plot)._fullLayout?.xaxis;
  }

  /** Horizontal position of a step in the plot; null outside of the axis. */
  private pixelOf(step: number): number | null {
    const axis = this.xAxis();
    if (!axis) return null;
    const insidePx = axis.d2p(step);
    return insidePx >= -0.5 && insidePx <= axis._length + 0.5 ? axis._offset + insidePx : null;
  }

  private stepAt(clientX: number): number | null {
    const axis = this.xAxis();
    if (!axis || !this.current?.isOverSteps) return null;
    const insidePx = clientX - this.plot.getBoundingClientRect().left - axis._offset;
    return insidePx < 0 || insidePx > axis._length ? null : Math.max(0, Math.round(axis.p2d(insidePx)));
  }

  /** Arrow keys move the cursor from step to step; Escape removes it. */
  private onKey(event: KeyboardEvent): void {
    const axis = this.xAxis();
    const strides = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Escape") this.events?.onPoint(null);
    if (event.key === "Enter") this.chooseCursor(event);
    if (!axis || strides === undefined || !this.current?.isOverSteps) return;
    event.preventDefault();
    const [low, high] = axis.range;
    const from = this.events?.cursor() ?? Math.round(high);
    const stride = Math.max(1, Math.round((high - low) / 100));
    this.events?.onPoint(Math.min(Math.round(high), Math.max(Math.round(low), from + strides * stride)));
  }

  /** A press that ends near its beginning is a click; otherwise it zooms. Plotly lets no click events through. */
  private onPress({ button, clientX, clientY }: PointerEvent): void {
    const onRelease = (event: PointerEvent) => {
      const movedPx = Math.abs(event.clientX - clientX) + Math.abs(event.clientY - clientY);
      const step = this.stepAt(clientX);
      if (button !== 0 || movedPx > CLICK_PX || step === null) return;
      this.events?.onStep?.({ step, x: clientX, y: clientY, from: this.plot });
    };
    window.addEventListener("pointerup", onRelease, { once: true });
  }

  private chooseCursor(event: KeyboardEvent): void {
    const step = this.events?.cursor() ?? null;
    const insidePx = step === null ? null : this.pixelOf(step);
    if (step === null || insidePx === null || !this.events?.onStep) return;
    event.preventDefault();
    const { left, top } = this.plot.getBoundingClientRect();
    this.events.onStep({ step, x: left + insidePx, y: top + PLOT_TOP_PX, from: this.plot });
  }

  private listenToZoom(plot: Plot): void {
    plot.on("plotly_relayout", (change) => {
      const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (typeof low === "number" && typeof high === "number" && this.current?.isOverSteps) {
        this.events?.onZoom([low, high]);
      }
    });
    plot.on("plotly_doubleclick", () => this.events?.onZoom(null));
  }
}

/** The layout that all charts share. Its text is ours: plotly reads text as HTML, so it never gets a loss's names. */
function layoutOf({ theme, store }: PanelView, own: Record<string, unknown>): Record<string, unknown> {
  const { xaxis, yaxis, yaxis2, ...others } = own as { xaxis: object; yaxis: object; yaxis2?: object };
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
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: theme.font, size: 11, color: theme.muted },
    margin: { l: 46, r: 16, t: PLOT_TOP_PX, b: 36 },
    showlegend: false,
    dragmode: "zoom",
    // The store has the zoomed range, for all charts.
    uirevision: String(store.view.range),
    hoverlabel: {
      bgcolor: theme.surface,
      bordercolor: theme.grid,
      font: { family: theme.font, size: 12, color: theme.text },
    },
    xaxis: { ...axis, showgrid: false, showline: true, ticks: "outside", ticklen: 4, ...xaxis },
    yaxis: { ...vertical, ...yaxis },
    ...(yaxis2 ? { yaxis2: { ...vertical, ...yaxis2 } } : {}),
    ...others,
  };
}

export function axisTitle(text: string, theme: Theme): object {
  return { text, standoff: 4, font: { size: 11, color: theme.muted } };
}

// With up to this many steps in view, plotly would put ticks between two steps.
const SHORT_STEPS = 6;

/** The axis of steps, which are whole numbers. */
export function stepAxis(range: Range, theme: Theme): object {
  const ticks = range[1] - range[0] <= SHORT_STEPS ? { dtick: 1 } : {};
  return { range, title: axisTitle("step", theme), tickformat: "~s", ...ticks };
}

/** A curve of a single point has no length, so it is drawn as a marker. */
export function pointMarker(points: number, colour: string): object {
  return points === 1 ? { mode: "markers", marker: { color: colour, size: 5 } } : {};
}

/** Escape a text of ours for plotly, which reads texts as HTML. */
export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
