import { describe, expect, it } from "vitest";
import type { Clip, Histogram } from "../src/messages";
import { clippedShare, limitsOf, rootHeight, rootTicks, splitBins, tokensIn } from "../src/ratios";
import cases from "./ratios_twin.json";

function histogram(counts: number[]): Histogram {
  return { name: "log_ratio/positive", step: 3, source: "training", start: -1.025, width: 0.05, counts, clip: null };
}

const PPO: Clip = {
  low: { setting: "clip_low_threshold", base: 0, slope: 1 },
  high: { setting: "clip_high_threshold", base: 0, slope: 1 },
  both: false,
};

describe("splitBins", () => {
  it.each(cases)("$name", ({ counts, total, below, above, clipped, pieces: expected }) => {
    const parts = splitBins(histogram(counts), total, { below, above });
    expect(clippedShare(parts)).toBeCloseTo(clipped, 6);
    expect(parts).toHaveLength(expected);
    // Splitting keeps the total, and the parts are adjacent.
    const whole = parts.reduce((sum, part) => sum + part.share, 0);
    expect(whole).toBeCloseTo((100 * tokensIn(histogram(counts))) / total, 9);
    parts.slice(1).forEach((part, i) => {
      expect(part.from).toBeCloseTo(parts[i]?.to as number, 9);
    });
  });

  it("keeps the height of a split bin", () => {
    const parts = splitBins(histogram(cases[1]?.counts as number[]), 100, { below: null, above: Math.exp(0.2) });
    const halves = parts.filter((part) => part.binShare === 40);
    expect(halves.map((part) => part.clipped)).toEqual([false, true]);
    expect(halves.map((part) => part.share)).toEqual([expect.closeTo(20), expect.closeTo(20)]);
    expect(halves[0]?.label).toBe("r 1.19 to 1.25");
    expect([parts[0]?.label, parts.at(-1)?.label]).toEqual(["r below 0.38", "r above 2.65"]);
  });

  it("is empty without a histogram or without tokens", () => {
    expect(splitBins(undefined, 10, { below: 0.8, above: 1.2 })).toEqual([]);
    expect(splitBins(histogram([0, 0]), 0, { below: 0.8, above: 1.2 })).toEqual([]);
  });

  it("clips more as a limit approaches 1", () => {
    const counts = Array.from({ length: 41 }, (_, i) => (7 * i) % 13);
    const shares = [2.6, 1.7, 1.31, 1.2, 1.04, 0.9, 0.4].map((above) =>
      clippedShare(splitBins(histogram(counts), 500, { below: null, above })),
    );
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(new Set(shares).size).toBe(shares.length);
  });
});

describe("limitsOf", () => {
  it("reads thresholds, and distances from 1", () => {
    const settings: Record<string, number> = { clip_low_threshold: 0.7, clip_high_threshold: 1.3, epsilon: 0.25 };
    const setting = (name: string) => settings[name];
    expect(limitsOf(PPO, setting)).toEqual({ low: 0.7, high: 1.3 });
    const low = { setting: "epsilon", base: 1, slope: -1 };
    const high = { setting: "epsilon", base: 1, slope: 1 };
    expect(limitsOf({ low, high, both: false }, setting)).toEqual({ low: 0.75, high: 1.25 });
  });

  it("is null for a loss that clips nothing, and without a setting", () => {
    expect(limitsOf(null, () => 1)).toBeNull();
    expect(limitsOf(PPO, (name) => (name === "clip_low_threshold" ? 0.8 : undefined))).toBeNull();
    expect(limitsOf(PPO, () => Number.NaN)).toBeNull();
  });
});

describe("the root axis", () => {
  it("shows a tail of one percent at a tenth of the whole", () => {
    expect(rootHeight(1) / rootHeight(100)).toBeCloseTo(0.1);
    expect(rootHeight(0)).toBe(0);
  });

  it.each([
    [100, [5, 20, 50, 100]],
    [50, [5, 20, 50]],
    [20, [1, 5, 20]],
    [5, [1, 5]],
  ])("up to %d %% has ticks that are far enough apart", (top, expected) => {
    expect(rootTicks(top)).toEqual(expected);
  });
});

describe("splitBins in detail", () => {
  /** Four bins from log-ratio -1 to 1. */
  const HISTOGRAM: Histogram = {
    ...{ name: "x", step: 1, source: "training", start: -1, width: 0.5, counts: [1, 2, 3, 4], clip: null },
  };
  const split = (below: number | null, above: number | null, counts = HISTOGRAM.counts, total = 10) =>
    splitBins({ ...HISTOGRAM, counts }, total, { below, above });
  const clipped = (parts: ReturnType<typeof split>) => parts.map((part) => part.clipped);

  it("is exact", () => {
    const [low, high] = [Math.exp(-0.75), Math.exp(0.25)];
    const near = (value: number) => expect.closeTo(value, 9);
    expect(split(low, high)).toEqual([
      { from: -1, to: near(-0.75), binShare: 10, share: near(5), clipped: true, label: "r below 0.61" },
      { from: near(-0.75), to: -0.5, binShare: 10, share: near(5), clipped: false, label: "r below 0.61" },
      { from: -0.5, to: 0, binShare: 20, share: 20, clipped: false, label: "r 0.61 to 1.00" },
      { from: 0, to: near(0.25), binShare: 30, share: near(15), clipped: false, label: "r 1.00 to 1.65" },
      { from: near(0.25), to: 0.5, binShare: 30, share: near(15), clipped: true, label: "r 1.00 to 1.65" },
      { from: 0.5, to: 1, binShare: 40, share: 40, clipped: true, label: "r above 1.65" },
    ]);
    expect(clippedShare(split(low, high))).toBeCloseTo(60, 9);
  });

  it("splits one bin at both limits, whichever comes first", () => {
    const parts = split(Math.exp(0.1), Math.exp(0.4));
    expect(parts.filter(({ binShare }) => binShare === 30).map((part) => part.clipped)).toEqual([true, false, true]);
    // A lower limit above the upper one clips everything.
    expect(clipped(split(Math.exp(0.4), Math.exp(0.1)))).toEqual([true, true, true, true, true, true]);
  });

  it("splits no bin at its edge", () => {
    expect(clipped(split(Math.exp(-0.5), Math.exp(0.5)))).toEqual([true, false, false, true]);
    expect(clipped(split(null, null))).toEqual([false, false, false, false]);
  });

  it("clips nothing visible beyond the axis, and everything with the axis beyond a limit", () => {
    expect(clipped(split(Math.exp(-1), Math.exp(1)))).toEqual([false, false, false, false]);
    expect(clipped(split(0.01, 100))).toEqual([false, false, false, false]);
    expect(clipped(split(Math.exp(1.5), null))).toEqual([true, true, true, true]);
    expect(clipped(split(null, Math.exp(-1.5)))).toEqual([true, true, true, true]);
    expect(clipped(split(null, 0))).toEqual([true, true, true, true]);
    expect(clipped(split(0, null))).toEqual([false, false, false, false]);
    expect(clipped(split(-1, -2))).toEqual([true, true, true, true]);
  });

  it("names the ends of a single bin as below", () => {
    expect(split(null, null, [3], 3)).toMatchObject([{ from: -1, to: -0.5, binShare: 100, label: "r below 0.61" }]);
  });

  it("needs tokens", () => {
    expect([split(null, null, HISTOGRAM.counts, -1), tokensIn(undefined), tokensIn(HISTOGRAM)]).toEqual([[], 0, 10]);
  });
});

describe("limitsOf in detail", () => {
  it("is null if the upper limit is unknown, and may be 0", () => {
    expect(limitsOf(PPO, (name) => (name === "clip_high_threshold" ? 0.8 : undefined))).toBeNull();
    expect(limitsOf(PPO, () => Number.POSITIVE_INFINITY)).toBeNull();
    expect(limitsOf(PPO, () => 0)).toEqual({ low: 0, high: 0 });
  });
});

describe("the root axis in detail", () => {
  it("has no height below 0", () => {
    expect([rootHeight(-4), rootHeight(25)]).toEqual([0, 5]);
  });

  it.each([
    [2, [1]],
    [10, [1, 5]],
    [4.9, [1]],
    [1, [1]],
    [0.5, []],
    [99, [5, 20, 50]],
  ])("up to %d %% has the ticks %j", (top, expected) => {
    expect(rootTicks(top)).toEqual(expected);
  });
});
