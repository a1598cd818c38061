/**
 * Axis ranges that hold still: a range changes rarely, in round steps, and never by a hair.
 *
 * They are functions of the data alone, so that a page that has just loaded shows the same axes as one that has watched;
 * and as the extent of a curve only grows, so does its range, from the second value on.
 */

export type Range = readonly [number, number];

/** A round number at or above `value` (1, 2, 2.5 or 5 times a power of ten). */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const scaled = value / power;
  const step = [1, 2, 2.5, 5, 10].find((candidate) => scaled <= candidate * (1 + 1e-9)) ?? 10;
  return step * power;
}

/**
 * A range of round ends around `low..high`, with a little air. It spans a thousandth of the values and a millionth at
 * least: what varies by less is rounding, and no news. A single value has no span of its own, and stands between its
 * half and one and a half of it; what is zero throughout has no size either, and stands below a 1.
 */
export function roundRange(lowest: number, highest: number): Range {
  const half = lowest === highest ? 0.5 * Math.abs(lowest) : 0;
  const [low, high] = [lowest - half, highest + half];
  if (!Number.isFinite(low) || !Number.isFinite(high) || (low === 0 && high === 0)) return [0, 1];
  const span = Math.max(high - low, 1e-3 * Math.max(Math.abs(low), Math.abs(high)), 1e-6);
  const tick = roundUp(span / 4);
  const bottom = Math.floor((low - 0.04 * span) / tick) * tick;
  const top = Math.ceil((high + 0.04 * span) / tick) * tick;
  // What never goes below zero shows no room below zero.
  return [low >= 0 ? Math.max(bottom, 0) : bottom, top];
}

/**
 * The step axis. It shows the whole run where that is short; a long run starts with a part of it, doubling as needed, so
 * that the beginning is not a sliver.
 */
export function stepRange(done: number, total: number): Range {
  if (total <= 0) return [0, Math.max(50, roundUp(done))];
  let shown = total;
  while (shown / 2 >= 400 && done <= shown / 2) shown /= 2;
  return [0, Math.max(shown, done)];
}

/** Lowest and highest of several curves between two steps. */
export function extentWithin(
  curves: readonly { x: readonly number[]; y: readonly number[] }[],
  [from, to]: Range,
): Range {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const { x, y } of curves) {
    y.forEach((value, i) => {
      const step = x[i] as number;
      if (step < from || step > to) return;
      if (value < low) low = value;
      if (value > high) high = value;
    });
  }
  return [low, high];
}

/** The ends of a logarithmic axis, as powers of ten, around positive values. */
export function logRange(low: number, high: number): Range {
  const [from, to] = [Math.log10(low), Math.log10(high)];
  const air = 0.05 * Math.max(to - from, 0.2);
  return [from - air, to + air];
}

/** Slider position 0..1 to value and back. */
export interface SliderScale {
  toValue(position: number): number;
  toPosition(value: number): number;
}

export function sliderScale(low: number, high: number, scale: "linear" | "log"): SliderScale {
  const clamp = (position: number) => Math.min(1, Math.max(0, position));
  if (scale === "log") {
    const span = Math.log(high / low);
    return {
      toValue: (position) => Number((low * Math.exp(span * clamp(position))).toPrecision(3)),
      toPosition: (value) => (value > 0 ? clamp(Math.log(value / low) / span) : 0),
    };
  }
  return {
    toValue: (position) => Number((low + (high - low) * clamp(position)).toPrecision(3)),
    toPosition: (value) => clamp((value - low) / (high - low)),
  };
}

/** Room for the line itself at both ends of a fixed axis. */
export function padded([low, high]: readonly number[]): Range {
  const span = (high as number) - (low as number);
  return [(low as number) - 0.02 * span, (high as number) + 0.02 * span];
}
