/** A histogram over time: one column per step, darker for more values. */

import type { Heat } from "../heat";
import type { Theme } from "../lib/theme";
import { rootHeight } from "../ratios";

/** A heat map trace. Colours follow the square root of the share, so that a thin tail is visible. */
export function heatTrace(heat: Heat, colour: string, theme: Theme, yAxis = "y"): Record<string, unknown> {
  const rows = Array.from({ length: heat.bins }, (_, bin) =>
    heat.columns.map((column) => rootHeight(100 * (column[bin] as number))),
  );
  return {
    type: "heatmap",
    x: stepEdges(heat.steps),
    y: Array.from({ length: heat.bins + 1 }, (_, bin) => heat.start + bin * heat.bin),
    z: rows,
    yaxis: yAxis,
    zmin: 0,
    zmax: Math.max(1, ...rows.flat()),
    colorscale: [
      [0, theme.surface],
      [1, colour],
    ],
    showscale: false,
    hoverinfo: "skip",
  };
}

/** Edges of the columns: each ends at its last step, and the first has the width of the second. */
export function stepEdges(steps: readonly number[]): number[] {
  const [first, second] = steps;
  if (first === undefined) return [];
  return [Math.max(0, first - (second === undefined ? 1 : second - first)), ...steps];
}

/** The column that contains `step`, or the nearest one. */
export function columnAt(heat: Heat, step: number): { step: number; shares: number[] } | undefined {
  let i = heat.steps.findIndex((last) => last >= step);
  if (i < 0) i = heat.steps.length - 1;
  const shares = heat.columns[i];
  return shares && { step: heat.steps[i] as number, shares };
}

/** Percent of a column between two values. A bin that contains an end counts by its part inside. */
export function shareBetween(heat: Heat, shares: readonly number[], low: number, high: number): number {
  return shares.reduce((sum, share, bin) => {
    const from = heat.start + bin * heat.bin;
    const to = from + heat.bin;
    // The outer bins also count all values beyond them.
    const reachesLow = bin === 0 && low < from;
    const reachesHigh = bin === heat.bins - 1 && high > to;
    if (reachesLow) return sum + 100 * share * overlap(from, to, from, high);
    if (reachesHigh) return sum + 100 * share * overlap(from, to, low, to);
    return sum + 100 * share * overlap(from, to, low, high);
  }, 0);
}

/** The share of a bin that lies between two values. */
function overlap(from: number, to: number, low: number, high: number): number {
  return Math.max(0, Math.min(to, high) - Math.max(from, low)) / (to - from);
}
