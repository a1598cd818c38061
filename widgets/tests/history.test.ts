import { describe, expect, it } from "vitest";
import { CAPACITY, float32s, float64s, History, MAX_SERIES, Series, valueAt } from "../src/history";
import type { SeriesData } from "../src/messages";
import cases from "./history_twin.json";
import { bytesBuffer, float32Buffer, float64Buffer } from "./support";

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

describe("History", () => {
  it("adds the records of an update without the first ones, by column", () => {
    const history = new History();
    // Two columns of three records; nan where a record lacks the metric.
    const values = float32Buffer([1, 2, 3, 4, Number.NaN, 6]);
    history.append(["loss", "nll"], 3, 1, float64Buffer([7, 8, 9]), values);
    const [loss, nll] = [history.series.get("loss"), history.series.get("nll")];
    expect([loss?.steps, loss?.mean, nll?.steps, nll?.mean]).toEqual([[8, 9], [2, 3], [9], [6]]);
  });

  it("says what sizes it expected", () => {
    const append = (steps: number[], values: number[]) =>
      new History().append(["a", "b"], 2, 0, float64Buffer(steps), float32Buffer(values));
    expect(() => append([1], [1, 2, 3, 4])).toThrow("1 steps and 4 values, expected 2 and 4");
    expect(() => append([1, 2], [1, 2, 3])).toThrow("2 steps and 3 values, expected 2 and 4");
  });

  it("has at most 48 series of 512 points, and keeps adding to those it has", () => {
    const history = new History();
    for (let i = 0; i < 60; i++) history.add(1, `metric ${i}`, i);
    history.add(2, "metric 47", 5);
    history.add(2, "metric 48", 5);
    expect([MAX_SERIES, CAPACITY, history.series.size, history.capacity]).toEqual([48, 512, 48, 512]);
    expect([history.series.get("metric 47")?.mean, history.series.has("metric 48")]).toEqual([[47, 5], false]);
    expect(new History(8).capacity).toBe(8);
  });

  it("reads the curves of a snapshot, full ones and decimated ones", () => {
    const data = [
      { name: "a", width: 1, points: 2, steps: float64Buffer([1, 2]), values: float32Buffer([5, 6]) },
      { name: "b", width: 2, points: 4, steps: float64Buffer([2, 4]), values: float32Buffer([1, 2, 8, 9, 4, 5]) },
    ];
    const { series } = History.fromData(data);
    expect(series.get("a")).toMatchObject({ width: 1, points: 2, low: [5, 6], high: [5, 6], mean: [5, 6] });
    expect(series.get("b")).toMatchObject({ width: 2, points: 4, low: [1, 2], high: [8, 9], mean: [4, 5] });
  });
});

describe("Series in detail", () => {
  it("rounds to float32, in which a value can overflow", () => {
    const series = new Series(4);
    series.add(1, 0.1);
    expect(series.mean).toEqual([Math.fround(0.1)]);
    series.add(2, 3.4e38);
    series.add(3, 3.5e38);
    expect(series.points).toBe(2);
  });

  it("has the mean, extremes and last step of a bucket that is not full", () => {
    const series = seriesOf(
      [5, 1, 3, 7, 2, 8, 4].map((value, i) => [i + 1, value]),
      2,
    );
    // Buckets of four: 5 1 3 7 and 2 8 4.
    expect(series).toMatchObject({ width: 4, points: 7, steps: [4, 7], low: [1, 2], high: [7, 8] });
    expect(series.mean).toEqual([4, expect.closeTo(14 / 3, 12)]);
  });
});

describe("valueAt in detail", () => {
  it("starts at the first point, whose bucket is as wide as the second", () => {
    const series = seriesOf([
      [10, 1],
      [20, 2],
    ]);
    expect([0, 1, 10, 11, 20, 21].map((step) => valueAt(series, step, false, undefined))).toEqual([
      ...[undefined, 1, 1, 2, 2, undefined],
    ]);
    const wide = seriesOf([
      [10, 1],
      [12, 2],
    ]);
    expect([8, 9].map((step) => valueAt(wide, step, false, 5))).toEqual([undefined, 1]);
  });

  it("is the start of an empty held-out curve, and nothing of an empty training curve", () => {
    expect([valueAt(new Series(4), 3, true, 0.5), valueAt(new Series(4), 3, false, 0.5)]).toEqual([0.5, undefined]);
    expect(valueAt(undefined, 3, false, 0.25)).toBe(0.25);
  });

  it("of a single bucket goes back by its width", () => {
    const series = Series.fromData({
      name: "x",
      width: 4,
      points: 4,
      steps: float64Buffer([8]),
      values: float32Buffer([1, 3, 2]),
    });
    expect([4, 5, 8, 9].map((step) => valueAt(series, step, false, undefined))).toEqual([undefined, 2, 2, undefined]);
  });
});
