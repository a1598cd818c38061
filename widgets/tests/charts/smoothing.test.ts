import { describe, expect, it } from "vitest";
import { halfLifeSteps } from "../../src/charts/smoothing";

describe("halfLifeSteps", () => {
  it("is a share of the run, and doubles with each step of the slider", () => {
    expect([1, 2, 3].map((smoothing) => halfLifeSteps(smoothing, 400))).toEqual([4, 8, 16]);
    expect(halfLifeSteps(1, 4000)).toBe(40);
    expect(halfLifeSteps(1, 10)).toBe(1); // as for a run of 100 steps
    expect(halfLifeSteps(0, 400)).toBe(0);
  });
});
