/** Histograms over time in a fixed amount of memory: the twin of `mint_lab/ui/heat.py`, where the rule is explained. */

import { float32s, float64s } from "./history";
import type { HeatData, Histogram } from "./protocol";

export const COLUMNS = 128;

export class Heat {
  width = 1;
  points = 0;
  steps: number[] = [];
  columns: number[][] = [];

  constructor(
    readonly start: number,
    readonly bin: number,
    readonly bins: number,
    readonly source: string,
    readonly capacity = COLUMNS,
  ) {}

  /** Appends one histogram; an empty one says nothing and is left out. */
  add(step: number, counts: readonly number[]): void {
    const total = counts.reduce((sum, count) => sum + count, 0);
    if (total === 0) return;
    if (this.points % this.width === 0 && this.steps.length === this.capacity) this.halve();
    const inside = this.points % this.width;
    const shares = counts.map((count) => count / total);
    if (inside) {
      const last = this.columns.at(-1) as number[];
      this.columns[this.columns.length - 1] = last.map((old, i) => old + ((shares[i] as number) - old) / (inside + 1));
      this.steps[this.steps.length - 1] = step;
    } else {
      this.columns.push(shares);
      this.steps.push(step);
    }
    this.points += 1;
  }

  private halve(): void {
    const pairs = Array.from({ length: this.steps.length / 2 }, (_, i) => 2 * i);
    this.steps = pairs.map((i) => this.steps[i + 1] as number);
    this.columns = pairs.map((i) => {
      const next = this.columns[i + 1] as number[];
      return (this.columns[i] as number[]).map((share, k) => (share + (next[k] as number)) / 2);
    });
    this.width *= 2;
  }

  static fromData(data: HeatData, capacity = COLUMNS): Heat {
    const heat = new Heat(data.start, data.bin, data.bins, data.source, capacity);
    heat.width = data.width;
    heat.points = data.points;
    heat.steps = float64s(data.steps);
    const values = float32s(data.values);
    heat.columns = heat.steps.map((_, i) => values.slice(i * data.bins, (i + 1) * data.bins));
    return heat;
  }
}

export class HeatHistory {
  readonly heats = new Map<string, Heat>();

  add(histogram: Histogram): void {
    let heat = this.heats.get(histogram.name);
    if (heat && heat.source !== histogram.source) {
      if (heat.source === "held-out") return;
      heat = undefined;
    }
    if (!heat) {
      heat = new Heat(histogram.start, histogram.width, histogram.counts.length, histogram.source);
      this.heats.set(histogram.name, heat);
    }
    heat.add(histogram.step, histogram.counts);
  }

  static fromData(all: readonly HeatData[]): HeatHistory {
    const history = new HeatHistory();
    for (const data of all) history.heats.set(data.name, Heat.fromData(data));
    return history;
  }
}
