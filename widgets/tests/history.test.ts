import { describe, expect, it } from "vitest";
import { float32s, float64s, History, Series } from "../src/history";
import type { SeriesData } from "../src/protocol";
import twin from "./history_twin.json";

function view(bytes: number[]): DataView {
  return new DataView(new Uint8Array(bytes).buffer);
}

describe("Series", () => {
  it("holds points as they are while there is room", () => {
    const series = new Series(4);
    [3, 1, 2].forEach((value, i) => {
      series.add(i + 1, value);
    });
    expect([series.width, series.steps, series.mean]).toEqual([1, [1, 2, 3], [3, 1, 2]]);
  });

  it("merges neighbours when it is full and keeps the spike", () => {
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

  it.each(twin)("does what the kernel does: $name", ({ capacity, points, data, series: expected }) => {
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
      { ...data, steps: view(data.steps), values: view(data.values) } as SeriesData,
      capacity,
    );
    expect(loaded.steps).toEqual(expected.steps);
    loaded.high.forEach((value, i) => {
      expect(value).toBe(Math.fround(expected.high[i] as number));
    });
    // What was loaded and what was watched go on alike.
    loaded.add(10_001, 0.5);
    series.add(10_001, 0.5);
    expect([loaded.width, loaded.steps, loaded.low]).toEqual([series.width, series.steps, series.low]);
  });
});

describe("buffers", () => {
  it("are little-endian and may start anywhere", () => {
    const bytes = new Uint8Array(1 + 16 + 4);
    const all = new DataView(bytes.buffer);
    all.setFloat64(1, 1.5, true);
    all.setFloat64(9, -2, true);
    all.setFloat32(17, 0.25, true);
    expect(float64s(new DataView(bytes.buffer, 1, 16))).toEqual([1.5, -2]);
    expect(float32s(new DataView(bytes.buffer, 17, 4))).toEqual([0.25]);
  });

  it("of another size than announced are refused", () => {
    const history = new History();
    expect(() => history.append(["loss"], 2, 0, view([]), view([]))).toThrow(RangeError);
  });
});
