/** Which curves of several runs belong into one chart, and what they are: pure, without a page. */

import { Series } from "../history";
import type { Chart } from "../protocol";
import type { Store } from "../store";

/** One chart of all runs; with `minus`, the difference of two series. */
export interface OverlayChart {
  name: string;
  title: string;
  unit: string;
  bounds: number[] | null;
  series: string;
  minus: string;
}

export interface OverlayRun {
  label: string;
  store: Store;
}

const CHOSEN = "logps/chosen";
const REJECTED = "logps/rejected";

/**
 * A chart for every curve of the runs' own charts, in their order.
 *
 * Losses have scales of their own, so that they stand last. So have the margins that losses report (times beta, or per
 * token): the plain margin, chosen minus rejected in nats, takes their place where it is known.
 */
export function overlayCharts(all: readonly (readonly Chart[])[]): OverlayChart[] {
  const found = new Map<string, OverlayChart>();
  for (const chart of all.flat()) {
    if (chart.kind !== "lines") continue;
    const own = chart.lines.filter((line) => line.role !== "held_out");
    for (const { series } of own) {
      if (found.has(series)) continue;
      const title = own.length > 1 ? series : chart.title;
      found.set(series, { name: series, title, unit: chart.unit, bounds: chart.bounds, series, minus: "" });
    }
  }
  const margin = found.get("mean_margin");
  if (margin && found.has(CHOSEN) && found.has(REJECTED)) {
    Object.assign(margin, { unit: "unscaled, nats", series: CHOSEN, minus: REJECTED });
  }
  const loss = found.get("loss");
  if (loss) {
    loss.unit = "each in its own unit";
    found.delete("loss");
    found.set("loss", loss);
  }
  return [...found.values()];
}

/** A chart each for metrics that are in none. */
export function strayCharts(
  runs: readonly OverlayRun[],
  charts: readonly OverlayChart[],
  most: number,
): OverlayChart[] {
  const shown = new Set(charts.flatMap((chart) => [chart.name, chart.series, chart.minus]));
  const names = new Set<string>();
  for (const { store } of runs) {
    for (const column of store.history.series.keys()) {
      const name = column.replace(/^held_out\//, "");
      if (!shown.has(name)) names.add(name);
    }
  }
  const stray = [...names].sort().slice(0, most);
  return stray.map((name) => ({ name, title: name, unit: "", bounds: null, series: name, minus: "" }));
}

/** The training curve of a run in a chart. */
export function trainingOf(store: Store, chart: OverlayChart): Series | null {
  return combined(store, chart, "");
}

/** The held-out curve, with the value before training at step 0. */
export function heldOutOf(store: Store, chart: OverlayChart): { steps: number[]; values: number[] } | null {
  const series = combined(store, chart, "held_out/");
  const start = startOf(store.state?.baseline ?? {}, chart);
  if (!series && start === undefined) return null;
  return {
    steps: [...(start === undefined ? [] : [0]), ...(series?.steps ?? [])],
    values: [...(start === undefined ? [] : [start]), ...(series?.mean ?? [])],
  };
}

function combined(store: Store, chart: OverlayChart, prefix: string): Series | null {
  const one = store.history.series.get(prefix + chart.series);
  if (!one || !chart.minus) return one ?? null;
  const other = store.history.series.get(prefix + chart.minus);
  return other ? difference(one, other) : null;
}

function startOf(baseline: Record<string, number>, chart: OverlayChart): number | undefined {
  const one = baseline[chart.series];
  if (!chart.minus || one === undefined) return one;
  const other = baseline[chart.minus];
  return other === undefined ? undefined : one - other;
}

/** The difference of the means of two series that hold the same steps; null where they do not. */
export function difference(one: Series, other: Series): Series | null {
  if (one.points !== other.points || one.width !== other.width || one.length !== other.length) return null;
  const made = new Series(one.capacity);
  made.width = one.width;
  made.points = one.points;
  made.steps = one.steps;
  made.mean = one.mean.map((value, i) => value - (other.mean[i] as number));
  made.low = made.mean;
  made.high = made.mean;
  return made;
}
