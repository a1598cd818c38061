/** Histograms over time in a fixed amount of memory. `mint_lab/ui/heat.py` computes the same and explains the rule. */

import { float32s, float64s } from "./history";
import type { HeatData, Histogram } from "./messages";

/** Columns of a heat map. */
export const MAX_COLUMNS = 128;

export class Heat {
  /** Histograms in a full column. */
  width = 1;
  /** Histograms before decimation. */
  points = 0;
  /** Last step of each column. */
  steps: number[] = [];
  /** Shares by bin, the mean of the column's histograms. */
  columns: number[][] = [];

  constructor(
    readonly start: number,
    readonly bin: number,
    readonly bins: number,
    readonly source: string,
    readonly capacity = MAX_COLUMNS,
  ) {}

  /** Append one histogram. One without counts is left out. */
  add(step: number, counts: readonly number[]): void {
    const total = counts.reduce((sum, count) => sum + count, 0);
    if (total === 0) return;
    if (this.points % this.width === 0 && this.steps.length === this.capacity) this.halve();
    const inColumn = this.points % this.width;
    const shares = counts.map((count) => count / total);
    if (inColumn) {
      const last = this.columns.at(-1) as number[];
      this.columns[this.columns.length - 1] = last.map(
        (old, i) => old + ((shares[i] as number) - old) / (inColumn + 1),
      );
      this.steps[this.steps.length - 1] = step;
    } else {
      this.columns.push(shares);
      this.steps.push(step);
    }
    this.points += 1;
  }

  /** Merge each two neighbouring columns. */
  private halve(): void {
    const pairs = Array.from({ length: this.steps.length / 2 }, (_, i) => 2 * i);
    this.steps = pairs.map((i) => this.steps[i + 1] as number);
    this.columns = pairs.map((i) => {
      const next = this.columns[i + 1] as number[];
      return (this.columns[i] as number[]).map((share, k) => (share + (next[k] as number)) / 2);
    });
    this.width *= 2;
  }

  static fromData(data: HeatData, capacity = MAX_COLUMNS): Heat {
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

  /** Add a histogram. The first one of held-out data replaces those of training batches for good. */
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
