import { describe, expect, it, vi } from "vitest";
import type { State } from "../src/messages";
import { MultiRunStore } from "../src/multi_run_store";
import type { Compared, Result } from "../src/run_messages";
import { FakeKernel, float32Buffer, float64Buffer, STATE, snapshotOf } from "./support";

const LOSSES = { loss: [1, 2] };
const RESULT: Result = { step: 0, before: {}, final: {} };

const comparison = (...labels: string[]): Compared => ({
  ...{ recipe: "preference", batch_before_training: true },
  runs: labels.map((label) => ({ label, result: RESULT, snapshot: snapshotOf(LOSSES, {}, { epoch: label }) })),
});

describe("MultiRunStore of a comparison", () => {
  it("delivers each message to its run, and requests missed ones with the number of the run", () => {
    const kernel = new FakeKernel({ compared: comparison("a", "b") });
    const store = new MultiRunStore(kernel);
    expect(kernel.asked).toEqual([
      { type: "sync", since: 2, epoch: "a", run: 0 },
      { type: "sync", since: 2, epoch: "b", run: 1 },
    ]);
    const message = {
      ...{ type: "update", epoch: "b", number: 2, first: 2, count: 1, columns: ["loss"], histograms: [], full: true },
      state: { ...STATE, steps_done: 3 },
    };
    const onChange = vi.fn();
    store.subscribe(onChange);
    const ofRun = { type: "of_run", run: 1, result: { ...RESULT, step: 3 }, message };
    kernel.say(ofRun, [float64Buffer([3]), float32Buffer([7])]);
    expect(store.runs.map((run) => run.store.history.series.get("loss")?.mean)).toEqual([
      [1, 2],
      [1, 2, 7],
    ]);
    expect(store.runs.map((run) => run.result?.step)).toEqual([0, 3]);
    expect(onChange).toHaveBeenCalled();
    kernel.say({ ...ofRun, run: 5 }, []);
    store.dispose();
    expect(kernel.handlers.size).toBe(0);
  });

  it("accepts a snapshot whose buffers travel beside it", () => {
    const kernel = new FakeKernel({ compared: comparison("a", "b") });
    const store = new MultiRunStore(kernel);
    const snapshot = snapshotOf({ loss: [0, 0] }, {}, { epoch: "new", number: 9 });
    for (const data of snapshot.series) Object.assign(data, { steps: "", values: "" });
    const buffers = [float64Buffer([1, 2]), float32Buffer([5, 6])];
    kernel.say({ type: "of_run", run: 0, result: null, message: snapshot }, buffers);
    expect(store.runs[0]?.store.epoch).toBe("new");
    expect(store.runs[0]?.store.history.series.get("loss")?.mean).toEqual([5, 6]);
  });

  it.each<[State["status"], State["status"], State["status"]]>([
    ["running", "finished", "running"],
    ["paused", "finished", "paused"],
    ["ready", "stopped", "ready"],
    ["stopped", "finished", "stopped"],
  ])("with a %s and a %s run is %s", (one, other, expected) => {
    const runs = [one, other].map((status) => ({
      label: status,
      result: RESULT,
      snapshot: snapshotOf({}, { status }),
    }));
    expect(new MultiRunStore(new FakeKernel({ compared: { ...comparison(), runs } })).status).toBe(expected);
  });

  it("reports a late answer, until it arrives", () => {
    vi.useFakeTimers();
    const kernel = new FakeKernel({ compared: comparison() });
    const store = new MultiRunStore(kernel);
    const onChange = vi.fn();
    store.subscribe(onChange);
    void store.request({ type: "start" });
    vi.advanceTimersByTime(1000);
    expect([store.late, onChange.mock.calls.length]).toEqual([false, 0]);
    vi.advanceTimersByTime(1000);
    expect([store.late, onChange.mock.calls.length]).toEqual([true, 1]);
    kernel.reply("");
    expect(store.late).toBe(false);
    void store.request({ type: "stop" });
    store.dispose();
    vi.advanceTimersByTime(5000);
    expect(store.late).toBe(false);
    vi.useRealTimers();
  });
});

describe("MultiRunStore of a table", () => {
  const shown = (name: string) => ({ name, snapshot: snapshotOf(LOSSES, {}, { epoch: name }) });

  it("keeps the runs that stay listed and disposes of the others", async () => {
    const kernel = new FakeKernel({ shown: [shown("a"), shown("b")] });
    const store = new MultiRunStore(kernel);
    const [first, second] = store.runs;
    const dispose = vi.spyOn((second as (typeof store.runs)[number]).store, "dispose");
    kernel.set("shown", [shown("a"), shown("c")]);
    expect(store.runs.map((run) => run.label)).toEqual(["a", "c"]);
    expect(store.runs[0]).toBe(first);
    expect(dispose).toHaveBeenCalledOnce();
    const answer = store.request({ type: "open", name: "x" });
    kernel.reply("there is no such run");
    await answer;
    expect(store.refusal).toBe("there is no such run");
  });

  it("sends nothing about runs that are read from folders", () => {
    const kernel = new FakeKernel({ shown: [shown("a")], opened: shown("b") });
    new MultiRunStore(kernel);
    expect(kernel.asked).toEqual([]);
  });

  it("follows the open run", () => {
    const kernel = new FakeKernel({ opened: shown("a") });
    const store = new MultiRunStore(kernel);
    const onChange = vi.fn();
    store.subscribe(onChange);
    expect(store.opened?.label).toBe("a");
    kernel.set("opened", null);
    expect([store.opened, onChange.mock.calls.length]).toEqual([null, 1]);
  });

  it("notifies about changes of the given traits only", () => {
    const kernel = new FakeKernel({ listing: { folder: "runs" } });
    const store = new MultiRunStore(kernel, ["listing"]);
    const onChange = vi.fn();
    store.subscribe(onChange);
    kernel.set("listing", { folder: "other" });
    kernel.set("cosines", {});
    expect(onChange).toHaveBeenCalledOnce();
    expect(store.trait("listing")).toEqual({ folder: "other" });
    expect(store.trait("missing")).toBeNull();
  });
});

describe("MultiRunStore in detail", () => {
  const ofFolder = (name: string) => ({ name, snapshot: snapshotOf(LOSSES, {}, { epoch: name }) });

  it("starts with the view that shows everything, and without a refusal", () => {
    const store = new MultiRunStore(new FakeKernel({}));
    expect([store.view, store.refusal, store.opened, store.runs, store.status, store.late]).toEqual([
      { smoothing: 1, more: false, hidden: new Set() },
      ...["", null, [], "ready", false],
    ]);
  });

  it("keeps the result of a run until a message has another", () => {
    const kernel = new FakeKernel({ compared: comparison("a") });
    const store = new MultiRunStore(kernel);
    const losses = { type: "losses", losses: [] };
    kernel.say({ type: "of_run", run: 0, result: { ...RESULT, step: 3 }, message: losses });
    kernel.say({ type: "of_run", run: 0, result: null, message: losses });
    expect(store.runs[0]?.result).toEqual({ ...RESULT, step: 3 });
  });

  it("notifies once for a message, and not for one of a kind it does not know to a run", () => {
    const kernel = new FakeKernel({ compared: comparison("a", "b") });
    const store = new MultiRunStore(kernel);
    const onChange = vi.fn();
    store.subscribe(onChange);
    kernel.say({ type: "of_run", run: 1, result: null, message: { type: "losses", losses: [{ name: "x" }] } });
    expect([onChange.mock.calls.length, store.runs.map((run) => run.store.losses.length)]).toEqual([1, [0, 1]]);
  });

  it("sends requests of a run with its number, and its own without", async () => {
    const kernel = new FakeKernel({ compared: comparison("a", "b") });
    const store = new MultiRunStore(kernel);
    kernel.asked.length = 0;
    void store.runs[1]?.store.request({ type: "csv" });
    expect(kernel.asked).toMatchObject([{ type: "csv", run: 1 }]);
    const onChange = vi.fn();
    store.subscribe(onChange);
    const answered = store.request({ type: "start" });
    expect(kernel.asked.at(-1)).not.toHaveProperty("run");
    kernel.reply("no");
    await answered;
    expect([store.refusal, onChange.mock.calls.length]).toEqual(["no", 2]); // by the message, and by the refusal
    const again = store.request({ type: "start" });
    kernel.reply("");
    await again;
    expect(store.refusal).toBe("");
  });

  it("has the most active status of its runs", () => {
    const statuses: State["status"][] = ["finished", "stopped", "ready", "paused", "running"];
    const status = (runs: State["status"][]) => {
      const compared = {
        ...comparison(),
        runs: runs.map((one) => ({ label: one, result: RESULT, snapshot: snapshotOf({}, { status: one }) })),
      };
      return new MultiRunStore(new FakeKernel({ compared })).status;
    };
    expect(statuses.map((_, i) => status(statuses.slice(0, i + 1)))).toEqual(statuses);
  });

  it("counts a run without a state as ready", () => {
    const kernel = new FakeKernel({ shown: [ofFolder("a")] });
    const store = new MultiRunStore(kernel);
    expect(store.status).toBe("running");
    Object.assign(store.runs[0]?.store ?? {}, { state: null });
    expect(store.status).toBe("ready");
  });

  it("shows the runs of a comparison before those of folders, and has a trait's value or null", () => {
    const kernel = new FakeKernel({ compared: comparison("a"), shown: [ofFolder("b")], zero: 0 });
    const store = new MultiRunStore(kernel);
    expect(store.runs.map(({ label, result }) => [label, result])).toEqual([
      ["a", RESULT],
      ["b", null],
    ]);
    expect([store.trait("zero"), store.trait("nothing")]).toEqual([0, null]);
  });

  it("disposes of the open run when another is opened, and notifies", () => {
    const kernel = new FakeKernel({ opened: ofFolder("a") });
    const store = new MultiRunStore(kernel);
    const first = store.opened?.store as NonNullable<typeof store.opened>["store"];
    const dispose = vi.spyOn(first, "dispose");
    const onChange = vi.fn();
    store.subscribe(onChange);
    kernel.set("opened", ofFolder("b"));
    expect([store.opened?.label, store.opened?.result, dispose.mock.calls.length, onChange.mock.calls.length]).toEqual([
      ...["b", null, 1, 1],
    ]);
    kernel.set("shown", [ofFolder("c")]);
    expect(onChange).toHaveBeenCalledTimes(2);
  });

  it("is deaf after dispose, with all of its runs", () => {
    const kernel = new FakeKernel({ compared: comparison("a", "b"), opened: ofFolder("c") });
    const store = new MultiRunStore(kernel, ["listing"]);
    const stores = [...store.runs.map((run) => run.store), store.opened?.store as (typeof store.runs)[0]["store"]];
    const spies = stores.map((one) => vi.spyOn(one, "dispose"));
    const onChange = vi.fn();
    const leave = store.subscribe(onChange);
    expect([...kernel.handlers.keys()]).toEqual(["msg:custom", "change:shown", "change:opened", "change:listing"]);
    store.dispose();
    store.notify();
    expect([kernel.handlers.size, spies.map(({ mock }) => mock.calls.length), onChange.mock.calls]).toEqual([
      0,
      [1, 1, 1],
      [],
    ]);
    leave();
  });

  it("delivers nothing to a run that was disposed of", () => {
    const kernel = new FakeKernel({ compared: comparison("a") });
    const store = new MultiRunStore(kernel);
    const onChange = vi.fn();
    store.runs[0]?.store.subscribe(onChange);
    const leave = store.subscribe(onChange);
    leave();
    store.runs[0]?.store.dispose();
    kernel.say({ type: "of_run", run: 0, result: null, message: { type: "losses", losses: [{ name: "x" }] } });
    expect([onChange.mock.calls, store.runs[0]?.store.losses]).toEqual([[], []]);
  });
});
