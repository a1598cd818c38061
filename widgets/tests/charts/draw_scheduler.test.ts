import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DrawScheduler } from "../../src/charts/draw_scheduler";

describe("DrawScheduler", () => {
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

  /** Each drawing takes `cost` milliseconds. */
  const scheduler = () =>
    new DrawScheduler(() => {
      drawn.push(clock);
      clock += cost;
      return false;
    });

  it("draws the first records at once and the next after a pause", () => {
    cost = 0;
    const one = scheduler();
    one.drawLater();
    pass(20);
    expect(drawn).toHaveLength(1);
    for (let i = 0; i < 10; i++) {
      one.drawLater();
      pass(20);
    }
    expect(drawn).toHaveLength(1);
    pass(100);
    expect(drawn).toHaveLength(2);
    expect((drawn[1] as number) - (drawn[0] as number)).toBeGreaterThanOrEqual(250);
  });

  it("pauses ten times as long as drawing took", () => {
    cost = 60;
    const one = scheduler();
    one.drawLater();
    pass(100);
    one.drawLater();
    pass(400);
    expect(drawn).toHaveLength(1);
    pass(300);
    expect(drawn).toHaveLength(2);
  });

  it("draws a requested change in the next frame, instead of later", () => {
    cost = 60;
    const one = scheduler();
    one.drawNext();
    pass(100);
    one.drawLater();
    one.drawNext();
    pass(20);
    expect(drawn).toHaveLength(2);
    pass(3000);
    expect(drawn).toHaveLength(2);
  });

  it("waits once however often it is asked, so that dispose ends the wait", () => {
    const one = scheduler();
    one.drawNext();
    pass(20);
    for (let i = 0; i < 3; i++) one.drawLater();
    one.dispose();
    pass(1000);
    expect(drawn).toHaveLength(1);
  });

  it("draws nothing after dispose", () => {
    const one = scheduler();
    one.drawNext();
    one.dispose();
    pass(1000);
    expect(drawn).toEqual([]);
  });

  it.each([
    [0, 250],
    [25, 250],
    [26, 260],
    [150, 1500],
    [200, 2000],
    [500, 2000],
  ])("after a drawing of %d ms pauses %d ms, not one more or less", (drawingMs, pauseMs) => {
    cost = drawingMs;
    const one = scheduler();
    one.drawNext();
    pass(16);
    const endMs = clock;
    cost = 0;
    one.drawLater();
    one.drawLater();
    pass(pauseMs + 15);
    expect(drawn).toHaveLength(1);
    pass(1);
    expect((drawn[1] as number) - endMs).toBe(pauseMs + 16); // the pause and a frame
    pass(3000);
    expect(drawn).toHaveLength(2);
  });

  it("draws at once if the pause is over, also exactly then", () => {
    const one = scheduler();
    one.drawNext();
    pass(16 + 250);
    one.drawLater();
    pass(16);
    expect(drawn).toHaveLength(2);
  });

  it("continues an unfinished drawing in the next frame, and pauses for the time of all of its frames", () => {
    const one = new DrawScheduler(() => {
      drawn.push(clock);
      clock += 20;
      return drawn.length < 3;
    });
    one.drawNext();
    pass(48);
    expect(drawn).toHaveLength(3);
    const endMs = clock;
    one.drawLater();
    pass(615);
    expect(drawn).toHaveLength(3);
    pass(1);
    expect((drawn[3] as number) - endMs).toBe(600 + 16);
  });

  it("draws once for many requests in one frame", () => {
    const one = scheduler();
    for (let i = 0; i < 5; i++) one.drawNext();
    one.drawLater();
    pass(500);
    expect(drawn).toHaveLength(1);
  });

  it("draws no pause that is still to come after dispose", () => {
    const one = scheduler();
    one.drawNext();
    pass(16);
    one.drawLater();
    one.dispose();
    pass(3000);
    expect(drawn).toHaveLength(1);
  });
});
