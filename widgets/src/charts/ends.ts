/** Ticks of an axis whose ends are open: the outer bins of a histogram also hold what lies beyond them. */

import { type Range, roundUp } from "../scale";

/** Whether anything lies in the lowest and in the highest bin. */
export interface Open {
  below: boolean;
  above: boolean;
}

/** Ticks at both ends and at round values in between; the ends say so where they stand for all beyond. */
export function openTicks([low, high]: Range, { below, above }: Open): { tickvals: number[]; ticktext: string[] } {
  const step = roundUp((high - low) / 4);
  const between: number[] = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    const value = Number((i * step).toPrecision(12));
    // Beside an end there is no room for another label.
    if (value - low >= 0.6 * step && high - value >= 0.6 * step) between.push(value);
  }
  return {
    tickvals: [low, ...between, high],
    ticktext: [`${below ? "≤ " : ""}${written(low)}`, ...between.map(written), `${above ? "≥ " : ""}${written(high)}`],
  };
}

/** With the sign that plotly writes. */
function written(value: number): string {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}
