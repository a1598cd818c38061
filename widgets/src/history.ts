/** Curves held in a fixed amount of memory: the twin of `mint_lab/ui/history.py`, where the rule is explained. */

import type { SeriesData } from "./protocol";

export const CAPACITY = 512;
export const COLUMNS = 48;

export class Series {
  width = 1;
  points = 0;
  steps: number[] = [];
  low: number[] = [];
  high: number[] = [];
  mean: number[] = [];

  constructor(readonly capacity = CAPACITY) {}

  get length(): number {
    return this.steps.length;
  }

  /** Appends one point; values that are not finite in float32 are left out. */
  add(step: number, value: number): void {
    const rounded = Math.fround(value);
    if (!Number.isFinite(rounded)) return;
    const inside = this.points % this.width;
    if (inside === 0 && this.length === this.capacity) this.halve();
    const last = this.length - 1;
    if (this.points % this.width !== 0) {
      this.steps[last] = step;
      this.low[last] = Math.min(at(this.low, last), rounded);
      this.high[last] = Math.max(at(this.high, last), rounded);
      this.mean[last] = at(this.mean, last) + (rounded - at(this.mean, last)) / (inside + 1);
    } else {
      this.steps.push(step);
      this.low.push(rounded);
      this.high.push(rounded);
      this.mean.push(rounded);
    }
    this.points += 1;
  }

  private halve(): void {
    const pairs = Array.from({ length: this.length / 2 }, (_, i) => 2 * i);
    this.steps = pairs.map((i) => at(this.steps, i + 1));
    this.low = pairs.map((i) => Math.min(at(this.low, i), at(this.low, i + 1)));
    this.high = pairs.map((i) => Math.max(at(this.high, i), at(this.high, i + 1)));
    this.mean = pairs.map((i) => (at(this.mean, i) + at(this.mean, i + 1)) / 2);
    this.width *= 2;
  }

  /** A series as it came in a snapshot; later points may be added to it. */
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
      if (this.series.size >= COLUMNS) return;
      series = new Series(this.capacity);
      this.series.set(name, series);
    }
    series.add(step, value);
  }

  /** Adds `count` records from the two buffers of an update, leaving out the first `skip`. */
  append(columns: readonly string[], count: number, skip: number, steps: DataView, values: DataView): void {
    const x = float64s(steps);
    const y = float32s(values);
    if (x.length !== count || y.length !== count * columns.length) throw new RangeError("buffers of another size");
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

/** Little-endian whatever the machine, and free of alignment: hence no typed array over the buffer. */
export function float64s(view: DataView): number[] {
  return Array.from({ length: Math.floor(view.byteLength / 8) }, (_, i) => view.getFloat64(8 * i, true));
}

export function float32s(view: DataView): number[] {
  return Array.from({ length: Math.floor(view.byteLength / 4) }, (_, i) => view.getFloat32(4 * i, true));
}

function at(values: readonly number[], i: number): number {
  return values[i] as number;
}
