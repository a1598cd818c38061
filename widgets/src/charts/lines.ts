/** Curves over steps: raw thin, smoothed strong, held-out with points, and a line wherever something changed. */

import { short } from "../format";
import type { Series } from "../history";
import { lossMarks } from "../loss_marks";
import type { Chart, Line, Mark } from "../protocol";
import { valueAt } from "../readout";
import { extentWithin, logRange, padded, type Range, roundRange, stepRange } from "../scale";
import { rawPath, smooth } from "../smooth";
import type { Store } from "../store";
import type { Theme } from "../theme";
import { markLines } from "./marks";
import { axisTitle, type Drawing, type LegendEntry, Panel, type Toggle, type View } from "./panel";

/** Points that decide the vertical axis. */
interface Points {
  x: readonly number[];
  y: readonly number[];
}

export class LinesPanel extends Panel {
  constructor(
    chart: Chart,
    private readonly stray = false,
  ) {
    super(chart);
  }

  protected drawing(view: View): Drawing {
    const { store, theme } = view;
    const { range, hidden, log } = store.view;
    const traces: Record<string, unknown>[] = [];
    const columns: Points[] = [];
    const legend: LegendEntry[] = [];
    const readers: ((step: number) => LegendEntry)[] = [];
    let points = 0;
    let last: number | undefined;
    for (const line of this.chart.lines) {
      const series = store.history.series.get(line.series);
      const start = baselineOf(line, store.state?.baseline ?? {});
      const key = `${this.chart.name}/${line.label}`;
      const entry = { label: line.label, colour: theme.roles[line.role], key, hidden: hidden.has(key) };
      if (!series && start === undefined) {
        // A chart of ours promises its curves from the start; one made for a stray metric shows only what there is.
        if (!this.stray) {
          const empty = { label: entry.label, colour: entry.colour, value: "–" };
          legend.push(empty);
          readers.push(() => empty);
        }
        continue;
      }
      const drawn = line.role === "held_out" ? held(line, series, start, theme) : noisy(line, series, view);
      if (!entry.hidden) {
        const around = line.spread ? band(series, store.history.series.get(line.spread), line, view) : null;
        if (around) {
          traces.unshift(around.trace);
          columns.push(around);
        }
        traces.push(...drawn.traces);
        columns.push(...drawn.points);
      }
      legend.push({ ...entry, value: short(drawn.last) });
      readers.push((step) => ({ ...entry, value: short(valueAt(series, step, line.role === "held_out", start)) }));
      points += series?.points ?? 0;
      last ??= series?.mean.at(-1);
    }
    const state = store.state;
    const xRange = range ?? stepRange(state?.steps_done ?? 0, state?.steps_total ?? 0);
    const [low, high] = extentWithin(columns, xRange);
    const positive = low > 0 && Number.isFinite(low) && !this.chart.bounds;
    const logarithmic = positive && log.has(this.chart.name);
    const vertical = this.chart.bounds ? padded(this.chart.bounds) : roundRange(low, high);
    const layout = {
      hovermode: false,
      xaxis: { range: xRange, title: axisTitle("step", theme), tickformat: "~s" },
      yaxis: {
        ...(logarithmic
          ? { type: "log", range: logRange(low, high), dtick: "D2" }
          : { type: "linear", range: vertical }),
        ...(this.chart.bounds ? { tickvals: [0, 0.25, 0.5, 0.75, 1] } : {}),
      },
      ...marked(state?.marks ?? [], state?.marks_total ?? 0, xRange, theme),
    };
    const readout = (step: number) => readers.map((read) => read(step));
    return { traces, layout, legend, points, last, overSteps: true, readout, toggle: this.logToggle(view, positive) };
  }

  /** A logarithmic axis is offered where all that is shown lies above 0. */
  private logToggle({ store }: View, positive: boolean): Toggle | null {
    const { log } = store.view;
    const { name } = this.chart;
    if (!positive) return null;
    const flip = () => {
      if (!log.delete(name)) log.add(name);
    };
    return { label: "log", title: "Logarithmic vertical axis", on: log.has(name), flip };
  }
}

interface Drawn {
  traces: Record<string, unknown>[];
  points: Points[];
  last: number | undefined;
}

function noisy(line: Line, series: Series | undefined, view: View): Drawn {
  if (!series) return { traces: [], points: [], last: undefined };
  const colour = view.theme.roles[line.role];
  const raw = rawPath(series);
  const smoothed = smooth(series, view.halfLife, changesOf(view.store));
  const strong = view.halfLife > 0;
  const mark = alone(series.length, colour);
  const traces: Record<string, unknown>[] = [
    {
      ...{ type: "scatter", mode: "lines", name: line.label, x: raw.x, y: raw.y },
      line: { color: colour, width: strong ? 1 : 1.6 },
      opacity: strong ? 0.32 : 1,
      ...(strong ? {} : mark),
    },
  ];
  if (strong) {
    traces.push({
      ...{ type: "scatter", mode: "lines", x: series.steps, y: smoothed },
      line: { color: colour, width: 2 },
      ...mark,
    });
  }
  // The number is of the batches, as where somebody points: a smoothed one is none that the run has.
  return { traces, points: [raw], last: series.mean.at(-1) };
}

/** Steps from which another loss made the batches' numbers. */
export function changesOf({ state, losses }: Store): number[] {
  return lossMarks(state?.marks ?? [], losses).map(({ step }) => step);
}

/** A line of one point has no length: it is drawn as a point. */
export function alone(points: number, colour: string): object {
  return points === 1 ? { mode: "markers", marker: { color: colour, size: 5 } } : {};
}

/** One standard deviation on both sides of a smoothed curve; none where the two columns do not come together. */
function band(series: Series | undefined, spread: Series | undefined, line: Line, view: View) {
  if (!series || !spread || spread.points !== series.points || spread.length !== series.length) return null;
  const changes = changesOf(view.store);
  const middle = smooth(series, view.halfLife, changes);
  const around = smooth(spread, view.halfLife, changes);
  const upper = middle.map((value, i) => value + (around[i] as number));
  const lower = middle.map((value, i) => value - (around[i] as number));
  const x = [...series.steps, ...[...series.steps].reverse()];
  const y = [...upper, ...lower.reverse()];
  const trace = {
    ...{ type: "scatter", mode: "lines", x, y, fill: "toself" },
    ...{ fillcolor: view.theme.roles[line.role], opacity: 0.13, line: { width: 0 } },
  };
  return { trace, x, y };
}

function held(line: Line, series: Series | undefined, start: number | undefined, theme: Theme): Drawn {
  const x = [...(start === undefined ? [] : [0]), ...(series?.steps ?? [])];
  const y = [...(start === undefined ? [] : [start]), ...(series?.mean ?? [])];
  const colour = theme.roles[line.role];
  const trace = {
    ...{ type: "scatter", mode: x.length > 120 ? "lines" : "lines+markers", name: line.label, x, y },
    line: { color: colour, width: 1.8 },
    marker: { color: colour, size: 5 },
  };
  return { traces: [trace], points: [{ x, y }], last: y.at(-1) };
}

function baselineOf(line: Line, baseline: Record<string, number>): number | undefined {
  return line.role === "held_out" ? baseline[line.series.replace("held_out/", "")] : undefined;
}

/** A dotted line before the first step of each change, numbered as in the list below the charts. */
export function marked(marks: Mark[], total: number, [low, high]: Range, theme: Theme): object {
  const lines = markLines(marks, total, 0.06 * (high - low)).filter(({ x }) => x >= low && x <= high);
  const shapes = lines.map(({ x }) => ({
    ...{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below" },
    line: { color: theme.muted, width: 1, dash: "dot" },
  }));
  const annotations = lines
    .filter(({ label }) => label !== "")
    .map(({ x, label }) => ({
      ...{ x, y: 1, xref: "x", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false },
      text: label,
      font: { size: 10, color: theme.muted },
      borderpad: 0,
    }));
  return { shapes, annotations };
}
