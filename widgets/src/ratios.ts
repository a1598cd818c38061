/** Ratios of trainer to sampler in bins, cut where the loss clips them: the twin of `mint_lab/ui/ratios.py`. */

import type { Bound, Clip, Histogram } from "./protocol";

/** Lowest and highest ratio that gets through. */
export interface Limits {
  low: number;
  high: number;
}

/** A bin, or the part of one on either side of a limit; `from` and `to` are log-ratios, `share` is of the whole bin. */
export interface Piece {
  from: number;
  to: number;
  /** Percent of all tokens, in the bin and in this part of it. */
  share: number;
  part: number;
  clipped: boolean;
  /** The bin's ratios in words. */
  label: string;
}

/** The limits under these settings; null where the loss has none, or one of its settings is not known. */
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

/** Tokens in a histogram. */
export function tokensIn(histogram: Histogram | undefined): number {
  return histogram ? histogram.counts.reduce((sum, count) => sum + count, 0) : 0;
}

/**
 * The bins of a histogram, those that a limit cuts in two parts.
 *
 * Within a bin tokens count as spread evenly. The outer bins also hold what lies beyond them: a limit beyond the axis
 * clips nothing that can be seen.
 */
export function pieces(
  histogram: Histogram | undefined,
  total: number,
  limits: { below: number | null; above: number | null },
): Piece[] {
  if (!histogram || total <= 0) return [];
  const { start, width, counts } = histogram;
  const end = start + width * counts.length;
  const low = logOf(limits.below, Number.NEGATIVE_INFINITY);
  const high = logOf(limits.above, Number.POSITIVE_INFINITY);
  const everything = low >= end || high <= start;
  return counts.flatMap((count, i) => {
    const from = start + i * width;
    const to = from + width;
    const cuts = [low, high].filter((at) => at > start && at < end && at > from + 1e-9 && at < to - 1e-9);
    const edges = [from, ...cuts.sort((a, b) => a - b), to];
    const share = (100 * count) / total;
    const label = binLabel(i, counts.length, from, to);
    return edges.slice(1).map((upper, k) => {
      const lower = edges[k] as number;
      const middle = (lower + upper) / 2;
      const clipped = everything || (low > start && middle < low) || (high < end && middle > high);
      return { from: lower, to: upper, share, part: (share * (upper - lower)) / width, clipped, label };
    });
  });
}

/** Percent of all tokens in the parts that are clipped. */
export function clippedShare(all: readonly Piece[]): number {
  return all.reduce((sum, piece) => sum + (piece.clipped ? piece.part : 0), 0);
}

function logOf(ratio: number | null, without: number): number {
  if (ratio === null) return without;
  return ratio > 0 ? Math.log(ratio) : Number.NEGATIVE_INFINITY;
}

function binLabel(i: number, bins: number, from: number, to: number): string {
  const [low, high] = [Math.exp(from).toFixed(2), Math.exp(to).toFixed(2)];
  if (i === 0) return `r below ${high}`;
  return i === bins - 1 ? `r above ${low}` : `r ${low} to ${high}`;
}

/** How high a bar of `share` percent stands: its root, so that a tail of one percent can be seen beside a peak. */
export function rootHeight(share: number): number {
  return Math.sqrt(Math.max(0, share));
}

/** Shares in percent at which the root axis has a line, up to `top`: those that do not crowd. */
export function rootTicks(top: number): number[] {
  const shown: number[] = [];
  for (const share of [100, 50, 20, 5, 1]) {
    const last = shown.at(-1);
    const room = (last === undefined ? Number.POSITIVE_INFINITY : rootHeight(last)) - rootHeight(share);
    if (share <= top * (1 + 1e-9) && Math.min(room, rootHeight(share)) >= 0.22 * rootHeight(top)) shown.push(share);
  }
  return shown.reverse();
}
