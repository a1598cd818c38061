import { describe, expect, it } from "vitest";
import type { TokenColumn } from "../../src/messages";
import { colourAt, contrast, gradient, inkOn, scalePosition } from "../../src/tokens/colour";
import cases from "../colour_twin.json";

function column(scale: TokenColumn["scale"], low: number, high: number): TokenColumn {
  return { name: "x", unit: "", note: "", scale, low, high };
}

describe("colours", () => {
  it.each(["diverging", "ratio", "sequential"] as const)(
    "leave text on a %s scale legible, light and dark",
    (scale) => {
      for (const dark of [false, true]) {
        for (let share = scale === "sequential" ? 0 : -1; share <= 1.0001; share += 0.01) {
          const ground = colourAt(Math.min(share, 1), scale, dark);
          expect(contrast(inkOn(ground, dark), ground)).toBeGreaterThanOrEqual(4.5);
        }
      }
    },
  );

  it("are those of the static picture", () => {
    for (const { scale, low, high, value, colour } of cases as {
      scale: TokenColumn["scale"];
      low: number;
      high: number;
      value: number;
      colour: number[];
    }[]) {
      const share = scalePosition(value, column(scale, low, high)) as number;
      expect(colourAt(share, scale, false)).toEqual(colour);
    }
  });

  it("are symmetrical about 0, about 1 for a ratio, and constant beyond the ends", () => {
    expect(scalePosition(-1, column("diverging", -2, 2))).toBe(-0.5);
    expect(scalePosition(99, column("diverging", -2, 2))).toBe(1);
    expect(scalePosition(0.5, column("ratio", 0.25, 4))).toBeCloseTo(-0.5);
    expect(scalePosition(2, column("ratio", 0.25, 4))).toBeCloseTo(0.5);
    expect(scalePosition(0, column("ratio", 0.25, 4))).toBe(-1);
    expect(scalePosition(-2, column("sequential", -8, 0))).toBe(0.25);
    expect(scalePosition(0.25, column("sequential", 0, 1))).toBe(0.25);
    expect(scalePosition(Number.NaN, column("sequential", 0, 1))).toBeNull();
  });

  it("are defined on a scale without width", () => {
    expect(scalePosition(0, column("sequential", 0, 0))).toBe(0);
    expect(scalePosition(3, column("diverging", 0, 0))).toBe(1);
  });

  it("fill the bar from the low end to the high end", () => {
    const ends = gradient(column("sequential", -8, 0), false).match(/rgb\([^)]+\)/g) as string[];
    expect(ends.at(-1)).toBe("rgb(255,255,255)");
    expect(ends[0]).not.toBe(ends.at(-1));
  });
});
