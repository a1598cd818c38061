/** A histogram over time: a column a step, the darker the more values. */

import type { Heat } from "../heat";
import { rootHeight } from "../ratios";
import type { Theme } from "../theme";

/** A heat map trace on its own vertical axis; shares are drawn by their root, so that a thin tail can be seen. */
export function heatTrace(heat: Heat, colour: string, theme: Theme, axis = "y"): Record<string, unknown> {
  const rows = Array.from({ length: heat.bins }, (_, bin) =>
    heat.columns.map((column) => rootHeight(100 * (column[bin] as number))),
  );
  return {
    type: "heatmap",
    x: stepEdges(heat.steps),
    y: Array.from({ length: heat.bins + 1 }, (_, bin) => heat.start + bin * heat.bin),
    z: rows,
    yaxis: axis,
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

/** Where columns begin and end: each ends at its last step, the first is as wide as the second. */
export function stepEdges(steps: readonly number[]): number[] {
  const [first, second] = steps;
  if (first === undefined) return [];
  return [Math.max(0, first - (second === undefined ? 1 : second - first)), ...steps];
}

/** The column that holds `step`; the first or last where it lies beyond. */
export function columnAt(heat: Heat, step: number): { step: number; shares: number[] } | undefined {
  let i = heat.steps.findIndex((last) => last >= step);
  if (i < 0) i = heat.steps.length - 1;
  const shares = heat.columns[i];
  return shares && { step: heat.steps[i] as number, shares };
}

/** Percent of a column between two values; a bin that is cut counts by the part inside. */
export function shareBetween(heat: Heat, shares: readonly number[], low: number, high: number): number {
  return shares.reduce((sum, share, bin) => {
    const from = heat.start + bin * heat.bin;
    // The outer bins also hold what lies beyond them.
    const [open, close] = [bin === 0, bin === heat.bins - 1];
    if (open && low < from) return sum + 100 * share * part(from, from + heat.bin, from, high);
    if (close && high > from + heat.bin) return sum + 100 * share * part(from, from + heat.bin, low, from + heat.bin);
    return sum + 100 * share * part(from, from + heat.bin, low, high);
  }, 0);
}

function part(from: number, to: number, low: number, high: number): number {
  return Math.max(0, Math.min(to, high) - Math.max(from, low)) / (to - from);
}
