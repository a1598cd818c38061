import { describe, expect, it } from "vitest";
import {
  extentWithin,
  fixedAxis,
  logRange,
  openTicks,
  padded,
  pair,
  roundRange,
  roundUp,
  sliderScale,
  stepRange,
} from "../../src/lib/scale";

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

  it("change only in round steps", () => {
    expect(roundRange(0.1, 0.9)).toEqual(roundRange(0.12, 0.88));
  });

  it("of a single value reach half of it in both directions", () => {
    expect(roundRange(1.4795, 1.4795)).toEqual([0.5, 2.5]);
    expect(roundRange(5, 5)).toEqual([2, 8]);
    expect(roundRange(-5, -5)).toEqual([-8, -2]);
    for (const tiny of [1e-9, Number.MIN_VALUE]) {
      const [low, high] = roundRange(tiny, tiny);
      expect([low, high > tiny]).toEqual([0, true]);
    }
  });

  it("are 0 to 1 without data", () => {
    expect(roundRange(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)).toEqual([0, 1]);
  });

  it("leave a fiftieth of a fixed axis free at both ends", () => {
    expect(padded([0, 1])).toEqual([-0.02, 1.02]);
    expect(padded([-50, 50])).toEqual([-52, 52]);
  });

  it("do not enlarge rounding errors", () => {
    const [low, high] = roundRange(1 - 1e-7, 1 + 1e-7);
    expect(high - low).toBeGreaterThan(0.9e-3);
    expect(roundRange(0, 0)).toEqual([0, 1]);
    expect(roundRange(-3e-9, 1e-8)[1]).toBeGreaterThan(1e-7);
  });

  it("of steps show all of a short run and the first part of a long one", () => {
    expect(stepRange(3, 400)).toEqual([0, 400]);
    expect(stepRange(10, 10_000)).toEqual([0, 625]);
    expect(stepRange(700, 10_000)).toEqual([0, 1250]);
    expect(stepRange(10_000, 10_000)).toEqual([0, 10_000]);
    expect(stepRange(70, 0)).toEqual([0, 100]);
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

  it("is infinite without points, and the axis is then 0 to 1", () => {
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

  it("has a margin around a constant", () => {
    const [from, to] = logRange(10, 10);
    expect([from, to]).toEqual([expect.closeTo(0.99, 12), expect.closeTo(1.01, 12)]);
  });
});

describe("openTicks", () => {
  it("mark the ends that count all values beyond them", () => {
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

describe("sliderScale", () => {
  it.each(["linear", "log"] as const)("%s: there and back", (kind) => {
    const scale = sliderScale(0.01, 10, kind);
    for (const position of [0, 0.25, 0.5, 1]) {
      expect(scale.toPosition(scale.toValue(position))).toBeCloseTo(position, 2);
    }
    expect(scale.toPosition(1000)).toBe(1);
    expect(scale.toPosition(-5)).toBe(0);
  });

  it("changes with every position", () => {
    const scale = sliderScale(1e-5, 1e-2, "log");
    const values = Array.from({ length: 201 }, (_, i) => scale.toValue(i / 200));
    expect(new Set(values).size).toBe(201);
  });
});

describe("fixedAxis", () => {
  it("has a tick at every quarter", () => {
    expect(fixedAxis([0, 1])).toEqual({ range: [-0.02, 1.02], tickvals: [0, 0.25, 0.5, 0.75, 1] });
    expect(fixedAxis([-10, 10]).tickvals).toEqual([-10, -5, 0, 5, 10]);
  });
});

describe("pair", () => {
  it("is the default without two numbers", () => {
    expect(pair([3, 4], [0, 1])).toEqual([3, 4]);
    for (const numbers of [null, [], [3]]) expect(pair(numbers, [0, 1])).toEqual([0, 1]);
  });
});

describe("rounding at the edges", () => {
  it.each([
    [1, 1],
    [1 + 1e-12, 1],
    [2, 2],
    [2.5, 2.5],
    [2.6, 5],
    [5, 5],
    [5.1, 10],
    [10, 10],
    [0.001, 0.001],
    [0.03, 0.05],
    [230, 250],
    [-3, 1],
    [Number.NaN, 1],
  ])("rounds %d up to %d", (value, rounded) => {
    expect(roundUp(value)).toBeCloseTo(rounded, 12);
  });

  it.each<[number, number, number, number]>([
    [0, 1, 0, 1.25],
    [-1, 1, -1.5, 1.5],
    [1, 2, 0.75, 2.25],
    [-2, -1, -2.25, -0.75],
    [0, 0.001, 0, 0.00125],
    [100, 101, 99.75, 101.25],
    [1000, 1000.1, 999.5, 1000.5],
  ])("the range around %d to %d is %d to %d", (lowest, highest, low, high) => {
    const range = roundRange(lowest, highest);
    expect(range[0]).toBeCloseTo(low, 9);
    expect(range[1]).toBeCloseTo(high, 9);
  });

  it("of the range needs finite numbers", () => {
    for (const [low, high] of [
      [Number.NaN, 1],
      [0, Number.POSITIVE_INFINITY],
      [Number.NEGATIVE_INFINITY, 0],
      [Number.NaN, Number.NaN],
    ] as const) {
      expect(roundRange(low, high)).toEqual([0, 1]);
    }
  });

  it("of the range does not enlarge noise below a millionth", () => {
    // A span of 1e-6 has ticks at every 2.5e-7.
    const [low, high] = roundRange(0, 1e-9);
    expect([low, high]).toEqual([0, expect.closeTo(2.5e-7, 12)]);
  });
});

describe("stepRange in detail", () => {
  it.each<[number, number, number]>([
    [0, 0, 50],
    [50, 0, 50],
    [51, 0, 100],
    [9, -1, 50],
    [0, 799, 799],
    [0, 800, 400],
    [400, 800, 400],
    [401, 800, 800],
    [900, 800, 900],
    [10, 100, 100],
    [0, 1600, 400],
    [401, 1600, 800],
  ])("after %d steps of %d ends at %d", (done, total, end) => {
    expect(stepRange(done, total)).toEqual([0, end]);
  });
});

describe("openTicks in detail", () => {
  const texts = (low: number, high: number, below = false, above = false) =>
    openTicks([low, high], { below, above }).ticktext;

  it("leaves out labels closer than six tenths of a step to an end", () => {
    // A span of 4 has steps of 1.
    expect(openTicks([-1.6, 2.4], { below: false, above: false }).tickvals).toEqual([-1.6, -1, 0, 1, 2.4]);
    expect(openTicks([-1.5, 2.5], { below: false, above: false }).tickvals).toEqual([-1.5, 0, 1, 2.5]);
    expect(openTicks([-1.4, 2.6], { below: false, above: false }).tickvals).toEqual([-1.4, 0, 1, 2, 2.6]);
  });

  it("marks each end by itself, with the minus sign of plotly", () => {
    expect(texts(-2, 2, true, false)).toEqual(["≤ −2", "−1", "0", "1", "2"]);
    expect(texts(-2, 2, false, true)).toEqual(["−2", "−1", "0", "1", "≥ 2"]);
    expect(texts(0.1234567, 8.1, false, false).at(0)).toBe("0.123457");
  });

  it("has round values", () => {
    expect(openTicks([0, 0.8], { below: false, above: false }).tickvals).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
  });
});

describe("extentWithin in detail", () => {
  it("leaves out what is no number", () => {
    expect(extentWithin([{ x: [1, 2, 3], y: [Number.NaN, 2, 5] }], [0, 9])).toEqual([2, 5]);
    expect(extentWithin([], [0, 9])).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
  });
});

describe("sliderScale in detail", () => {
  it("is linear or logarithmic, with three digits", () => {
    const linear = sliderScale(-1, 3, "linear");
    expect([0, 0.25, 0.5, 1, 2, -1].map(linear.toValue)).toEqual([-1, 0, 1, 3, 3, -1]);
    expect([-1, 0, 3, 9, -9].map(linear.toPosition)).toEqual([0, 0.25, 1, 1, 0]);
    expect(sliderScale(0, 1, "linear").toValue(0.12345)).toBe(0.123);
    const log = sliderScale(0.01, 100, "log");
    expect([0, 0.25, 0.5, 1, 2, -1].map(log.toValue)).toEqual([0.01, 0.1, 1, 100, 100, 0.01]);
    expect([0.01, 0.1, 1, 100, 1e9, 1e-9, 0].map(log.toPosition)).toEqual([
      ...[0, expect.closeTo(0.25, 12), expect.closeTo(0.5, 12), 1, 1, 0, 0],
    ]);
  });
});
