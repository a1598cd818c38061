import { describe, expect, it } from "vitest";
import { Heat, HeatHistory, MAX_COLUMNS } from "../src/heat";
import type { HeatData, Histogram } from "../src/messages";
import cases from "./heat_twin.json";
import { bytesBuffer, float32Buffer, float64Buffer } from "./support";

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
  it("gives every histogram the same weight when neighbours merge", () => {
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

  it.each(cases)("agrees with the kernel: $name", ({ capacity, counts, data, heat: expected }) => {
    const heat = heatOf(counts, capacity);
    expect([heat.width, heat.points, heat.steps]).toEqual([expected.width, expected.points, expected.steps]);
    const loaded = Heat.fromData(
      { ...data, steps: bytesBuffer(data.steps), values: bytesBuffer(data.values) } as HeatData,
      capacity,
    );
    expect([loaded.width, loaded.points, loaded.steps]).toEqual([expected.width, expected.points, expected.steps]);
    expected.columns.forEach((column, i) => {
      column.forEach((share, bin) => {
        expect(heat.columns[i]?.[bin]).toBeCloseTo(share, 12);
        expect(loaded.columns[i]?.[bin]).toBe(Math.fround(share));
      });
    });
    // A loaded heat map and one that followed the run continue in the same way.
    for (const one of [heat, loaded]) one.add(10_001, [1, 2, 1]);
    expect([loaded.width, loaded.steps]).toEqual([heat.width, heat.steps]);
  });
});

describe("HeatHistory", () => {
  it("replaces training batches by held-out data for good", () => {
    const history = new HeatHistory();
    history.add(histogram(1, [1, 0, 0]));
    history.add(histogram(2, [0, 1, 0], "held-out"));
    history.add(histogram(3, [0, 0, 1]));
    const heat = history.heats.get("margin");
    expect([heat?.source, heat?.steps, heat?.columns]).toEqual(["held-out", [2], [[0, 1, 0]]]);
  });
});

describe("Heat in detail", () => {
  it("leaves out a histogram without counts", () => {
    const heat = heatOf([
      [0, 0, 0],
      [0, 3, 1],
    ]);
    expect([heat.points, heat.steps, heat.columns]).toEqual([1, [2], [[0, 0.75, 0.25]]]);
  });

  it("has the mean of a column that is not full, at its last step", () => {
    const ones = [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [1, 0, 0],
      [1, 0, 0],
      [0, 0, 2],
      [0, 5, 0],
    ];
    const heat = heatOf(ones, 2); // columns of four: the first four and the last three
    const third = expect.closeTo(1 / 3, 12);
    expect([heat.width, heat.points, heat.steps]).toEqual([4, 7, [4, 7]]);
    expect(heat.columns).toEqual([
      [0.5, 0.25, 0.25],
      [third, third, third],
    ]);
  });

  it("has 128 columns at most", () => {
    const heat = new Heat(0, 1, 1, "training");
    for (let step = 1; step <= 128; step++) heat.add(step, [1]);
    expect([MAX_COLUMNS, heat.steps.length, heat.width]).toEqual([128, 128, 1]);
    heat.add(129, [1]);
    expect([heat.steps.length, heat.width, heat.steps[0], heat.steps.at(-1)]).toEqual([65, 2, 2, 129]);
  });
});

describe("HeatHistory in detail", () => {
  it("keeps the bins of a histogram, one heat map for each name", () => {
    const history = new HeatHistory();
    history.add({ ...histogram(3, [1, 1, 2]), start: -3, width: 2 });
    history.add({ ...histogram(4, [1, 0, 0]), name: "other" });
    history.add(histogram(5, [0, 1, 0]));
    const heat = history.heats.get("margin");
    expect(heat).toMatchObject({ start: -3, bin: 2, bins: 3, source: "training", steps: [3, 5], points: 2 });
    expect(heat?.columns).toEqual([
      [0.25, 0.25, 0.5],
      [0, 1, 0],
    ]);
    expect(history.heats.get("other")?.steps).toEqual([4]);
  });

  it("is read from a snapshot", () => {
    const data = {
      ...{ name: "margin", start: -1, bin: 0.5, bins: 2, width: 4, points: 7, source: "held-out" },
      ...{ steps: float64Buffer([4, 7]), values: float32Buffer([1, 0, 0.25, 0.75]) },
    };
    const history = HeatHistory.fromData([data, { ...data, name: "other" }]);
    expect([...history.heats.keys()]).toEqual(["margin", "other"]);
    expect(history.heats.get("margin")).toMatchObject({
      ...{ start: -1, bin: 0.5, bins: 2, width: 4, points: 7, source: "held-out", steps: [4, 7], capacity: 128 },
      columns: [
        [1, 0],
        [0.25, 0.75],
      ],
    });
  });
});
