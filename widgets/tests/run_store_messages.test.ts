import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { HeatData, Histogram, Snapshot, Update } from "../src/messages";
import { RunStore } from "../src/run_store";
import {
  FakeKernel,
  float32Buffer,
  float64Buffer,
  lossEntry,
  metricChart,
  SNAPSHOT,
  STATE,
  snapshotOf,
} from "./support";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A store with records 1 and 2 of run "a" after message 5, whose first "sync" request was answered. */
function scene(other: Partial<Snapshot> = {}) {
  const kernel = new FakeKernel({ snapshot: snapshotOf({ loss: [10, 20] }, {}, { number: 5, ...other }) });
  const store = new RunStore(kernel);
  const onChange = vi.fn();
  const syncs = () => kernel.asked.filter(({ type }) => type === "sync");
  const losses = () => store.history.series.get("loss")?.mean;
  const steps = () => store.history.series.get("loss")?.steps;
  /** An update with the records from `first` on, whose losses are 10 times their step. */
  const update = (number: number, first: number, count: number, change: Partial<Update> = {}) => {
    const values = Array.from({ length: count }, (_, i) => first + i + 1);
    const message: Update = {
      ...{ type: "update", epoch: "a", number, first, count, columns: ["loss"], full: false, histograms: [] },
      ...{ state: { steps_done: first + count }, ...change },
    };
    kernel.say(message, [float64Buffer(values), float32Buffer(values.map((step) => 10 * step))]);
  };
  update(6, 2, 0, { full: true });
  kernel.asked.length = 0;
  store.subscribe(onChange);
  return { kernel, store, onChange, syncs, losses, steps, update };
}

describe("a rewind", () => {
  it("arrives as a snapshot with another epoch, with the faint curves after all other buffers", () => {
    const { kernel, store, losses, update, syncs } = scene();
    const steps = float64Buffer([1, 2]);
    const empty = { width: 1, points: 2, steps: float64Buffer([]), values: float32Buffer([]) };
    const left = { label: "before rewind to 1", step: 1, breaks: [], series: [{ name: "loss", ...empty }] };
    const series = [{ name: "loss", ...empty, points: 1 }];
    const message = { ...SNAPSHOT, epoch: "b", number: 7, seen: 1, series, branches: [left], branches_left_out: 2 };
    kernel.say(message, [float64Buffer([1]), float32Buffer([10]), steps, float32Buffer([10, 20])]);
    expect([store.epoch, store.seen, losses()]).toEqual(["b", 1, [10]]);
    expect(store.branches.map(({ label }) => label)).toEqual(["before rewind to 1"]);
    expect([store.branches[0]?.series.get("loss")?.mean, store.branchesLeftOut]).toEqual([[10, 20], 2]);
    update(8, 1, 1, { epoch: "b" });
    expect([losses(), syncs()]).toEqual([[10, 20], []]);
  });

  it("makes messages of before it useless", () => {
    const { kernel, update, losses, syncs } = scene();
    kernel.say({ ...snapshotOf({}), epoch: "b", number: 7, seen: 0 }, []);
    update(8, 2, 1);
    expect([losses(), syncs()]).toEqual([undefined, [{ type: "sync", since: 0, epoch: "b" }]]);
  });
});

describe("the messages of a run", () => {
  it("are appended in their order", () => {
    const { store, update, losses, syncs, onChange } = scene();
    update(7, 2, 1);
    update(8, 3, 2);
    expect([losses(), store.seen, store.state?.steps_done, syncs()]).toEqual([[10, 20, 30, 40, 50], 5, 5, []]);
    expect([onChange.mock.calls.length, store.state?.loss]).toEqual([2, "dpo"]);
  });

  it("are ignored if they arrive twice, or late", () => {
    const { store, update, losses, syncs } = scene();
    update(7, 2, 1);
    update(7, 2, 1, { state: { steps_done: 99 } });
    update(6, 3, 1, { state: { steps_done: 98 } });
    expect([losses(), store.seen, store.state?.steps_done, syncs()]).toEqual([[10, 20, 30], 3, 3, []]);
  });

  it("with a gap are requested from the first missed record on", () => {
    const { store, update, losses, syncs } = scene();
    update(9, 4, 1);
    expect([losses(), store.seen, store.state?.steps_done]).toEqual([[10, 20], 2, 2]);
    expect(syncs()).toEqual([{ type: "sync", since: 2, epoch: "a" }]);
    update(10, 2, 3, { full: true, state: { ...STATE, steps_done: 5 } });
    expect([losses(), store.seen, store.state?.steps_done]).toEqual([[10, 20, 30, 40, 50], 5, 5]);
    update(11, 5, 1);
    expect([losses()?.length, syncs().length]).toEqual([6, 1]);
  });

  it("whose number has a gap are kept, and the state between is requested", () => {
    const { update, losses, syncs } = scene();
    update(8, 2, 1);
    expect([losses(), syncs()]).toEqual([[10, 20, 30], [{ type: "sync", since: 3, epoch: "a" }]]);
  });

  it("are requested again after two seconds without an answer, not before", () => {
    const { update, syncs } = scene();
    update(9, 4, 1);
    vi.advanceTimersByTime(1999);
    update(10, 5, 1);
    expect(syncs()).toHaveLength(1);
    vi.advanceTimersByTime(1);
    update(11, 6, 1);
    expect(syncs()).toHaveLength(2);
  });

  it("may be requested again at once after the answer", () => {
    const { update, syncs } = scene();
    update(9, 4, 1);
    update(10, 2, 3, { full: true });
    update(12, 9, 1);
    expect(syncs()).toMatchObject([{ since: 2 }, { since: 5 }]);
  });

  it("of which a part is known add the rest", () => {
    const { update, losses, steps, store } = scene();
    update(7, 0, 4);
    expect([losses(), steps(), store.seen]).toEqual([[10, 20, 30, 40], [1, 2, 3, 4], 4]);
    update(8, 1, 2);
    expect([losses()?.length, store.seen]).toEqual([4, 4]);
  });

  it("without their buffers are requested again", () => {
    const { kernel, syncs, losses, store } = scene();
    const message = { type: "update", epoch: "a", number: 7, first: 2, count: 1, columns: ["loss"], full: false };
    kernel.say({ ...message, histograms: [], state: {} }, [float64Buffer([3])]);
    expect([syncs().length, losses(), store.seen]).toEqual([1, [10, 20], 2]);
  });

  it("of another run are not mixed in", () => {
    const { update, syncs, losses, store } = scene();
    update(7, 2, 1, { epoch: "b", state: { steps_done: 77 } });
    expect([losses(), store.state?.steps_done, store.epoch]).toEqual([[10, 20], 2, "a"]);
    expect(syncs()).toEqual([{ type: "sync", since: 2, epoch: "a" }]);
  });

  it("replace the losses", () => {
    const { kernel, store, onChange } = scene();
    kernel.say({ type: "losses", losses: [lossEntry("mine")] });
    expect([store.losses.map(({ name }) => name), onChange.mock.calls.length]).toEqual([["mine"], 1]);
  });

  it("settle a request for a text", async () => {
    const { kernel, store } = scene();
    const text = store.requestText({ type: "csv" });
    const { request } = kernel.asked.at(-1) ?? {};
    expect(kernel.asked.at(-1)).toEqual({ type: "csv", request });
    kernel.say({ type: "document", request }, [new DataView(new TextEncoder().encode("a,b").buffer)]);
    expect(await text).toBe("a,b");
  });
});

describe("the histograms of a run", () => {
  const HEAT: HeatData = {
    ...{ name: "margin", start: -1, bin: 1, bins: 2, width: 1, points: 1, source: "training" },
    ...{ steps: float64Buffer([2]), values: float32Buffer([1, 0]) },
  };
  const histogram = (step: number, name = "margin"): Histogram => ({
    ...{ name, step, source: "training", start: -1, width: 1, counts: [1, 3], clip: null },
  });

  it("are added once each", () => {
    const { store, update } = scene({ heats: [HEAT] });
    update(7, 2, 1, { histograms: [histogram(2), histogram(3), histogram(3, "new")] });
    const steps = (name: string) => store.heats.heats.get(name)?.steps;
    expect([steps("margin"), steps("new")]).toEqual([[2, 3], [3]]);
    update(8, 3, 2, { histograms: [histogram(4), histogram(5)] });
    expect(steps("margin")).toEqual([2, 3, 4, 5]);
    update(9, 4, 1, { histograms: [histogram(6)] }); // its record is known
    expect(steps("margin")).toEqual([2, 3, 4, 5]);
  });
});

describe("a snapshot of a run", () => {
  const fresh = (change: Partial<Snapshot>): [Snapshot, DataView[]] => {
    const snapshot = snapshotOf({ loss: [1, 2, 3] }, { steps_done: 3 }, change);
    return [snapshot, [float64Buffer([1, 2, 3]), float32Buffer([1, 2, 3])]];
  };

  it("is ignored if the page is up to date and did not ask for it", () => {
    const { kernel, losses, store } = scene();
    kernel.say(...fresh({ number: 6 }));
    expect([losses(), store.state?.steps_done]).toEqual([[10, 20], 2]);
    kernel.say(...fresh({ number: 7 }));
    expect([losses(), store.state?.steps_done, store.seen]).toEqual([[1, 2, 3], 3, 3]);
  });

  it("is used if the page asked for it, unless it is older", () => {
    const { kernel, losses, update, syncs } = scene();
    update(9, 4, 1); // asks
    kernel.say(...fresh({ number: 5 }));
    expect(losses()).toEqual([10, 20]);
    kernel.say(...fresh({ number: 6 }));
    expect(losses()).toEqual([1, 2, 3]);
    update(12, 9, 1); // the answer ended the wait
    expect(syncs()).toHaveLength(2);
  });

  it("of another run replaces everything, whatever its number", () => {
    const { kernel, store, losses, update } = scene({ charts: [metricChart("old")] });
    const change = { epoch: "b", number: 1, charts: [metricChart("new")], losses: [lossEntry("x")] };
    kernel.say(...fresh({ ...change, metrics: { odd: { definition: "d", unit: "u" } } }));
    expect([store.epoch, losses(), store.charts.map(({ name }) => name)]).toEqual(["b", [1, 2, 3], ["new"]]);
    expect([store.losses.length, Object.keys(store.metrics), store.heats.heats.size]).toEqual([1, ["odd"], 0]);
    update(2, 3, 1, { epoch: "b" });
    expect(losses()).toEqual([1, 2, 3, 40]);
  });

  it("of another version says so, and one of this version ends that", () => {
    const { kernel, store, losses } = scene();
    kernel.say(...fresh({ epoch: "b", protocol: 1 }));
    const problem = "This page and the kernel run different versions of mint_lab. Reload the page.";
    expect([store.problem, losses()]).toEqual([problem, [10, 20]]);
    kernel.say(...fresh({ epoch: "b" }));
    expect([store.problem, losses()]).toEqual(["", [1, 2, 3]]);
  });

  it("needs two buffers for each curve", () => {
    const { store } = scene();
    const [snapshot, buffers] = fresh({ number: 9 });
    expect(() => store.receive(snapshot, buffers.slice(0, 1))).toThrow(
      "a snapshot with 1 buffers; expected two for each series and heat map",
    );
  });

  it("is requested at the start, with what the page has", () => {
    const kernel = new FakeKernel({ snapshot: snapshotOf({ loss: [1, 2] }) });
    new RunStore(kernel);
    expect(kernel.asked).toEqual([{ type: "sync", since: 2, epoch: "a" }]);
    const empty = new FakeKernel({});
    const store = new RunStore(empty);
    expect([empty.asked, store.state, store.tokens, store.samples]).toEqual([
      [{ type: "sync", since: 0, epoch: "" }],
      ...[null, null, null],
    ]);
  });
});

describe("a store", () => {
  it("has a view that shows everything but the folded parts", () => {
    const { view } = new RunStore(new FakeKernel({}));
    expect(view).toEqual({
      ...{ smoothing: 1, more: false, losses: false, tokens: false, by: "", samples: true, samplesBy: "", range: null },
      data: false,
      ...{ hidden: new Set(), log: new Set(), overTime: new Set(), large: "" },
    });
  });

  it("has the audit of the data, until it is disposed of", () => {
    const kernel = new FakeKernel({ audit: { status: "loading" } });
    const store = new RunStore(kernel);
    expect(store.audit).toEqual({ status: "loading" });
    let changes = 0;
    store.subscribe(() => {
      changes += 1;
    });
    kernel.set("audit", { status: "ready" });
    expect([store.audit, changes]).toEqual([{ status: "ready" }, 1]);
    store.dispose();
    kernel.set("audit", null);
    expect(store.audit).toEqual({ status: "ready" });
  });

  it("reports a change of the view, and counts it", () => {
    const { store, onChange } = scene();
    store.viewChanged();
    store.viewChanged();
    expect([store.viewChanges, onChange.mock.calls.length]).toEqual([2, 2]);
  });

  it("reports a late answer once", () => {
    const { store, onChange } = scene();
    void store.request({ type: "pause" });
    vi.advanceTimersByTime(1499);
    expect([store.late, onChange.mock.calls.length]).toEqual([false, 0]);
    vi.advanceTimersByTime(1);
    expect([store.late, onChange.mock.calls.length]).toEqual([true, 1]);
  });

  it("reports new tokens and samples", () => {
    const { kernel, store, onChange } = scene();
    kernel.set("tokens", { step: 1 });
    kernel.set("samples", { step: 2 });
    expect([store.tokens, store.samples, onChange.mock.calls.length]).toEqual([{ step: 1 }, { step: 2 }, 2]);
    kernel.set("tokens", null);
    kernel.set("samples", null);
    expect([store.tokens, store.samples]).toEqual([null, null]);
  });

  it("keeps a request for a pause while the run is running, and only then", () => {
    const { store, update } = scene();
    store.requestedStatus = "pause";
    update(7, 2, 1);
    expect(store.requestedStatus).toBe("pause");
    update(8, 3, 0, { state: { status: "paused" } });
    expect(store.requestedStatus).toBe("");
  });

  it("is deaf after dispose", async () => {
    const { store, kernel, onChange } = scene();
    const onDraft = vi.fn();
    store.onDraft(onDraft);
    const answered = vi.fn();
    void store.request({ type: "pause" }).then(answered);
    store.dispose();
    expect([...kernel.handlers.keys()]).toEqual([]);
    vi.advanceTimersByTime(5000);
    store.viewChanged();
    store.draft("beta", 1);
    await vi.advanceTimersByTimeAsync(0);
    expect([onChange, onDraft, answered].map(({ mock }) => mock.calls)).toEqual([[], [], []]);
    expect(store.late).toBe(false);
  });

  it("notifies every listener, also if one leaves meanwhile", () => {
    const { store } = scene();
    const called: string[] = [];
    const leave = store.subscribe(() => {
      called.push("first");
      leave();
    });
    store.subscribe(() => called.push("second"));
    store.viewChanged();
    store.viewChanged();
    expect(called).toEqual(["first", "second", "second"]);
  });
});

describe("drafts of settings", () => {
  const settings = (store: RunStore, number: number, change: Record<string, number>) =>
    store.receive(
      {
        ...{ type: "update", epoch: "a", number, first: 2, count: 0, columns: [], histograms: [], full: false },
        state: { settings: change },
      },
      [],
    );

  it("notify when they are chosen and dropped, and not when there is nothing to drop", () => {
    const { store } = scene();
    const onDraft = vi.fn();
    store.onDraft(onDraft);
    store.draft("beta", 1);
    store.dropDraft("beta");
    store.dropDraft("beta");
    expect(onDraft).toHaveBeenCalledTimes(2);
    store.acceptDraft("beta", 1);
    expect(store.setting("beta")).toBeUndefined();
  });

  it("stay while another setting changes, and go with the next state once accepted", () => {
    const { store } = scene();
    settings(store, 7, { beta: 1, eps: 1 });
    store.draft("beta", 2);
    store.draft("eps", 3);
    store.acceptDraft("beta", 2);
    settings(store, 8, { beta: 5, eps: 5 });
    expect([store.setting("beta"), store.setting("eps")]).toEqual([5, 3]);
  });

  it("stay during updates without settings", () => {
    const { store, update } = scene();
    store.draft("beta", 2);
    store.acceptDraft("beta", 2);
    update(7, 2, 1);
    expect(store.setting("beta")).toBe(2);
  });

  it("are dropped at once if the run has the accepted value already", () => {
    const { store } = scene();
    settings(store, 7, { beta: 2 });
    const onDraft = vi.fn();
    store.draft("beta", 2);
    store.onDraft(onDraft);
    store.acceptDraft("beta", 2);
    expect(onDraft).toHaveBeenCalledTimes(1);
    settings(store, 8, { beta: 3 });
    expect(store.setting("beta")).toBe(3);
  });

  it("end with a snapshot once accepted", () => {
    const { kernel, store } = scene();
    store.draft("beta", 2);
    store.acceptDraft("beta", 2);
    kernel.say({ ...SNAPSHOT, epoch: "b", state: { ...STATE, settings: { beta: 9 } } });
    expect(store.setting("beta")).toBe(9);
  });
});
