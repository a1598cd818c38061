import { describe, expect, it } from "vitest";
import { Heat, HeatHistory } from "../src/heat";
import type { HeatData, Histogram } from "../src/messages";
import cases from "./heat_twin.json";
import { bytesBuffer } from "./support";

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
