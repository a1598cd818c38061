/** Curves in a fixed amount of memory. `mint_lab/ui/history.py` computes the same and explains the rule. */

import type { SeriesData } from "./messages";

/** Buckets of a series. */
export const CAPACITY = 512;
/** Series of a run. */
export const MAX_SERIES = 48;

export class Series {
  /** Points in a full bucket. */
  width = 1;
  /** Points before decimation. */
  points = 0;
  /** Last step of each bucket. */
  steps: number[] = [];
  low: number[] = [];
  high: number[] = [];
  mean: number[] = [];

  constructor(readonly capacity = CAPACITY) {}

  get length(): number {
    return this.steps.length;
  }

  /** Append one point. A value that is not finite in float32 is left out. */
  add(step: number, value: number): void {
    const rounded = Math.fround(value);
    if (!Number.isFinite(rounded)) return;
    if (this.points % this.width === 0 && this.length === this.capacity) this.halve();
    const inBucket = this.points % this.width;
    if (inBucket !== 0) {
      const last = this.length - 1;
      this.steps[last] = step;
      this.low[last] = Math.min(at(this.low, last), rounded);
      this.high[last] = Math.max(at(this.high, last), rounded);
      this.mean[last] = at(this.mean, last) + (rounded - at(this.mean, last)) / (inBucket + 1);
    } else {
      this.steps.push(step);
      this.low.push(rounded);
      this.high.push(rounded);
      this.mean.push(rounded);
    }
    this.points += 1;
  }

  /** Merge each two neighbouring buckets. */
  private halve(): void {
    const pairs = Array.from({ length: this.length / 2 }, (_, i) => 2 * i);
    this.steps = pairs.map((i) => at(this.steps, i + 1));
    this.low = pairs.map((i) => Math.min(at(this.low, i), at(this.low, i + 1)));
    this.high = pairs.map((i) => Math.max(at(this.high, i), at(this.high, i + 1)));
    this.mean = pairs.map((i) => (at(this.mean, i) + at(this.mean, i + 1)) / 2);
    this.width *= 2;
  }

  /** Create a series from a snapshot; points may be added later. */
  static fromData(data: SeriesData, capacity = CAPACITY): Series {
    const series = new Series(capacity);
    series.width = data.width;
    series.points = data.points;
    series.steps = float64s(data.steps);
    const values = float32s(data.values);
    const n = series.steps.length;
    const row = (k: number) => values.slice(k * n, (k + 1) * n);
    series.low = row(0);
    series.high = data.width === 1 ? row(0) : row(1);
    series.mean = data.width === 1 ? row(0) : row(2);
    return series;
  }
}

export class History {
  readonly series = new Map<string, Series>();

  constructor(readonly capacity = CAPACITY) {}

  add(step: number, name: string, value: number): void {
    let series = this.series.get(name);
    if (series === undefined) {
      if (this.series.size >= MAX_SERIES) return;
      series = new Series(this.capacity);
      this.series.set(name, series);
    }
    series.add(step, value);
  }

  /** Add `count` records from the two buffers of an update, without the first `skip`. */
  append(columns: readonly string[], count: number, skip: number, steps: DataView, values: DataView): void {
    const x = float64s(steps);
    const y = float32s(values);
    if (x.length !== count || y.length !== count * columns.length) {
      throw new RangeError(`${x.length} steps and ${y.length} values, expected ${count} and ${count * columns.length}`);
    }
    columns.forEach((name, row) => {
      for (let i = skip; i < count; i++) this.add(at(x, i), name, at(y, row * count + i));
    });
  }

  static fromData(all: readonly SeriesData[]): History {
    const history = new History();
    for (const data of all) history.series.set(data.name, Series.fromData(data, history.capacity));
    return history;
  }
}

/**
 * The value of a curve at a step: the mean of the bucket that contains it. A held-out curve has the last value measured
 * by then. There is no value before the first point or after the last.
 *
 * @param start The held-out value before the first step.
 */
export function valueAt(
  series: Series | undefined,
  step: number,
  heldOut: boolean,
  start: number | undefined,
): number | undefined {
  if (!series) return start;
  if (heldOut) {
    const after = series.steps.findIndex((last) => last > step);
    const i = (after < 0 ? series.length : after) - 1;
    return i < 0 ? start : series.mean[i];
  }
  const i = series.steps.findIndex((last) => last >= step);
  return i < 0 || step <= lastStepBefore(series) ? undefined : series.mean[i];
}

/** The last step before the first bucket, which has the width of the second. */
function lastStepBefore({ steps: [first, second], width }: Series): number {
  if (first === undefined) return 0;
  return first - (second === undefined ? width : second - first);
}

/** Read little-endian numbers from an unaligned buffer, which a typed array cannot. */
export function float64s(view: DataView): number[] {
  return Array.from({ length: Math.floor(view.byteLength / 8) }, (_, i) => view.getFloat64(8 * i, true));
}

/** Read little-endian numbers from an unaligned buffer, which a typed array cannot. */
export function float32s(view: DataView): number[] {
  return Array.from({ length: Math.floor(view.byteLength / 4) }, (_, i) => view.getFloat32(4 * i, true));
}

function at(values: readonly number[], i: number): number {
  return values[i] as number;
}
