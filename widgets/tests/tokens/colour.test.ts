import { describe, expect, it } from "vitest";
import type { TokenColumn } from "../../src/messages";
import { colourAt, contrast, css, gradient, inkOn, scalePosition } from "../../src/tokens/colour";
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

describe("scalePosition at the ends", () => {
  it.each([
    ["diverging", -2, 2, -99, -1],
    ["diverging", -2, 4, 1, 0.25],
    ["sequential", 0, 4, 5, 1],
    ["sequential", 0, 4, -5, 0],
    ["sequential", 2, 4, 3, 0.5],
    ["sequential", -8, 0, -9, 1],
    ["sequential", -4, -2, -3, 0.5],
    ["sequential", -1, 1, 1, 1],
    ["sequential", 3, 3, 3, 0],
    ["ratio", 0.25, 4, 4, 1],
    ["ratio", 0.25, 4, 0.01, -1],
    ["ratio", 0.25, 4, -1, -1],
  ] as const)("of a %s scale from %d to %d is for %d: %d", (scale, low, high, value, position) => {
    expect(scalePosition(value, column(scale, low, high))).toBeCloseTo(position, 12);
  });
});

describe("colourAt", () => {
  it("is the ground at 0, and the ends of the palette", () => {
    expect([colourAt(0, "diverging", false), colourAt(0, "sequential", true)]).toEqual([
      [255, 255, 255],
      [24, 27, 31],
    ]);
    expect([
      colourAt(1, "diverging", false),
      colourAt(-1, "diverging", false),
      colourAt(1, "sequential", false),
    ]).toEqual([
      [232, 138, 48],
      [90, 162, 216],
      [169, 143, 208],
    ]);
    expect([colourAt(1, "ratio", true), colourAt(-1, "ratio", true), colourAt(1, "sequential", true)]).toEqual([
      [184, 94, 10],
      [38, 112, 176],
      [126, 96, 184],
    ]);
    // 255 + (90 - 255) / 2 = 172.5, 255 + (162 - 255) / 2 = 208.5, 255 + (216 - 255) / 2 = 235.5
    expect(colourAt(-0.5, "diverging", false)).toEqual([173, 209, 236]);
  });
});

describe("contrast", () => {
  it("is 21 for black on white and 1 for the same colour, whichever comes first", () => {
    const [black, white] = [[0, 0, 0] as const, [255, 255, 255] as const];
    expect([contrast(black, white), contrast(white, black), contrast(white, white)]).toEqual([
      ...[expect.closeTo(21, 9), expect.closeTo(21, 9), 1],
    ]);
    // Red has luminance 0.2126: 1.05 / 0.2626. Grey 119 is the darkest grey below 4.5 on white, by WCAG.
    expect(contrast([255, 0, 0], white)).toBeCloseTo(1.05 / 0.2626, 6);
    expect(contrast([119, 119, 119], white)).toBeCloseTo(4.478, 3);
    // 10 / 255 is below 0.03928, on the linear part.
    expect(contrast([10, 10, 10], black)).toBeCloseTo((10 / 255 / 12.92 + 0.05) / 0.05, 9);
  });

  it("selects the page's own text colour, else black or white", () => {
    expect(inkOn([255, 255, 255], false)).toEqual([31, 35, 40]);
    expect(inkOn([24, 27, 31], true)).toEqual([230, 232, 234]);
    expect(inkOn([110, 110, 110], false)).toEqual([255, 255, 255]);
    expect(inkOn([130, 130, 130], false)).toEqual([0, 0, 0]);
  });
});

describe("gradient", () => {
  const stops = (scale: TokenColumn["scale"], low: number, high: number) =>
    gradient(column(scale, low, high), false).match(/rgb\([^)]+\)/g) as string[];
  const at = (position: number, scale: TokenColumn["scale"]) => css(colourAt(position, scale, false));

  it("has thirteen stops from left to right", () => {
    expect(gradient(column("diverging", -1, 1), false)).toMatch(/^linear-gradient\(to right, rgb\(90,162,216\), /);
    const diverging = stops("diverging", -1, 1);
    expect(diverging).toEqual(Array.from({ length: 13 }, (_, i) => at(i / 6 - 1, "diverging")));
    expect(stops("ratio", 0.5, 2)).toEqual(diverging);
    expect(stops("sequential", 0, 1)).toEqual(Array.from({ length: 13 }, (_, i) => at(i / 12, "sequential")));
    expect(stops("sequential", -1, 0)).toEqual(Array.from({ length: 13 }, (_, i) => at(1 - i / 12, "sequential")));
    expect(stops("sequential", -1, 1)[0]).toBe("rgb(255,255,255)");
  });
});
