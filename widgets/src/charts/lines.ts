/** Curves over steps: training thin and smoothed thick, held-out with markers, and a line at every change. */

import { type Series, valueAt } from "../history";
import { short } from "../lib/format";
import { extentWithin, fixedAxis, logRange, roundRange } from "../lib/scale";
import { rawPath, smooth } from "../lib/smooth";
import type { Theme } from "../lib/theme";
import type { Chart, Line } from "../messages";
import type { RunStore } from "../run_store";
import { branchKey, branchTrace } from "./branch_curves";
import type { LegendEntry } from "./chart_legend";
import { lossChangeSteps, markLayout } from "./marks";
import { type Drawing, Panel, type PanelView, pointMarker, stepAxis, type Toggle } from "./panel";

/** A held-out curve of more points is drawn without markers. */
const MAX_MARKERS = 120;

/** Points that the vertical axis has to contain. */
interface Points {
  x: readonly number[];
  y: readonly number[];
}

interface Curve {
  traces: Record<string, unknown>[];
  points: Points[];
  last: number | undefined;
}

const EMPTY_CURVE: Curve = { traces: [], points: [], last: undefined };

export class LinesPanel extends Panel {
  /** @param omitsEmpty Leave curves without data out of the legend: for a metric that is in no chart of the recipe. */
  constructor(
    chart: Chart,
    private readonly omitsEmpty = false,
  ) {
    super(chart);
  }

  override drawing(view: PanelView): Drawing {
    const { store, theme } = view;
    const { hidden, log } = store.view;
    const traces: Record<string, unknown>[] = [];
    const faintTraces: Record<string, unknown>[] = [];
    const points: Points[] = [];
    const legend: LegendEntry[] = [];
    const readers: ((step: number) => LegendEntry)[] = [];
    let count = 0;
    let last: number | undefined;
    for (const line of this.chart.lines) {
      const series = store.history.series.get(line.series);
      const start = valueBeforeTraining(line, store.state?.baseline ?? {});
      const key = `${this.chart.name}/${line.label}`;
      const entry = { label: line.label, colour: theme.roles[line.role], key, hidden: hidden.has(key) };
      if (!series && start === undefined) {
        if (this.omitsEmpty) continue;
        const empty = { label: entry.label, colour: entry.colour, value: "–" };
        legend.push(empty);
        readers.push(() => empty);
        continue;
      }
      const curve =
        line.role === "held_out" ? heldOutCurve(line, series, start, theme) : trainingCurve(line, series, view);
      if (!entry.hidden) {
        for (const branch of store.branches) {
          const faint = hidden.has(branchKey(branch)) ? null : branchTrace(branch, line, start, view);
          if (!faint) continue;
          faintTraces.push(faint.trace);
          points.push(faint);
        }
        const spread = line.spread ? bandTrace(series, store.history.series.get(line.spread), line, view) : null;
        if (spread) {
          traces.unshift(spread.trace);
          points.push(spread);
        }
        traces.push(...curve.traces);
        points.push(...curve.points);
      }
      legend.push({ ...entry, value: short(curve.last) });
      readers.push((step) => ({ ...entry, value: short(valueAt(series, step, line.role === "held_out", start)) }));
      count += series?.points ?? 0;
      last ??= series?.mean.at(-1);
    }
    const { bounds } = this.chart;
    const steps = store.stepsShown;
    const [low, high] = extentWithin(points, steps);
    const canBeLog = low > 0 && Number.isFinite(low) && !bounds;
    const isLog = canBeLog && log.has(this.chart.name);
    const linear = { type: "linear", ...(bounds ? fixedAxis(bounds) : { range: roundRange(low, high) }) };
    return {
      traces: [...faintTraces, ...traces],
      layout: {
        hovermode: false,
        xaxis: stepAxis(steps, theme),
        yaxis: isLog ? { type: "log", range: logRange(low, high), dtick: "D2" } : linear,
        ...markLayout(store, steps, theme),
      },
      legend,
      points: count,
      last,
      isOverSteps: true,
      readout: (step) => readers.map((read) => read(step)),
      toggle: canBeLog ? this.logToggle(store) : null,
    };
  }

  private logToggle({ view }: RunStore): Toggle {
    const { name } = this.chart;
    const flip = () => {
      if (!view.log.delete(name)) view.log.add(name);
    };
    return { label: "log", title: "Logarithmic vertical axis", isOn: view.log.has(name), flip };
  }
}

/** The raw values thin, and over them the smoothed ones thick. */
function trainingCurve(line: Line, series: Series | undefined, view: PanelView): Curve {
  if (!series) return EMPTY_CURVE;
  const colour = view.theme.roles[line.role];
  const raw = rawPath(series);
  const isSmoothed = view.halfLife > 0;
  const marker = pointMarker(series.length, colour);
  const traces: Record<string, unknown>[] = [
    {
      ...{ type: "scatter", mode: "lines", name: line.label, x: raw.x, y: raw.y },
      line: { color: colour, width: isSmoothed ? 1 : 1.6 },
      opacity: isSmoothed ? 0.32 : 1,
      ...(isSmoothed ? {} : marker),
    },
  ];
  if (isSmoothed) {
    traces.push({
      ...{
        type: "scatter",
        mode: "lines",
        x: series.steps,
        y: smooth(series, view.halfLife, lossChangeSteps(view.store)),
      },
      line: { color: colour, width: 2 },
      ...marker,
    });
  }
  // The legend has the last measured value, like the readout at a step; the run records no smoothed values.
  return { traces, points: [raw], last: series.mean.at(-1) };
}

function heldOutCurve(line: Line, series: Series | undefined, start: number | undefined, theme: Theme): Curve {
  const x = [...(start === undefined ? [] : [0]), ...(series?.steps ?? [])];
  const y = [...(start === undefined ? [] : [start]), ...(series?.mean ?? [])];
  const colour = theme.roles[line.role];
  const trace = {
    ...{ type: "scatter", mode: x.length > MAX_MARKERS ? "lines" : "lines+markers", name: line.label, x, y },
    line: { color: colour, width: 1.8 },
    marker: { color: colour, size: 5 },
  };
  return { traces: [trace], points: [{ x, y }], last: y.at(-1) };
}

/** A band of one standard deviation around a smoothed curve; null unless both series have the same buckets. */
function bandTrace(series: Series | undefined, deviation: Series | undefined, line: Line, view: PanelView) {
  if (!series || !deviation || deviation.points !== series.points || deviation.length !== series.length) return null;
  const restarts = lossChangeSteps(view.store);
  const middle = smooth(series, view.halfLife, restarts);
  const distance = smooth(deviation, view.halfLife, restarts);
  const upper = middle.map((value, i) => value + (distance[i] as number));
  const lower = middle.map((value, i) => value - (distance[i] as number));
  const x = [...series.steps, ...[...series.steps].reverse()];
  const y = [...upper, ...lower.reverse()];
  const trace = {
    ...{ type: "scatter", mode: "lines", x, y, fill: "toself" },
    ...{ fillcolor: view.theme.roles[line.role], opacity: 0.13, line: { width: 0 } },
  };
  return { trace, x, y };
}

function valueBeforeTraining(line: Line, baseline: Record<string, number>): number | undefined {
  return line.role === "held_out" ? baseline[line.series.replace("held_out/", "")] : undefined;
}
