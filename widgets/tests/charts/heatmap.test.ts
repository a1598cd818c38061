import { describe, expect, it } from "vitest";
import { columnAt, heatTrace, shareBetween, stepEdges } from "../../src/charts/heatmap";
import { Heat } from "../../src/heat";
import { THEME } from "../support";

function heatOf(all: number[][], capacity = 128): Heat {
  const heat = new Heat(-1.5, 1, 3, "training", capacity);
  all.forEach((counts, i) => {
    heat.add(i + 1, counts);
  });
  return heat;
}

describe("stepEdges", () => {
  it.each([
    [[], []],
    [[7], [6, 7]],
    [
      [2, 4, 6],
      [0, 2, 4, 6],
    ],
    // The first column has the width of the second, but does not start before step 0.
    [
      [10, 30],
      [0, 10, 30],
    ],
    // The last column may be incomplete.
    [
      [8, 16, 17],
      [0, 8, 16, 17],
    ],
  ])("of %j are %j", (steps, edges) => {
    expect(stepEdges(steps)).toEqual(edges);
  });
});

describe("columnAt", () => {
  const heat = heatOf(
    [
      [1, 0, 0],
      [1, 0, 0],
      [0, 1, 0],
      [0, 1, 0],
      [0, 0, 1],
    ],
    4,
  );

  it("is the one that contains the step, else the nearest", () => {
    expect(heat.steps).toEqual([2, 4, 5]);
    expect([0, 1, 2, 3, 4, 5, 99].map((step) => columnAt(heat, step)?.step)).toEqual([2, 2, 2, 4, 4, 5, 5]);
    expect(columnAt(heat, 3)?.shares).toEqual([0, 1, 0]);
  });

  it("is undefined without columns", () => {
    expect(columnAt(heatOf([]), 3)).toBeUndefined();
  });
});

describe("shareBetween", () => {
  const heat = heatOf([[1, 1, 1]]); // bins -1.5 to -0.5, to 0.5, to 1.5
  const shares = [0.2, 0.3, 0.5];

  it.each([
    [-0.5, 0.5, 30],
    // Half of the middle bin and all of the last; its other half and all of the first.
    [0, Number.POSITIVE_INFINITY, 65],
    [Number.NEGATIVE_INFINITY, 0, 35],
    [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 100],
    // The outer bins also count all values beyond them.
    [1.5, 9, 0],
    [0.5, 9, 50],
    [-9, -0.5, 20],
    [0.5, 1, 25],
  ])("from %d to %d is %d percent", (low, high, percent) => {
    expect(shareBetween(heat, shares, low, high)).toBeCloseTo(percent, 9);
  });
});

describe("heatTrace", () => {
  it("has a row for each bin, one edge more than columns, and square roots of percents", () => {
    const heat = heatOf([
      [1, 0, 3],
      [0, 1, 0],
    ]);
    const { x, y, z, zmax } = heatTrace(heat, "#000", THEME) as Record<string, number[]>;
    expect(x).toEqual([0, 1, 2]);
    expect(y).toEqual([-1.5, -0.5, 0.5, 1.5]);
    expect(z).toEqual([
      [5, 0],
      [0, 10],
      [Math.sqrt(75), 0],
    ]);
    expect(zmax).toBe(10);
  });
});

describe("every part of heatTrace", () => {
  it("is exact", () => {
    const heat = heatOf([[1, 0, 0]]);
    expect(heatTrace(heat, "#012", THEME)).toEqual({
      ...{ type: "heatmap", x: [0, 1], y: [-1.5, -0.5, 0.5, 1.5], z: [[10], [0], [0]], yaxis: "y", zmin: 0, zmax: 10 },
      colorscale: [
        [0, THEME.surface],
        [1, "#012"],
      ],
      ...{ showscale: false, hoverinfo: "skip" },
    });
    expect(heatTrace(heat, "#012", THEME, "y2").yaxis).toBe("y2");
  });

  it("has a colour scale up to one percent at least", () => {
    const heat = new Heat(0, 1, 2, "training");
    expect(heatTrace(heat, "#012", THEME)).toMatchObject({ x: [], z: [[], []], zmax: 1 });
  });
});
