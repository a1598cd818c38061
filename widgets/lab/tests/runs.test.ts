import { describe, expect, it, vi } from "vitest";
import type { RunDetail } from "../../src/lib/events";
import { isRun, Runs, words } from "../src/runs";

const RUN: RunDetail = {
  ...{ epoch: "a", status: "running", step: 1, steps: 100, loss: "dpo v1", metric: null, failed: null, element: null },
  stop: async () => "",
};

const run = (epoch: string, change: Partial<RunDetail> = {}): RunDetail => ({ ...RUN, epoch, ...change });

describe("Runs", () => {
  it("shows a run while it is alive", () => {
    const runs = new Runs();
    expect(runs.shown()).toBeNull();
    runs.take(run("a", { status: "ready" }));
    expect(runs.shown()).toBeNull();
    runs.take(run("a", { step: 7 }));
    expect(runs.shown()?.step).toBe(7);
    runs.take(run("a", { status: "paused" }));
    expect(runs.shown()?.status).toBe("paused");
    for (const status of ["stopped", "finished", "gone"] as const) {
      runs.take(run("a"));
      runs.take(run("a", { status }));
      expect(runs.shown()).toBeNull();
    }
  });

  it("prefers the run at work, and of those the one that was changed last", () => {
    const runs = new Runs();
    runs.take(run("a"));
    runs.take(run("b"));
    runs.take(run("c", { status: "paused" }));
    expect(runs.shown()?.epoch).toBe("b");
    runs.take(run("a", { step: 2 })); // a step is no change: two runs at work would take turns several times a second
    expect(runs.shown()?.epoch).toBe("b");
    runs.take(run("a", { step: 3, loss: "dpo v2" }));
    expect(runs.shown()?.epoch).toBe("a");
    runs.take(run("a", { status: "finished" }));
    runs.take(run("b", { status: "finished" }));
    expect(runs.shown()?.epoch).toBe("c");
  });

  it("forgets what a kernel took with it, and tells", () => {
    const runs = new Runs();
    const listener = vi.fn();
    runs.take(run("a"));
    runs.take(run("b"));
    const unsubscribe = runs.subscribe(listener);
    runs.forget(({ epoch }) => epoch === "b");
    expect(runs.shown()?.epoch).toBe("a");
    expect(listener).toHaveBeenCalledTimes(1);
    unsubscribe();
    runs.take(run("a"));
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("knows the losses that hold runs up", () => {
    const runs = new Runs();
    runs.take(run("a", { status: "paused", failed: "mine" }));
    runs.take(run("b"));
    expect(runs.failures()).toEqual([{ name: "mine", element: null }]);
    runs.take(run("a", { failed: null }));
    expect(runs.failures()).toEqual([]);
  });
});

describe("words", () => {
  it("says where a run is", () => {
    const metric = { name: "held-out pair_accuracy", value: 0.9 };
    expect(words(run("a", { step: 1200, steps: 4000, metric }))).toEqual({
      ...{ state: "", step: "step 1,200 / 4,000", loss: "dpo v1", metric: "held-out pair_accuracy 0.900" },
    });
    expect(words(run("a", { steps: 0 })).step).toBe("step 1");
    expect(words(run("a", { status: "paused" })).state).toBe("paused");
    expect(words(run("a", { status: "paused", failed: "mine" })).state).toBe("failed");
  });
});

it("hears what is a run", () => {
  expect(isRun(run("a"))).toBe(true);
  expect(isRun({ ...run("a"), loss: undefined })).toBe(false);
  for (const other of [null, undefined, "a", {}, { epoch: "a" }]) expect(isRun(other)).toBe(false);
});
