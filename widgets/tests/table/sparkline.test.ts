import { describe, expect, it } from "vitest";
import { sparkPoints } from "../../src/table/sparkline";

describe("sparkPoints", () => {
  it("run from left to right, with the highest value at the top and a constant in the middle", () => {
    expect(sparkPoints([0, 1, 0.5], 100, 20, 0)).toEqual([
      [0, 20],
      [50, 0],
      [100, 10],
    ]);
    expect(sparkPoints([3, 3], 100, 20, 0)).toEqual([
      [0, 10],
      [100, 10],
    ]);
    expect(sparkPoints([5], 100, 20, 0)).toEqual([[50, 10]]);
    expect(sparkPoints([Number.NaN])).toEqual([]);
  });
});
