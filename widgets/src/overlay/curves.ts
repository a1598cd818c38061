/** Which curves of several runs share a chart, and their points. Pure functions, without a page. */

import { otherMetrics } from "../charts/other_charts";
import { Series } from "../history";
import type { Chart } from "../messages";
import type { LabelledRun } from "../multi_run_store";
import type { RunStore } from "../run_store";

/** One chart of all runs. */
export interface OverlayChart {
  name: string;
  title: string;
  definition: string;
  unit: string;
  bounds: number[] | null;
  series: string;
  /** If not empty, the chart shows `series` minus this series. */
  minus: string;
  /** Whether the chart stands after all others. */
  last: boolean;
}

/**
 * A chart for each training curve of the runs' own charts, in their order, changed as `Chart.overlay` says.
 *
 * A chart of several curves is split: one chart per curve, which is then named after its series.
 */
export function overlayCharts(all: readonly (readonly Chart[])[]): OverlayChart[] {
  const charts = new Map<string, OverlayChart & Pick<Chart, "overlay">>();
  for (const chart of all.flat()) {
    if (chart.kind !== "lines") continue;
    const { definition, unit, bounds, overlay } = chart;
    const training = chart.lines.filter((line) => line.role !== "held_out");
    for (const { series } of training) {
      if (charts.has(series)) continue;
      const title = training.length > 1 ? series : chart.title;
      const last = overlay?.last ?? false;
      charts.set(series, { name: series, title, definition, unit, bounds, series, minus: "", last, overlay });
    }
  }
  for (const chart of charts.values()) {
    if (!chart.overlay) continue;
    const [series, minus] = chart.overlay.difference;
    if (series === undefined || minus === undefined) chart.unit = chart.overlay.unit;
    else if (charts.has(series) && charts.has(minus)) Object.assign(chart, { unit: chart.overlay.unit, series, minus });
  }
  const ordered = [...charts.values()].map(({ overlay: _, ...chart }) => chart);
  return [...ordered.filter((chart) => !chart.last), ...ordered.filter((chart) => chart.last)];
}

/** A chart for each metric that is in no other chart. */
export function otherCharts(runs: readonly LabelledRun[], charts: readonly OverlayChart[]): OverlayChart[] {
  const shown = new Set(charts.flatMap((chart) => [chart.name, chart.series, chart.minus]));
  const columns = runs.flatMap(({ store }) => [...store.history.series.keys()]);
  return otherMetrics(columns, shown).map((name) => {
    const metric = runs.map(({ store }) => store.metrics[name]).find(Boolean);
    const { definition, unit } = metric ?? { definition: "", unit: "" };
    return { name, title: name, definition, unit, bounds: null, series: name, minus: "", last: false };
  });
}

/** The training curve of a run in a chart; null if the run has none. */
export function trainingCurve(store: RunStore, chart: OverlayChart): Series | null {
  return combinedSeries(store, chart, "");
}

/** The held-out curve, with the value before training at step 0; null if the run has none. */
export function heldOutCurve(store: RunStore, chart: OverlayChart): { steps: number[]; values: number[] } | null {
  const series = combinedSeries(store, chart, "held_out/");
  const start = valueBeforeTraining(store.state?.baseline ?? {}, chart);
  if (!series && start === undefined) return null;
  return {
    steps: [...(start === undefined ? [] : [0]), ...(series?.steps ?? [])],
    values: [...(start === undefined ? [] : [start]), ...(series?.mean ?? [])],
  };
}

function combinedSeries(store: RunStore, chart: OverlayChart, prefix: string): Series | null {
  const minuend = store.history.series.get(prefix + chart.series);
  if (!minuend || !chart.minus) return minuend ?? null;
  const subtrahend = store.history.series.get(prefix + chart.minus);
  return subtrahend ? difference(minuend, subtrahend) : null;
}

function valueBeforeTraining(baseline: Record<string, number>, chart: OverlayChart): number | undefined {
  const minuend = baseline[chart.series];
  if (!chart.minus || minuend === undefined) return minuend;
  const subtrahend = baseline[chart.minus];
  return subtrahend === undefined ? undefined : minuend - subtrahend;
}

/** The difference of the means of two series; null unless both have the same buckets. */
export function difference(minuend: Series, subtrahend: Series): Series | null {
  const { points, width, length } = subtrahend;
  if (minuend.points !== points || minuend.width !== width || minuend.length !== length) return null;
  const result = new Series(minuend.capacity);
  result.width = width;
  result.points = points;
  result.steps = minuend.steps;
  result.mean = minuend.mean.map((value, i) => value - (subtrahend.mean[i] as number));
  result.low = result.mean;
  result.high = result.mean;
  return result;
}
