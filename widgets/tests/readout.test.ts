import { describe, expect, it } from "vitest";
import { Series } from "../src/history";
import { valueAt } from "../src/readout";

function seriesOf(points: [number, number][], capacity = 8): Series {
  const series = new Series(capacity);
  for (const [step, value] of points) series.add(step, value);
  return series;
}

describe("valueAt", () => {
  it("is the point itself while every point is held", () => {
    const series = seriesOf([
      [1, 10],
      [2, 20],
      [3, 30],
    ]);
    expect([1, 2, 3].map((step) => valueAt(series, step, false, undefined))).toEqual([10, 20, 30]);
    expect(valueAt(series, 0, false, undefined)).toBeUndefined();
    expect(valueAt(series, 4, false, undefined)).toBeUndefined();
  });

  it("is the mean of the bucket that holds the step", () => {
    const series = seriesOf(
      [1, 2, 3, 4, 5, 6].map((step) => [step, 10 * step]),
      4,
    );
    expect([series.width, series.steps]).toEqual([2, [2, 4, 6]]);
    expect([0, 1, 2, 3, 4, 5, 6].map((step) => valueAt(series, step, false, undefined))).toEqual([
      undefined,
      ...[15, 15, 35, 35, 55, 55],
    ]);
  });

  it("is none before a metric that came later", () => {
    const series = seriesOf([
      [50, 1],
      [51, 2],
    ]);
    expect([49, 50].map((step) => valueAt(series, step, false, undefined))).toEqual([undefined, 1]);
    expect([48, 50].map((step) => valueAt(seriesOf([[50, 1]]), step, false, undefined))).toEqual([undefined, 1]);
  });

  it("of held-out data is the last one measured by then, and the baseline before", () => {
    const series = seriesOf([
      [10, 0.5],
      [20, 0.75],
    ]);
    const at = (step: number) => valueAt(series, step, true, 0.1);
    expect([0, 9, 10, 19, 20, 1000].map(at)).toEqual([0.1, 0.1, 0.5, 0.5, 0.75, 0.75]);
    expect(valueAt(undefined, 5, true, 0.1)).toBe(0.1);
    expect(valueAt(undefined, 5, true, undefined)).toBeUndefined();
  });
});
