import { describe, expect, it, vi } from "vitest";
import { fixed } from "../src/compare/cosines";
import { sharedMetrics } from "../src/compare/results";
import { CompareStore } from "../src/compare/store";
import { Series } from "../src/history";
import {
  difference,
  heldOutOf,
  type OverlayChart,
  overlayCharts,
  strayCharts,
  trainingOf,
} from "../src/overlay/curves";
import { styleOf } from "../src/overlay/styles";
import type { Chart, Line, Snapshot, State } from "../src/protocol";
import { PROTOCOL } from "../src/protocol";
import type { Compared, Result } from "../src/protocol_runs";
import { type Model, Requests } from "../src/requests";
import { Store } from "../src/store";
import { when } from "../src/table/rows";
import { sparkPoints } from "../src/table/spark";
import { TableStore } from "../src/table/store";

const line = (series: string, role: Line["role"]): Line => ({ series, label: series, role, spread: "" });

function chart(name: string, lines: Line[], kind: Chart["kind"] = "lines"): Chart {
  return { name, title: name, unit: "nats", kind, lines, bounds: null };
}

const metric = (name: string) => chart(name, [line(name, "train"), line(`held_out/${name}`, "held_out")]);
const LOGPS = chart("logps", [line("logps/chosen", "chosen"), line("logps/rejected", "rejected")]);

const STATE: State = {
  ...{ status: "running", steps_done: 0, steps_total: 100, steps_per_s: 0, recipe: "preference", base_model: "" },
  ...{ data: "", loss: "dpo", loss_label: "dpo v1", settings: {}, controls: [], clip: null, marks: [] },
  ...{ marks_total: 0, baseline: {}, histograms: [], warnings: [], failure: null },
};

const bytes64 = (values: number[]) => new DataView(new Float64Array(values).buffer);
const bytes32 = (values: number[]) => new DataView(new Float32Array(values).buffer);

function snapshotOf(epoch: string, columns: Record<string, number[]>, state: Partial<State> = {}): Snapshot {
  const series = Object.entries(columns).map(([name, values]) => ({
    ...{ name, width: 1, points: values.length },
    ...{ steps: bytes64(values.map((_, i) => i + 1)), values: bytes32(values) },
  }));
  return {
    ...{ type: "snapshot", protocol: PROTOCOL, epoch, number: 1, seen: 2, state: { ...STATE, ...state } },
    ...{ charts: [metric("loss"), LOGPS], losses: [], series, heats: [] },
  };
}

/** A kernel that remembers what it was asked. */
class Kernel implements Model {
  asked: Record<string, unknown>[] = [];
  handlers = new Map<string, (content: unknown, buffers: DataView[]) => void>();
  constructor(readonly traits: Record<string, unknown>) {}
  get(name: string): unknown {
    return this.traits[name] ?? null;
  }
  send(content: unknown): void {
    this.asked.push(content as Record<string, unknown>);
  }
  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    this.handlers.set(event, handler);
  }
  off(event: string): void {
    this.handlers.delete(event);
  }
  say(content: unknown, buffers: DataView[] = []): void {
    this.handlers.get("msg:custom")?.(content, buffers);
  }
  /** The answer to a request, the last one unless it says otherwise. */
  reply(error: string, { request } = this.asked.at(-1) ?? {}): void {
    this.say({ type: "reply", request, error });
  }
  set(name: string, value: unknown): void {
    this.traits[name] = value;
    this.handlers.get(`change:${name}`)?.(null, []);
  }
}

/** Everything that promises still have to do is done. */
const settled = () => new Promise((done) => setTimeout(done, 0));

const storeOf = (snapshot: Snapshot) =>
  new Store({ get: (name) => (name === "snapshot" ? snapshot : null), send: () => {}, on: () => {}, off: () => {} });

describe("overlayCharts", () => {
  it("splits charts of several curves, puts the losses last and takes the plain margin", () => {
    const charts = overlayCharts([
      [metric("loss"), metric("mean_margin"), LOGPS],
      [metric("nll"), metric("loss")],
    ]);
    expect(charts.map((c) => c.name)).toEqual(["mean_margin", "logps/chosen", "logps/rejected", "nll", "loss"]);
    expect(charts[0]).toMatchObject({ series: "logps/chosen", minus: "logps/rejected" });
    expect(charts.at(-1)?.unit).toBe("each in its own unit");
  });

  it("leaves a margin alone that is made of nothing, and charts that are no curves out", () => {
    const charts = overlayCharts([[metric("mean_margin"), chart("margin", [], "bars")]]);
    expect(charts).toMatchObject([{ name: "mean_margin", series: "mean_margin", minus: "" }]);
  });

  it("finds what is in no chart", () => {
    const store = storeOf(snapshotOf("a", { loss: [1, 2], "held_out/odd": [3, 4], "<img>": [1, 1] }));
    const charts = overlayCharts([[metric("loss")]]);
    expect(strayCharts([{ label: "a", store }], charts, 9).map((c) => c.name)).toEqual(["<img>", "odd"]);
    expect(strayCharts([{ label: "a", store }], charts, 1)).toHaveLength(1);
  });
});

describe("curves", () => {
  const columns = {
    ...{ "logps/chosen": [-1, -2], "logps/rejected": [-3, -5] },
    ...{ "held_out/logps/chosen": [-1.5], "held_out/logps/rejected": [-4] },
  };
  const margin: OverlayChart = {
    ...{ name: "mean_margin", title: "", unit: "", bounds: null },
    ...{ series: "logps/chosen", minus: "logps/rejected" },
  };

  it("are differences where that is asked, with the value before training", () => {
    const store = storeOf(snapshotOf("a", columns, { baseline: { "logps/chosen": -1, "logps/rejected": -2 } }));
    expect(trainingOf(store, margin)?.mean).toEqual([2, 3]);
    expect(heldOutOf(store, margin)).toEqual({ steps: [0, 1], values: [1, 2.5] });
  });

  it("are none where one side is missing", () => {
    const store = storeOf(snapshotOf("a", { "logps/chosen": [-1, -2] }, { baseline: { "logps/chosen": -1 } }));
    expect(trainingOf(store, margin)).toBeNull();
    expect(heldOutOf(store, margin)).toBeNull();
  });

  it("have no difference where they do not hold the same points", () => {
    const [one, other] = [new Series(4), new Series(4)];
    for (const step of [1, 2, 3, 4, 5]) one.add(step, step);
    expect(difference(one, other)).toBeNull();
    for (const step of [1, 2, 3, 4, 5]) other.add(step, 1);
    expect(one.width).toBe(2);
    expect(difference(one, other)?.mean).toEqual([0.5, 2.5, 4]);
  });
});

describe("styles", () => {
  it("tells every run by colour and by line", () => {
    for (const dark of [false, true]) {
      const styles = [0, 1, 2, 3, 4, 5].map((place) => styleOf(place, dark));
      expect(new Set(styles.map((style) => style.colour)).size).toBe(6);
      expect(new Set(styles.map((style) => style.dash)).size).toBe(6);
    }
    expect(styleOf(6, false)).toEqual(styleOf(0, false));
  });
});

describe("CompareStore", () => {
  const result: Result = { step: 0, before: {}, final: {} };
  const compared = (): Compared => ({
    recipe: "preference",
    runs: ["a", "b"].map((label) => ({ label, result, snapshot: snapshotOf(label, { loss: [1, 2] }) })),
  });

  it("gives each run its own messages and asks for what it missed by run", () => {
    const kernel = new Kernel({ compared: compared() });
    const store = new CompareStore(kernel);
    expect(kernel.asked).toEqual([
      { type: "sync", since: 2, epoch: "a", run: 0 },
      { type: "sync", since: 2, epoch: "b", run: 1 },
    ]);
    const update = {
      type: "update",
      epoch: "b",
      number: 2,
      first: 2,
      count: 1,
      columns: ["loss"],
      histograms: [],
      full: true,
    };
    const message = { ...update, state: { ...STATE, steps_done: 3 } };
    const heard = vi.fn();
    store.subscribe(heard);
    const told = { type: "of_run", run: 1, result: { ...result, step: 3 }, message };
    kernel.say(told, [bytes64([3]), bytes32([7])]);
    expect(store.runs.map((run) => run.store.history.series.get("loss")?.mean)).toEqual([
      [1, 2],
      [1, 2, 7],
    ]);
    expect(store.runs.map((run) => run.result.step)).toEqual([0, 3]);
    expect(heard).toHaveBeenCalled();
    kernel.say({ ...told, run: 5 }, []);
    store.dispose();
    expect(kernel.handlers.size).toBe(0);
  });

  it("takes a snapshot whose bytes travel beside it", () => {
    const kernel = new Kernel({ compared: compared() });
    const store = new CompareStore(kernel);
    const snapshot = { ...snapshotOf("new", { loss: [0, 0] }), number: 9 };
    for (const data of snapshot.series) Object.assign(data, { steps: "", values: "" });
    kernel.say({ type: "of_run", run: 0, result: null, message: snapshot }, [bytes64([1, 2]), bytes32([5, 6])]);
    expect(store.runs[0]?.store.epoch).toBe("new");
    expect(store.runs[0]?.store.history.series.get("loss")?.mean).toEqual([5, 6]);
  });

  it("is running while one is, and over when all are", () => {
    const states: State["status"][][] = [
      ["running", "finished"],
      ["paused", "finished"],
      ["ready", "stopped"],
      ["stopped", "finished"],
    ];
    const found = states.map((pair) => {
      const runs = pair.map((status) => ({ label: status, result, snapshot: snapshotOf(status, {}, { status }) }));
      return new CompareStore(new Kernel({ compared: { recipe: "", runs } })).status;
    });
    expect(found).toEqual(["running", "paused", "ready", "stopped"]);
  });
});

describe("TableStore", () => {
  const shown = (name: string) => ({ name, snapshot: snapshotOf(name, { loss: [1, 2] }) });

  it("keeps the runs that stay ticked and drops the others", async () => {
    const kernel = new Kernel({ listing: { folder: "runs", rows: [], more: 0 }, shown: [shown("a"), shown("b")] });
    const store = new TableStore(kernel);
    const [first] = store.shown;
    store.tick("b", false);
    expect(kernel.asked.at(-1)).toMatchObject({ type: "show", names: ["a"] });
    kernel.set("shown", [shown("a"), shown("c")]);
    expect(store.shown.map((run) => run.label)).toEqual(["a", "c"]);
    expect(store.shown[0]).toBe(first);
    const refused = store.request({ type: "open", name: "x" });
    kernel.reply("there is no such run");
    await refused;
    expect(store.refused).toBe("there is no such run");
  });

  it("keeps a tick that the kernel has not answered when there is another one", async () => {
    const kernel = new Kernel({ listing: { folder: "runs", rows: [], more: 0 }, shown: [] });
    const store = new TableStore(kernel);
    store.tick("a", true);
    const first = kernel.asked.at(-1);
    store.tick("b", true);
    expect(kernel.asked.at(-1)).toMatchObject({ type: "show", names: ["a", "b"] });
    expect(store.ticked).toEqual(["a", "b"]);
    kernel.set("shown", [shown("a")]); // the answer to the first one must not take the second tick away
    kernel.reply("", first);
    await settled();
    expect(store.ticked).toEqual(["a", "b"]);
    store.tick("a", false);
    expect(kernel.asked.at(-1)).toMatchObject({ names: ["b"] });
    kernel.set("shown", [shown("b")]);
    kernel.reply("");
    await settled();
    expect(store.ticked).toEqual(["b"]);
  });

  it("takes back a tick that the kernel refuses", async () => {
    const kernel = new Kernel({ listing: { folder: "runs", rows: [], more: 0 }, shown: [shown("a")] });
    const store = new TableStore(kernel);
    store.tick("b", true);
    expect(store.ticked).toEqual(["a", "b"]);
    kernel.reply("it cannot be read");
    await settled();
    expect([store.ticked, store.refused]).toEqual([["a"], "it cannot be read"]);
  });
});

describe("Requests", () => {
  it("answers each by its number, and lives without a kernel", async () => {
    const kernel = new Kernel({});
    const requests = new Requests(kernel);
    const asked = [requests.ask({ type: "one" }), requests.ask({ type: "two" })];
    const [one, two] = kernel.asked.map(({ request }) => request as number) as [number, number];
    requests.answer({ type: "reply", request: two, error: "no" });
    requests.answer({ type: "reply", request: one, error: "" });
    expect(await Promise.all(asked)).toEqual(["", "no"]);
    kernel.send = () => {
      throw new Error("no kernel");
    };
    void requests.ask({ type: "three" });
  });

  it("does not take the answer to another page for its own", async () => {
    const kernels = [new Kernel({}), new Kernel({})];
    const [mine, other] = kernels.map((kernel) => new Requests(kernel)) as [Requests, Requests];
    const stopped = mine.ask({ type: "stop" });
    const renewed = other.ask({ type: "new_run" });
    const [mine_, other_] = kernels.map((kernel) => kernel.asked.at(-1)?.request as number) as [number, number];
    expect(Number.isSafeInteger(mine_)).toBe(true);
    for (const page of [mine, other]) {
      page.answer({ type: "reply", request: other_, error: "stop it before" });
      page.answer({ type: "reply", request: mine_, error: "" });
    }
    expect([await stopped, await renewed]).toEqual(["", "stop it before"]);
  });

  it("gives a text, or why there is none", async () => {
    const kernel = new Kernel({});
    const requests = new Requests(kernel);
    const found = requests.text({ type: "csv" });
    const bytes = new TextEncoder().encode("step\n1\n");
    requests.deliver(kernel.asked.at(-1)?.request as number, new DataView(bytes.buffer));
    expect(await found).toBe("step\n1\n");
    const refused = requests.text({ type: "cell" });
    requests.answer({ type: "reply", request: kernel.asked.at(-1)?.request as number, error: "no such loss" });
    await expect(refused).rejects.toThrow("no such loss");
  });

  it("says when an answer is overdue, and no longer when it has come", () => {
    vi.useFakeTimers();
    const kernel = new Kernel({ compared: { recipe: "preference", runs: [] } });
    const store = new CompareStore(kernel);
    const heard = vi.fn();
    store.subscribe(heard);
    void store.request({ type: "start" });
    vi.advanceTimersByTime(1000);
    expect([store.late, heard.mock.calls.length]).toEqual([false, 0]);
    vi.advanceTimersByTime(1000);
    expect([store.late, heard.mock.calls.length]).toEqual([true, 1]);
    kernel.reply("");
    expect(store.late).toBe(false);
    void store.request({ type: "stop" });
    store.dispose();
    vi.advanceTimersByTime(5000);
    expect(store.late).toBe(false);
    vi.useRealTimers();
  });
});

describe("words and numbers", () => {
  it("lists what all runs have, the losses last", () => {
    const finals = [
      { loss: 1, zeta: 1, mean_margin: 1, pair_accuracy: 1, own: 1 },
      { pair_accuracy: 1, zeta: 2, mean_margin: 2, loss: 2 },
    ];
    expect(sharedMetrics(finals)).toEqual(["pair_accuracy", "mean_margin", "zeta", "loss"]);
    expect(sharedMetrics([])).toEqual([]);
  });

  it.each([
    [1, "1.000"],
    [-1, "−1.000"],
    [-0.0001, "0.000"],
    [0.12345, "0.123"],
  ])("writes the cosine %f as %s", (value, text) => {
    expect(fixed(value)).toBe(text);
  });

  it("draws a small curve from left to right, higher is up, a constant in the middle", () => {
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

  it("writes a time to the minute", () => {
    expect(when(new Date(2026, 0, 2, 3, 4, 59).getTime() / 1000)).toBe("2026-01-02 03:04");
    expect(when(0)).toBe("–");
  });
});
