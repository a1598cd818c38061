// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { halfLifeSteps, smoothingSlider } from "../../src/charts/smoothing";

describe("halfLifeSteps", () => {
  it("is a share of the run, and doubles with each step of the slider", () => {
    expect([1, 2, 3].map((smoothing) => halfLifeSteps(smoothing, 400))).toEqual([4, 8, 16]);
    expect(halfLifeSteps(1, 4000)).toBe(40);
    expect(halfLifeSteps(1, 10)).toBe(1); // as for a run of 100 steps
    expect(halfLifeSteps(0, 400)).toBe(0);
  });
});

describe("the half-life of smoothing", () => {
  it.each([
    [0, 1000, 0],
    [0.5, 200, Math.SQRT2],
    [1, 400, 4],
    [3, 400, 16],
    [1, 100, 1],
    [1, 5, 1],
    [1, 102, 1.02],
  ])("at %d of a run of %d steps is %d steps", (smoothing, total, steps) => {
    expect(halfLifeSteps(smoothing, total)).toBeCloseTo(steps, 12);
  });
});

describe("smoothingSlider", () => {
  it("goes from 0 to 3 in half steps, and reports a number", () => {
    const onChange = vi.fn();
    const slider = smoothingSlider("Smoothing", onChange);
    const { min, max, step } = slider;
    expect([min, max, step, slider.getAttribute("aria-label")]).toEqual(["0", "3", "0.5", "Smoothing"]);
    slider.value = "2.5";
    slider.dispatchEvent(new Event("input"));
    expect(onChange.mock.calls).toEqual([[2.5]]);
  });
});
