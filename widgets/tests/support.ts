/** Runs, snapshots and kernels for tests. */

import type { PanelView } from "../src/charts/panel";
import { ROLES } from "../src/lib/palette";
import type { Theme } from "../src/lib/theme";
import {
  type Chart,
  type Line,
  type LossEntry,
  PROTOCOL,
  type Snapshot,
  type State,
  type Tokens,
} from "../src/messages";
import type { Model } from "../src/requests";
import { RunStore } from "../src/run_store";

export const STATE: State = {
  ...{
    key: "run 1",
    status: "running",
    steps_done: 0,
    steps_total: 100,
    steps_per_s: 0,
    recipe: "preference",
    base_model: "",
  },
  options: [],
  ...{ headlines: ["pair_accuracy", "reward", "nll", "loss"], tokens_about: "held-out examples", keeps_samples: false },
  ...{ data: "", loss: "dpo", loss_label: "dpo v1", last_loss: "", settings: {}, controls: [], clip: null, marks: [] },
  ...{ marks_total: 0, baseline: {}, histograms: [], warnings: [], failure: null },
  ...{ activity: "", activity_error: "", no_rewind: "", no_fork: "" },
};

export const SNAPSHOT: Snapshot = {
  ...{ type: "snapshot", protocol: PROTOCOL, epoch: "a", number: 1, seen: 0, state: STATE },
  ...{ charts: [], metrics: {}, losses: [], series: [], heats: [], branches: [], branches_left_out: 0 },
};

export const THEME: Theme = {
  ...{ dark: false, text: "black", muted: "grey", grid: "silver", surface: "white", font: "sans-serif" },
  roles: ROLES.light,
};

export const float64Buffer = (values: number[]) => new DataView(new Float64Array(values).buffer);
export const float32Buffer = (values: number[]) => new DataView(new Float32Array(values).buffer);
export const bytesBuffer = (bytes: number[]) => new DataView(new Uint8Array(bytes).buffer);

/** A snapshot whose columns have a value at each of steps 1, 2, ... */
export function snapshotOf(
  columns: Record<string, number[]>,
  state: Partial<State> = {},
  other: Partial<Snapshot> = {},
): Snapshot {
  const series = Object.entries(columns).map(([name, values]) => ({
    ...{ name, width: 1, points: values.length },
    ...{ steps: float64Buffer(values.map((_, i) => i + 1)), values: float32Buffer(values) },
  }));
  const seen = Math.max(0, ...Object.values(columns).map((values) => values.length));
  return { ...SNAPSHOT, seen, state: { ...STATE, ...state }, series, ...other };
}

/** A store of a run that has no kernel. */
export const storeOf = (snapshot: Snapshot) =>
  new RunStore({
    get: (name) => (name === "snapshot" ? snapshot : null),
    send: () => {},
    on: () => {},
    off: () => {},
  });

export const viewOf = (store: RunStore, change: Partial<PanelView> = {}): PanelView => ({
  ...{ store, theme: THEME, halfLife: 0, cursor: null },
  ...change,
});

export const line = (series: string, role: Line["role"], label = series): Line => ({ series, label, role, spread: "" });

export function chart(name: string, lines: Line[], change: Partial<Chart> = {}): Chart {
  return {
    ...{ name, title: name, definition: `${name} = 1`, unit: "nats", kind: "lines", axis: "", counts: "" },
    ...{ lines, bounds: null, overlay: null },
    ...change,
  };
}

/** A chart with the training and the held-out curve of one metric. */
export const metricChart = (name: string, change: Partial<Chart> = {}) =>
  chart(name, [line(name, "train", "training"), line(`held_out/${name}`, "held_out", "held-out")], change);

/** A kernel that records what it was asked, and answers on request. */
export class FakeKernel implements Model {
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
  /** Answer a request, by default the last one. */
  reply(error: string, { request } = this.asked.at(-1) ?? {}): void {
    this.say({ type: "reply", request, error });
  }
  set(name: string, value: unknown): void {
    this.traits[name] = value;
    this.handlers.get(`change:${name}`)?.(null, []);
  }
}

/** Resolves after every settled promise has run its callbacks. */
export const settled = () =>
  new Promise<void>((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null); // a task of its own, which follows all callbacks of promises
  });

/** A loss for the picker. */
export const lossEntry = (name: string, change: Partial<LossEntry> = {}): LossEntry => ({
  ...{ name, label: `${name} v1`, family: "preference", formula: "", summary: `About ${name}.`, paper: "" },
  ...{ inputs: [], params: [], reason: "", ...change },
});

export const int32Buffer = (values: number[]) => new DataView(new Int32Array(values).buffer);

/** A sequence whose tokens "a", "b", ... have these gradients, each with weight 1. */
export const tokensOf = (gradients: number[], change: Partial<Tokens> = {}): Tokens => ({
  ...{ step: 3, about: "dpo v1", by: "gradient" },
  rows: [{ item: 0, title: "pair 1", role: "", start: 0, length: gradients.length, shared: 0 }],
  columns: [
    { name: "gradient", unit: "nats", note: "blue lowers", scale: "diverging", low: -1, high: 1 },
    { name: "weight", unit: "", note: "", scale: "sequential", low: 0, high: 1 },
  ],
  texts: gradients.map((_, i) => String.fromCharCode(97 + (i % 26))),
  ids: int32Buffer(gradients.map((_, i) => 100 + i)),
  pieces: int32Buffer(gradients.map((_, i) => i)),
  values: float32Buffer([...gradients, ...gradients.map(() => 1)]),
  ...change,
});
