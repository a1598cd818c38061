/**
 * Bins of the ratio of trainer to sampler, split where the loss clips. `mint_lab/charts/ratio_bins.py` computes the same
 * for the static picture.
 */

import type { Bound, Clip, Histogram } from "./messages";

/** Lowest and highest ratio that the loss does not clip. */
export interface Limits {
  low: number;
  high: number;
}

/** A bin, or the part of a bin on one side of a limit. */
export interface BinPart {
  /** Ends of the part, as log-ratios. */
  from: number;
  to: number;
  /** Percent of all tokens in the whole bin. */
  binShare: number;
  /** Percent of all tokens in this part. */
  share: number;
  clipped: boolean;
  /** The bin's ratios in words. */
  label: string;
}

/** The limits with these settings; null if the loss does not clip, or a setting is unknown. */
export function limitsOf(clip: Clip | null, setting: (name: string) => number | undefined): Limits | null {
  if (!clip) return null;
  const low = boundOf(clip.low, setting);
  const high = boundOf(clip.high, setting);
  return low === null || high === null ? null : { low, high };
}

function boundOf(bound: Bound, setting: (name: string) => number | undefined): number | null {
  const value = setting(bound.setting);
  return value === undefined || !Number.isFinite(value) ? null : bound.base + bound.slope * value;
}

/** Number of tokens in a histogram. */
export function tokensIn(histogram: Histogram | undefined): number {
  return histogram ? histogram.counts.reduce((sum, count) => sum + count, 0) : 0;
}

/**
 * The bins of a histogram; a bin that contains a limit is split in two parts.
 *
 * Tokens count as evenly distributed within a bin. The outer bins also count all tokens beyond them, so a limit beyond
 * the axis clips nothing visible.
 */
export function splitBins(
  histogram: Histogram | undefined,
  total: number,
  limits: { below: number | null; above: number | null },
): BinPart[] {
  if (!histogram || total <= 0) return [];
  const { start, width, counts } = histogram;
  const end = start + width * counts.length;
  const low = logOf(limits.below, Number.NEGATIVE_INFINITY);
  const high = logOf(limits.above, Number.POSITIVE_INFINITY);
  const allClipped = low >= end || high <= start;
  return counts.flatMap((count, i) => {
    const from = start + i * width;
    const to = from + width;
    const inside = [low, high].filter((at) => at > start && at < end && at > from + 1e-9 && at < to - 1e-9);
    const edges = [from, ...inside.sort((a, b) => a - b), to];
    const binShare = (100 * count) / total;
    const label = binLabel(i, counts.length, from, to);
    return edges.slice(1).map((upper, k) => {
      const lower = edges[k] as number;
      const middle = (lower + upper) / 2;
      const clipped = allClipped || (low > start && middle < low) || (high < end && middle > high);
      return { from: lower, to: upper, binShare, share: (binShare * (upper - lower)) / width, clipped, label };
    });
  });
}

/** Percent of all tokens in the clipped parts. */
export function clippedShare(parts: readonly BinPart[]): number {
  return parts.reduce((sum, part) => sum + (part.clipped ? part.share : 0), 0);
}

function logOf(ratio: number | null, ifNull: number): number {
  if (ratio === null) return ifNull;
  return ratio > 0 ? Math.log(ratio) : Number.NEGATIVE_INFINITY;
}

function binLabel(i: number, bins: number, from: number, to: number): string {
  const [low, high] = [Math.exp(from).toFixed(2), Math.exp(to).toFixed(2)];
  if (i === 0) return `r below ${high}`;
  return i === bins - 1 ? `r above ${low}` : `r ${low} to ${high}`;
}

/** Height of a bar of `share` percent: its square root, so that a tail of one percent is visible beside a peak. */
export function rootHeight(share: number): number {
  return Math.sqrt(Math.max(0, share));
}

/** Ticks of the square-root axis up to `top`, in percent, far enough apart. */
export function rootTicks(top: number): number[] {
  const ticks: number[] = [];
  for (const share of [100, 50, 20, 5, 1]) {
    const last = ticks.at(-1);
    const distance = (last === undefined ? Number.POSITIVE_INFINITY : rootHeight(last)) - rootHeight(share);
    if (share <= top * (1 + 1e-9) && Math.min(distance, rootHeight(share)) >= 0.22 * rootHeight(top)) ticks.push(share);
  }
  return ticks.reverse();
}
