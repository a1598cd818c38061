/** The strong line over a noisy one: an exponential moving average, corrected for its start. */

import type { Series } from "./history";

/**
 * Smooths the means of a series' buckets.
 *
 * `halfLife` counts steps, so that a decimated series is smoothed as much as a full one. Dividing by the weight so far
 * keeps the first values from hanging on to the very first. It begins anew at each of the steps `anew`, as another loss
 * may have another scale: what was before says nothing about it.
 */
export function smooth(series: Series, halfLife: number, anew: readonly number[] = []): number[] {
  if (!(halfLife > 0)) return [...series.mean];
  const decay = 0.5 ** (series.width / halfLife);
  const begins = beginnings(series, anew);
  let sum = 0;
  let weight = 0;
  return series.mean.map((value, i) => {
    if (begins.has(i)) sum = weight = 0;
    sum = decay * sum + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return sum / weight;
  });
}

/** The buckets with which smoothing begins; one that holds steps from both sides of a change stands for itself. */
function beginnings({ steps, width }: Series, anew: readonly number[]): Set<number> {
  const found = new Set<number>();
  for (const step of anew) {
    const i = steps.findIndex((last) => last >= step);
    if (i < 0) continue;
    found.add(i);
    if (width > 1 && (steps[i - 1] ?? 0) < step - 1) found.add(i + 1);
  }
  return found;
}

/** What the thin line draws: the points themselves, or where buckets stand for many, their extent as a zigzag. */
export function rawPath(series: Series): { x: number[]; y: number[] } {
  if (series.width === 1) return { x: series.steps, y: series.mean };
  const x: number[] = [];
  const y: number[] = [];
  series.steps.forEach((step, i) => {
    x.push(step, step);
    const pair = [series.low[i] as number, series.high[i] as number];
    y.push(...(i % 2 ? pair : pair.reverse()));
  });
  return { x, y };
}
