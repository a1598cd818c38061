import { describe, expect, it } from "vitest";
import { openTicks } from "../src/charts/ends";
import { markLines } from "../src/charts/marks";
import { duration, setting, short, thousands } from "../src/format";
import { Series } from "../src/history";
import { extentWithin, logRange, padded, roundRange, roundUp, sliderScale, stepRange } from "../src/scale";
import { rawPath, smooth } from "../src/smooth";

function seriesOf(values: number[], capacity = 512): Series {
  const series = new Series(capacity);
  values.forEach((value, i) => {
    series.add(i + 1, value);
  });
  return series;
}

describe("smooth", () => {
  it("leaves a constant alone from its first point on", () => {
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

  it("begins anew where the loss changes", () => {
    const values = [...Array(20).fill(30), ...Array(20).fill(15)];
    const smoothed = smooth(seriesOf(values), 8, [21]);
    for (const [i, value] of values.entries()) expect(smoothed[i]).toBeCloseTo(value, 9);
    expect(smooth(seriesOf(values), 8)[20]).toBeGreaterThan(28);
    expect(smooth(seriesOf(values), 8, [90])).toEqual(smooth(seriesOf(values), 8));
  });

  it("leaves a bucket that holds both losses to itself", () => {
    // Buckets of two steps; the change before step 4 lies in the second.
    const series = seriesOf([8, 8, 8, 2, 2, 2, 2, 2], 4);
    expect(series.steps).toEqual([2, 4, 6, 8]);
    expect(smooth(series, 5, [4])).toEqual([8, 5, 2, 2]);
    expect(smooth(series, 5, [3])[2]).toBeGreaterThan(2);
  });
});

describe("openTicks", () => {
  it("say what stands for all beyond", () => {
    const between = { tickvals: [-20, -10, 0, 10, 20] };
    expect(openTicks([-20, 20], { below: true, above: true })).toEqual({
      ...between,
      ticktext: ["≤ −20", "−10", "0", "10", "≥ 20"],
    });
    expect(openTicks([-20, 20], { below: false, above: false })).toEqual({
      ...between,
      ticktext: ["−20", "−10", "0", "10", "20"],
    });
  });

  it("leave room at ends that are not round", () => {
    expect(openTicks([-1.025, 1.025], { below: false, above: true })).toEqual({
      tickvals: [-1.025, 0, 1.025],
      ticktext: ["−1.025", "0", "≥ 1.025"],
    });
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

describe("ranges", () => {
  it.each([
    [0.3, 0.5],
    [1, 1],
    [1.01, 2],
    [2.2, 2.5],
    [7, 10],
    [0, 1],
  ])("rounds %f up to %f", (value, rounded) => {
    expect(roundUp(value)).toBeCloseTo(rounded, 12);
  });

  it("have round ends around the data and no room below zero for what is positive", () => {
    const [low, high] = roundRange(0.1, 0.78);
    expect(low).toBe(0);
    expect(high).toBeCloseTo(1);
  });

  it("change in round steps only", () => {
    expect(roundRange(0.1, 0.9)).toEqual(roundRange(0.12, 0.88));
  });

  it("of a single value reach half of it to both sides", () => {
    expect(roundRange(1.4795, 1.4795)).toEqual([0.5, 2.5]);
    expect(roundRange(5, 5)).toEqual([2, 8]);
    expect(roundRange(-5, -5)).toEqual([-8, -2]);
    for (const tiny of [1e-9, Number.MIN_VALUE]) {
      const [low, high] = roundRange(tiny, tiny);
      expect([low, high > tiny]).toEqual([0, true]);
    }
  });

  it("survive no data at all", () => {
    expect(roundRange(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)).toEqual([0, 1]);
  });

  it("leave a fiftieth of a fixed axis free at both ends", () => {
    expect(padded([0, 1])).toEqual([-0.02, 1.02]);
    expect(padded([-50, 50])).toEqual([-52, 52]);
  });

  it("do not blow up what is rounding", () => {
    const [low, high] = roundRange(1 - 1e-7, 1 + 1e-7);
    expect(high - low).toBeGreaterThan(0.9e-3);
    expect(roundRange(0, 0)).toEqual([0, 1]);
    expect(roundRange(-3e-9, 1e-8)[1]).toBeGreaterThan(1e-7);
  });

  it("of steps show a short run whole and a long one from its beginning", () => {
    expect(stepRange(3, 400)).toEqual([0, 400]);
    expect(stepRange(10, 10_000)).toEqual([0, 625]);
    expect(stepRange(700, 10_000)).toEqual([0, 1250]);
    expect(stepRange(10_000, 10_000)).toEqual([0, 10_000]);
    expect(stepRange(70, 0)).toEqual([0, 100]);
  });
});

describe("sliderScale", () => {
  it.each(["linear", "log"] as const)("%s: there and back", (kind) => {
    const scale = sliderScale(0.01, 10, kind);
    for (const position of [0, 0.25, 0.5, 1]) {
      expect(scale.toPosition(scale.toValue(position))).toBeCloseTo(position, 2);
    }
    expect(scale.toPosition(1000)).toBe(1);
    expect(scale.toPosition(-5)).toBe(0);
  });

  it("moves with every notch", () => {
    const scale = sliderScale(1e-5, 1e-2, "log");
    const values = Array.from({ length: 201 }, (_, i) => scale.toValue(i / 200));
    expect(new Set(values).size).toBe(201);
  });
});

describe("numbers", () => {
  it("are short", () => {
    expect([0, 0.0001, 0.1234, 12.345, 123.45, 1234.5, 1e6].map(short)).toEqual(
      ["0", "1.0e-4", "0.123", "12.35", "123.5", "1235", "1.0e6"].map((text) =>
        text.replace("12.35", (12.345).toFixed(2)),
      ),
    );
    expect([short(undefined), short(Number.NaN)]).toEqual(["–", "–"]);
  });

  it("are typed without noise", () => {
    expect([0.0005, 1, 0.00003, 2.5].map(setting)).toEqual(["0.0005", "1", "3e-5", "2.5"]);
  });

  it("have thousands and durations", () => {
    expect([thousands(400), thousands(1234567)]).toEqual(["400", "1,234,567"]);
    expect([duration(12.2), duration(300), duration(7200), duration(Number.NaN)]).toEqual([
      "13 s",
      "5 min",
      "2.0 h",
      "–",
    ]);
  });
});

describe("markLines", () => {
  const at = (...steps: number[]) => steps.map((step) => ({ step, label: "x" }));

  it("numbers each change", () => {
    expect(markLines(at(10, 50), 2, 5)).toEqual([
      { x: 9.5, label: "1" },
      { x: 49.5, label: "2" },
    ]);
  });

  it("gives neighbours one number and changes of one step one line", () => {
    expect(markLines(at(10, 10, 12, 50), 4, 5)).toEqual([
      { x: 9.5, label: "1–3" },
      { x: 11.5, label: "" },
      { x: 49.5, label: "4" },
    ]);
  });

  it("counts those that are no longer sent", () => {
    expect(markLines(at(900), 61, 5)[0]?.label).toBe("61");
  });
});

describe("extentWithin", () => {
  const curves = [
    { x: [1, 2, 3, 4], y: [9, 1, 2, -7] },
    { x: [2, 3], y: [5, 4] },
  ];

  it("is that of all curves between two steps, the ends included", () => {
    expect(extentWithin(curves, [2, 3])).toEqual([1, 5]);
    expect(extentWithin(curves, [0, 10])).toEqual([-7, 9]);
  });

  it("has no ends where nothing is shown, and the axis stays 0 to 1", () => {
    const extent = extentWithin(curves, [50, 60]);
    expect(extent).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
    expect(roundRange(...extent)).toEqual([0, 1]);
  });
});

describe("logRange", () => {
  it("leaves a twentieth of its length free at both ends", () => {
    const [from, to] = logRange(0.01, 100);
    expect(from).toBeCloseTo(-2.2, 12);
    expect(to).toBeCloseTo(2.2, 12);
  });

  it("has room around a constant", () => {
    const [from, to] = logRange(10, 10);
    expect([from, to]).toEqual([expect.closeTo(0.99, 12), expect.closeTo(1.01, 12)]);
  });
});
