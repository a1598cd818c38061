import { describe, expect, it } from "vitest";
import { Series } from "../../src/history";
import { rawPath, smooth } from "../../src/lib/smooth";

function seriesOf(values: number[], capacity = 512): Series {
  const series = new Series(capacity);
  values.forEach((value, i) => {
    series.add(i + 1, value);
  });
  return series;
}

describe("smooth", () => {
  it("keeps a constant from its first point on", () => {
    for (const value of smooth(seriesOf(Array(20).fill(3)), 5)) expect(value).toBeCloseTo(3, 12);
  });

  it("gives half its weight to the last half-life", () => {
    // After 40 zeros, `halfLife` ones bring the average half way up (the start has long faded).
    const smoothed = smooth(seriesOf([...Array(40).fill(0), 1, 1]), 2);
    expect(smoothed.at(-1)).toBeCloseTo(0.5, 5);
  });

  it("does nothing at half-life 0", () => {
    expect(smooth(seriesOf([1, 5, 2]), 0)).toEqual([1, 5, 2]);
  });

  it("smooths a decimated series about as much as a full one", () => {
    const values = Array.from({ length: 1000 }, (_, i) => (i < 500 ? 0 : 1));
    const full = smooth(seriesOf(values, 2000), 40).at(519) as number;
    const few = seriesOf(values, 250);
    const at = few.steps.findIndex((step) => step >= 520);
    expect(few.width).toBe(4);
    expect(smooth(few, 40)[at]).toBeCloseTo(full, 1);
  });

  it("restarts when the loss changes", () => {
    const values = [...Array(20).fill(30), ...Array(20).fill(15)];
    const smoothed = smooth(seriesOf(values), 8, [21]);
    for (const [i, value] of values.entries()) expect(smoothed[i]).toBeCloseTo(value, 9);
    expect(smooth(seriesOf(values), 8)[20]).toBeGreaterThan(28);
    expect(smooth(seriesOf(values), 8, [90])).toEqual(smooth(seriesOf(values), 8));
  });

  it("smooths a bucket with values of both losses alone", () => {
    // Buckets of two steps; the change before step 4 lies in the second.
    const series = seriesOf([8, 8, 8, 2, 2, 2, 2, 2], 4);
    expect(series.steps).toEqual([2, 4, 6, 8]);
    expect(smooth(series, 5, [4])).toEqual([8, 5, 2, 2]);
    expect(smooth(series, 5, [3])[2]).toBeGreaterThan(2);
  });
});

describe("rawPath", () => {
  it("is the points themselves, or every bucket's extent", () => {
    expect(rawPath(seriesOf([2, 1]))).toEqual({ x: [1, 2], y: [2, 1] });
    const path = rawPath(seriesOf([1, 9, 2, 4, 6], 4));
    expect(path.x).toEqual([2, 2, 4, 4, 5, 5]);
    expect(path.y).toEqual([9, 1, 2, 4, 6, 6]);
  });
});

describe("smooth in detail", () => {
  it("starts with the first value, and weights it by half after a half-life", () => {
    // Weights 1/2, 1/2 * 1/2, ...: after the values 1 and 4, (1 + 2 * 4) / 3; after 1, 4 and 0, (1 + 2 * 4 + 0) / 7.
    const smoothed = smooth(seriesOf([1, 4, 0]), 1);
    expect(smoothed).toEqual([1, expect.closeTo(3, 12), expect.closeTo(9 / 7, 12)]);
  });

  it("returns other numbers than it was given", () => {
    const series = seriesOf([1, 2]);
    expect([smooth(series, 0), smooth(series, -1), smooth(series, Number.NaN)]).toEqual([
      [1, 2],
      [1, 2],
      [1, 2],
    ]);
    expect(smooth(series, 0)).not.toBe(series.mean);
  });

  it("restarts at the step itself, at several steps, and at the first", () => {
    const values = [8, 4, 2, 6];
    expect(smooth(seriesOf(values), 5, [2, 3, 4])).toEqual([8, 4, 2, 6]);
    expect(smooth(seriesOf(values), 5, [1])).toEqual(smooth(seriesOf(values), 5));
    const [first, second, third] = smooth(seriesOf(values), 1, [2]) as [number, number, number];
    expect([first, second, third]).toEqual([8, 4, expect.closeTo((4 + 2 * 2) / 3, 12)]);
  });

  it("restarts between buckets without smoothing one alone if the change is at its start", () => {
    // Buckets of the steps 1-2, 3-4 and 5-6 with means 8, 2 and 5.
    const series = seriesOf([8, 8, 2, 2, 5, 5], 4);
    expect(series.mean).toEqual([8, 2, 5]);
    const decay = 0.5 ** 2; // a bucket of two steps at a half-life of one
    const third = (decay * 2 + 5) / (decay + 1);
    expect(smooth(series, 1, [3])).toEqual([8, 2, expect.closeTo(third, 12)]);
    expect(smooth(series, 1, [4])).toEqual([8, 2, 5]);
    expect(smooth(series, 1, [2])).toEqual([8, 2, expect.closeTo(third, 12)]); // steps 1 and 2 are of both losses
    expect(smooth(series, 1, [1])[1]).toBeCloseTo((decay * 8 + 2) / (decay + 1), 12);
  });
});

describe("rawPath in detail", () => {
  it("goes from high to low and from low to high in turn", () => {
    const path = rawPath(seriesOf([1, 9, 2, 4, 6, 3], 4));
    expect(path).toEqual({ x: [2, 2, 4, 4, 6, 6], y: [9, 1, 2, 4, 6, 3] });
  });
});
