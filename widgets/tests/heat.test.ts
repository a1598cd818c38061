import { describe, expect, it } from "vitest";
import { columnAt, heatTrace, shareBetween, stepEdges } from "../src/charts/heatmap";
import { Heat, HeatHistory } from "../src/heat";
import type { HeatData, Histogram } from "../src/protocol";
import type { Theme } from "../src/theme";
import twin from "./heat_twin.json";

function view(bytes: number[]): DataView {
  return new DataView(new Uint8Array(bytes).buffer);
}

function heatOf(all: number[][], capacity = 128): Heat {
  const heat = new Heat(-1.5, 1, 3, "training", capacity);
  all.forEach((counts, i) => {
    heat.add(i + 1, counts);
  });
  return heat;
}

function histogram(step: number, counts: number[], source = "training"): Histogram {
  return { name: "margin", step, source, start: -1.5, width: 1, counts, clip: null };
}

describe("Heat", () => {
  it("counts every histogram alike when neighbours merge", () => {
    const heat = heatOf(
      [
        [4, 0, 0],
        [0, 8, 0],
        [0, 0, 1],
      ],
      2,
    );
    expect([heat.width, heat.steps, heat.points]).toEqual([2, [2, 3], 3]);
    expect(heat.columns).toEqual([
      [0.5, 0.5, 0],
      [0, 0, 1],
    ]);
  });

  it.each(twin)("does what the kernel does: $name", ({ capacity, counts, data, heat: expected }) => {
    const heat = heatOf(counts, capacity);
    expect([heat.width, heat.points, heat.steps]).toEqual([expected.width, expected.points, expected.steps]);
    const loaded = Heat.fromData({ ...data, steps: view(data.steps), values: view(data.values) } as HeatData, capacity);
    expect([loaded.width, loaded.points, loaded.steps]).toEqual([expected.width, expected.points, expected.steps]);
    expected.columns.forEach((column, i) => {
      column.forEach((share, bin) => {
        expect(heat.columns[i]?.[bin]).toBeCloseTo(share, 12);
        expect(loaded.columns[i]?.[bin]).toBe(Math.fround(share));
      });
    });
    // What was loaded and what was watched go on alike.
    for (const one of [heat, loaded]) one.add(10_001, [1, 2, 1]);
    expect([loaded.width, loaded.steps]).toEqual([heat.width, heat.steps]);
  });
});

describe("HeatHistory", () => {
  it("gives the place of training batches to held-out data for good", () => {
    const history = new HeatHistory();
    history.add(histogram(1, [1, 0, 0]));
    history.add(histogram(2, [0, 1, 0], "held-out"));
    history.add(histogram(3, [0, 0, 1]));
    const heat = history.heats.get("margin");
    expect([heat?.source, heat?.steps, heat?.columns]).toEqual(["held-out", [2], [[0, 1, 0]]]);
  });
});

describe("stepEdges", () => {
  it.each([
    [[], []],
    [[7], [6, 7]],
    [
      [2, 4, 6],
      [0, 2, 4, 6],
    ],
    // The first column is as wide as the second, but nothing lies before step 0.
    [
      [10, 30],
      [0, 10, 30],
    ],
    // The last column may not be full yet.
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

  it("is the one that holds the step, else the nearest", () => {
    expect(heat.steps).toEqual([2, 4, 5]);
    expect([0, 1, 2, 3, 4, 5, 99].map((step) => columnAt(heat, step)?.step)).toEqual([2, 2, 2, 4, 4, 5, 5]);
    expect(columnAt(heat, 3)?.shares).toEqual([0, 1, 0]);
  });

  it("is none where there is nothing", () => {
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
    // The outer bins hold what lies beyond them: beyond the axis nothing can be told apart.
    [1.5, 9, 0],
    [0.5, 9, 50],
    [-9, -0.5, 20],
    [0.5, 1, 25],
  ])("from %d to %d is %d percent", (low, high, percent) => {
    expect(shareBetween(heat, shares, low, high)).toBeCloseTo(percent, 9);
  });
});

describe("heatTrace", () => {
  it("has a row a bin, a column an edge less, and the root of the percent", () => {
    const heat = heatOf([
      [1, 0, 3],
      [0, 1, 0],
    ]);
    const { x, y, z, zmax } = heatTrace(heat, "#000", { surface: "#fff" } as Theme) as Record<string, number[]>;
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
