/** The thick line over a noisy curve: an exponential moving average with bias correction. */

import type { Series } from "../history";

/**
 * Smooth the means of the buckets of a series.
 *
 * Dividing by the sum of the weights so far keeps the first value from dominating the start.
 *
 * @param halfLife In steps, so that a decimated series is smoothed as much as a full one; 0 does not smooth.
 * @param restarts Steps at which the average restarts: a new loss may have another scale.
 */
export function smooth(series: Series, halfLife: number, restarts: readonly number[] = []): number[] {
  if (!(halfLife > 0)) return [...series.mean];
  const decay = 0.5 ** (series.width / halfLife);
  const restartIndices = restartBuckets(series, restarts);
  let sum = 0;
  let weight = 0;
  return series.mean.map((value, i) => {
    if (restartIndices.has(i)) sum = weight = 0;
    sum = decay * sum + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return sum / weight;
  });
}

/** The buckets at which smoothing restarts. A bucket with steps from both sides of a change is smoothed alone. */
function restartBuckets({ steps, width }: Series, restarts: readonly number[]): Set<number> {
  const indices = new Set<number>();
  for (const step of restarts) {
    const i = steps.findIndex((last) => last >= step);
    if (i < 0) continue;
    indices.add(i);
    if (width > 1 && (steps[i - 1] ?? 0) < step - 1) indices.add(i + 1);
  }
  return indices;
}

/** The thin line: the points themselves, or a zigzag between lowest and highest if buckets hold several points. */
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
