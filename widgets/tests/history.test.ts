import { describe, expect, it } from "vitest";
import { float32s, float64s, History, Series, valueAt } from "../src/history";
import type { SeriesData } from "../src/messages";
import cases from "./history_twin.json";
import { bytesBuffer } from "./support";

describe("Series", () => {
  it("keeps the points until it is full", () => {
    const series = new Series(4);
    [3, 1, 2].forEach((value, i) => {
      series.add(i + 1, value);
    });
    expect([series.width, series.steps, series.mean]).toEqual([1, [1, 2, 3], [3, 1, 2]]);
  });

  it("merges neighbours when it is full and keeps the extremes", () => {
    const series = new Series(4);
    [1, 9, 2, 4, 6].forEach((value, i) => {
      series.add(i + 1, value);
    });
    expect(series.width).toBe(2);
    expect(series.steps).toEqual([2, 4, 5]);
    expect(series.low).toEqual([1, 2, 6]);
    expect(series.high).toEqual([9, 4, 6]);
    expect(series.mean).toEqual([5, 3, 6]);
    expect(series.points).toBe(5);
  });

  it("never exceeds its capacity, however long the run", () => {
    const series = new Series(8);
    for (let step = 1; step <= 10_000; step++) series.add(step, Math.sin(step));
    expect(series.length).toBeLessThanOrEqual(8);
    expect(series.points).toBe(10_000);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, 1e300])("leaves out %s", (value) => {
    const series = new Series(4);
    series.add(1, value);
    expect([series.length, series.points]).toEqual([0, 0]);
  });

  it.each(cases)("agrees with the kernel: $name", ({ capacity, points, data, series: expected }) => {
    const series = new Series(capacity);
    for (const [step, value] of points as [number, number][]) series.add(step, value);
    expect([series.width, series.points]).toEqual([expected.width, expected.points]);
    expect(series.steps).toEqual(expected.steps);
    for (const column of ["low", "high", "mean"] as const) {
      series[column].forEach((value, i) => {
        expect(value).toBeCloseTo(expected[column][i] as number, 9);
      });
    }
    const loaded = Series.fromData(
      { ...data, steps: bytesBuffer(data.steps), values: bytesBuffer(data.values) } as SeriesData,
      capacity,
    );
    expect(loaded.steps).toEqual(expected.steps);
    loaded.high.forEach((value, i) => {
      expect(value).toBe(Math.fround(expected.high[i] as number));
    });
    // A loaded series and one that followed the run continue in the same way.
    loaded.add(10_001, 0.5);
    series.add(10_001, 0.5);
    expect([loaded.width, loaded.steps, loaded.low]).toEqual([series.width, series.steps, series.low]);
  });
});

describe("buffers", () => {
  it("are little-endian and may be unaligned", () => {
    const bytes = new Uint8Array(1 + 16 + 4);
    const all = new DataView(bytes.buffer);
    all.setFloat64(1, 1.5, true);
    all.setFloat64(9, -2, true);
    all.setFloat32(17, 0.25, true);
    expect(float64s(new DataView(bytes.buffer, 1, 16))).toEqual([1.5, -2]);
    expect(float32s(new DataView(bytes.buffer, 17, 4))).toEqual([0.25]);
  });

  it("of an unexpected size are an error", () => {
    const history = new History();
    expect(() => history.append(["loss"], 2, 0, bytesBuffer([]), bytesBuffer([]))).toThrow(RangeError);
  });
});

function seriesOf(points: [number, number][], capacity = 8): Series {
  const series = new Series(capacity);
  for (const [step, value] of points) series.add(step, value);
  return series;
}

describe("valueAt", () => {
  it("is the point itself before any merge", () => {
    const series = seriesOf([
      [1, 10],
      [2, 20],
      [3, 30],
    ]);
    expect([1, 2, 3].map((step) => valueAt(series, step, false, undefined))).toEqual([10, 20, 30]);
    expect(valueAt(series, 0, false, undefined)).toBeUndefined();
    expect(valueAt(series, 4, false, undefined)).toBeUndefined();
  });

  it("is the mean of the bucket that contains the step", () => {
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

  it("is undefined before a metric that started later", () => {
    const series = seriesOf([
      [50, 1],
      [51, 2],
    ]);
    expect([49, 50].map((step) => valueAt(series, step, false, undefined))).toEqual([undefined, 1]);
    expect([48, 50].map((step) => valueAt(seriesOf([[50, 1]]), step, false, undefined))).toEqual([undefined, 1]);
  });

  it("of held-out data is the last value measured by then, and before that the baseline", () => {
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
