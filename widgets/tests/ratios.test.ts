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
