import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Pace } from "../src/charts/pace";

describe("Pace", () => {
  let clock = 0;
  let cost = 0;
  let drawn: number[] = [];

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("window", globalThis);
    vi.stubGlobal("requestAnimationFrame", (draw: () => void) => setTimeout(draw, 16));
    vi.stubGlobal("cancelAnimationFrame", clearTimeout);
    vi.stubGlobal("performance", { now: () => clock });
    clock = cost = 0;
    drawn = [];
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  const pass = (milliseconds: number) => {
    for (let i = 0; i < milliseconds; i++) {
      clock += 1;
      vi.advanceTimersByTime(1);
    }
  };

  /** Work that takes `cost` milliseconds. */
  const pace = () =>
    new Pace(() => {
      drawn.push(clock);
      clock += cost;
      return false;
    });

  it("draws the first news at once and the next after a rest", () => {
    cost = 0;
    const one = pace();
    one.later();
    pass(20);
    expect(drawn).toHaveLength(1);
    for (let i = 0; i < 10; i++) {
      one.later();
      pass(20);
    }
    expect(drawn).toHaveLength(1);
    pass(100);
    expect(drawn).toHaveLength(2);
    expect((drawn[1] as number) - (drawn[0] as number)).toBeGreaterThanOrEqual(250);
  });

  it("rests ten times as long as drawing took", () => {
    cost = 60;
    const one = pace();
    one.later();
    pass(100);
    one.later();
    pass(400);
    expect(drawn).toHaveLength(1);
    pass(300);
    expect(drawn).toHaveLength(2);
  });

  it("draws what a person wants in the next frame, in place of what was due later", () => {
    cost = 60;
    const one = pace();
    one.soon();
    pass(100);
    one.later();
    one.soon();
    pass(20);
    expect(drawn).toHaveLength(2);
    pass(3000);
    expect(drawn).toHaveLength(2);
  });

  it("draws nothing after it was disposed", () => {
    const one = pace();
    one.soon();
    one.dispose();
    pass(1000);
    expect(drawn).toEqual([]);
  });
});
