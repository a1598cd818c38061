/**
 * Axis ranges and ticks. A range changes rarely and in round steps.
 *
 * Ranges are functions of the data alone, so that a page that was just loaded shows the same axes as one that followed
 * the run. The extent of a curve only grows, and so does its range from the second value on.
 */

export type Range = readonly [number, number];

/** The two numbers of a message as a range; `ifNone` if they are missing. */
export function pair(numbers: readonly number[] | null, ifNone: Range): Range {
  const [low, high] = numbers ?? [];
  return low === undefined || high === undefined ? ifNone : [low, high];
}

/** A round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const scaled = value / power;
  const step = [1, 2, 2.5, 5, 10].find((candidate) => scaled <= candidate * (1 + 1e-9)) ?? 10;
  return step * power;
}

/**
 * A range with round ends around `lowest..highest`, with a small margin.
 *
 * It spans at least a thousandth of the values and at least a millionth: smaller variation is rounding error. The range
 * around a single value reaches from half of it to one and a half of it. If all values are 0, the range is 0 to 1.
 */
export function roundRange(lowest: number, highest: number): Range {
  const half = lowest === highest ? 0.5 * Math.abs(lowest) : 0;
  const [low, high] = [lowest - half, highest + half];
  if (!Number.isFinite(low) || !Number.isFinite(high) || (low === 0 && high === 0)) return [0, 1];
  const span = Math.max(high - low, 1e-3 * Math.max(Math.abs(low), Math.abs(high)), 1e-6);
  const tickDistance = roundUp(span / 4);
  const bottom = Math.floor((low - 0.04 * span) / tickDistance) * tickDistance;
  const top = Math.ceil((high + 0.04 * span) / tickDistance) * tickDistance;
  // The axis of a nonnegative curve has no room below zero.
  return [low >= 0 ? Math.max(bottom, 0) : bottom, top];
}

/**
 * The step axis. It shows all of a short run. For a long run it starts with a part that doubles as needed, so that the
 * first steps are wide enough to see.
 */
export function stepRange(done: number, total: number): Range {
  if (total <= 0) return [0, Math.max(50, roundUp(done))];
  let shown = total;
  while (shown / 2 >= 400 && done <= shown / 2) shown /= 2;
  return [0, Math.max(shown, done)];
}

/** Lowest and highest value of several curves between two steps. */
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

/** The ends of a logarithmic axis around positive values, as powers of ten. */
export function logRange(low: number, high: number): Range {
  const [from, to] = [Math.log10(low), Math.log10(high)];
  const margin = 0.05 * Math.max(to - from, 0.2);
  return [from - margin, to + margin];
}

/** A fixed axis, widened at both ends by room for the line itself. */
export function padded([low, high]: readonly number[]): Range {
  const span = (high as number) - (low as number);
  return [(low as number) - 0.02 * span, (high as number) + 0.02 * span];
}

/** Range and ticks of a fixed axis, with a tick at every quarter. */
export function fixedAxis(bounds: readonly number[]): { range: Range; tickvals: number[] } {
  const [low, high] = pair(bounds, [0, 1]);
  return { range: padded(bounds), tickvals: [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low)) };
}

/** Whether the lowest and the highest bin of a histogram have counts. */
export interface OuterBins {
  below: boolean;
  above: boolean;
}

/**
 * Ticks at both ends of a histogram's axis and at round values in between. The outer bins also count all values beyond
 * them, so the label of an end gets a "≤" or "≥" if its bin has counts.
 */
export function openTicks([low, high]: Range, { below, above }: OuterBins): { tickvals: number[]; ticktext: string[] } {
  const step = roundUp((high - low) / 4);
  const between: number[] = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    const value = Number((i * step).toPrecision(12));
    // Leave out a label that would touch the label of an end.
    if (value - low >= 0.6 * step && high - value >= 0.6 * step) between.push(value);
  }
  return {
    tickvals: [low, ...between, high],
    ticktext: [
      `${below ? "≤ " : ""}${tickText(low)}`,
      ...between.map(tickText),
      `${above ? "≥ " : ""}${tickText(high)}`,
    ],
  };
}

/** With the minus sign that plotly uses. */
function tickText(value: number): string {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

/** Position of a slider, 0 to 1, to the value of a setting and back. */
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
