import { describe, expect, it, vi } from "vitest";
import type { RunDetail } from "../../src/lib/events";
import { isRunDetail, Runs, statusTexts } from "../src/runs";

const RUN: RunDetail = {
  ...{ epoch: "a", status: "running", step: 1, steps: 100, loss: "dpo v1", metric: null, failed: null, element: null },
  stop: async () => "",
};

const run = (epoch: string, change: Partial<RunDetail> = {}): RunDetail => ({ ...RUN, epoch, ...change });

describe("Runs", () => {
  it("shows a run that is running or paused", () => {
    const runs = new Runs();
    expect(runs.shown()).toBeNull();
    runs.update(run("a", { status: "ready" }));
    expect(runs.shown()).toBeNull();
    runs.update(run("a", { step: 7 }));
    expect(runs.shown()?.step).toBe(7);
    runs.update(run("a", { status: "paused" }));
    expect(runs.shown()?.status).toBe("paused");
    for (const status of ["stopped", "finished", "gone"] as const) {
      runs.update(run("a"));
      runs.update(run("a", { status }));
      expect(runs.shown()).toBeNull();
    }
  });

  it("lists the running runs, the one that changed last first", () => {
    const runs = new Runs();
    runs.update(run("a"));
    runs.update(run("b"));
    runs.update(run("c", { status: "paused" }));
    expect(runs.running().map(({ epoch }) => epoch)).toEqual(["b", "a"]);
    runs.update(run("a", { loss: "ipo v1" }));
    runs.update(run("b", { step: 9 }));
    expect(runs.running().map(({ epoch, step }) => [epoch, step])).toEqual([
      ["a", 1],
      ["b", 9],
    ]);
    runs.update(run("a", { status: "gone" }));
    runs.update(run("b", { status: "stopped" }));
    expect(runs.running()).toEqual([]);
  });

  it("lists a run once, however many widgets show it", () => {
    const runs = new Runs();
    const element = { isConnected: true } as HTMLElement;
    runs.update(run("hidden", { run: "1" }));
    runs.update(run("shown", { run: "1", element }));
    runs.update(run("later", { run: "1" }));
    runs.update(run("other", { run: "2" }));
    runs.update(run("of an earlier version"));
    expect(runs.running().map(({ epoch }) => epoch)).toEqual(["of an earlier version", "other", "shown"]);
    runs.update(run("shown", { run: "1", status: "gone" }));
    expect(runs.running().map(({ epoch }) => epoch)).toEqual(["of an earlier version", "other", "later"]);
  });

  it("prefers a running run, and of several the one that changed last", () => {
    const runs = new Runs();
    runs.update(run("a"));
    runs.update(run("b"));
    runs.update(run("c", { status: "paused" }));
    expect(runs.shown()?.epoch).toBe("b");
    runs.update(run("a", { step: 2 })); // a step is no change: the bar would switch between two running runs several times a second
    expect(runs.shown()?.epoch).toBe("b");
    runs.update(run("a", { step: 3, loss: "dpo v2" }));
    expect(runs.shown()?.epoch).toBe("a");
    runs.update(run("a", { status: "finished" }));
    runs.update(run("b", { status: "finished" }));
    expect(runs.shown()?.epoch).toBe("c");
  });

  it("removes the runs of a kernel that ended, and notifies", () => {
    const runs = new Runs();
    const listener = vi.fn();
    runs.update(run("a"));
    runs.update(run("b"));
    const unsubscribe = runs.subscribe(listener);
    runs.remove(({ epoch }) => epoch === "b");
    expect(runs.shown()?.epoch).toBe("a");
    expect(listener).toHaveBeenCalledTimes(1);
    unsubscribe();
    runs.update(run("a"));
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("lists the losses whose failure paused a run", () => {
    const runs = new Runs();
    runs.update(run("a", { status: "paused", failed: "mine" }));
    runs.update(run("b"));
    expect(runs.failures()).toEqual([{ name: "mine", element: null }]);
    runs.update(run("a", { failed: null }));
    expect(runs.failures()).toEqual([]);
  });
});

describe("statusTexts", () => {
  it("shows the state and the progress", () => {
    const metric = { name: "held-out pair_accuracy", value: 0.9 };
    expect(statusTexts(run("a", { step: 1200, steps: 4000, metric }))).toEqual({
      ...{ state: "", step: "step 1,200 / 4,000", loss: "dpo v1", metric: "held-out pair_accuracy 0.900" },
    });
    expect(statusTexts(run("a", { steps: 0 })).step).toBe("step 1");
    expect(statusTexts(run("a", { status: "paused" })).state).toBe("paused");
    expect(statusTexts(run("a", { status: "paused", failed: "mine" })).state).toBe("failed");
  });
});

it("ignores events of another form", () => {
  expect(isRunDetail(run("a"))).toBe(true);
  expect(isRunDetail({ ...run("a"), loss: undefined })).toBe(false);
  for (const other of [null, undefined, "a", {}, { epoch: "a" }]) expect(isRunDetail(other)).toBe(false);
});
