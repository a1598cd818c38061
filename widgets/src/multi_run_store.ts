/**
 * The page's copy of several runs: those of a comparison, or those that are ticked in a table of runs.
 *
 * A comparison's runs are live, and all their messages arrive in one stream, each with the number of its run. A table's
 * runs are read from folders and never change.
 */

import type { Dispose } from "./lib/dom";
import type { Message, Reply, Snapshot, State } from "./messages";
import { type Model, Requests } from "./requests";
import type { Compared, OfRun, Result, ShownRun } from "./run_messages";
import { RunStore } from "./run_store";

/** One of several runs. Its index in the list selects its colour and line style. */
export interface LabelledRun {
  label: string;
  store: RunStore;
  /** Held-out metrics, if the kernel sends them: in a comparison. */
  result: Result | null;
}

/** How a person wants the charts of several runs; stored here, so that another view starts the same. */
export interface OverlayView {
  smoothing: number;
  /** Further metrics are unfolded. */
  more: boolean;
  /** Labels of hidden runs. */
  hidden: Set<string>;
}

/** The model as the store of one of the runs sees it. */
class RunModel implements Model {
  private onMessage: ((content: unknown, buffers: DataView[]) => void) | null = null;

  constructor(
    private readonly snapshot: Snapshot,
    private readonly sendToKernel: (content: object) => void,
  ) {}

  get(name: string): unknown {
    return name === "snapshot" ? this.snapshot : null;
  }

  send(content: unknown): void {
    this.sendToKernel(content as object);
  }

  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    if (event === "msg:custom") this.onMessage = handler;
  }

  off(event: string): void {
    if (event === "msg:custom") this.onMessage = null;
  }

  deliver(message: Message, buffers: DataView[]): void {
    this.onMessage?.(message, buffers);
  }
}

interface Entry extends LabelledRun {
  model: RunModel;
}

export class MultiRunStore {
  readonly view: OverlayView = { smoothing: 1, more: false, hidden: new Set() };
  /** Why the kernel refused the last request; empty if it accepted. */
  refusal = "";
  /** The run that is shown by itself, with all of its charts, if any: the open one of a table. */
  opened: LabelledRun | null = null;

  private entries: Entry[] = [];
  private readonly requests: Requests;
  private readonly listeners = new Set<() => void>();
  private readonly disposers: Dispose[] = [];

  /**
   * @param traits Traits of the widget that views read with `trait`; a change of one notifies them.
   */
  constructor(
    private readonly model: Model,
    traits: readonly string[] = [],
  ) {
    this.requests = new Requests(model, () => this.notify());
    this.follow("msg:custom", (content, buffers) => this.receive(content as OfRun | Reply, buffers));
    this.follow("change:shown", () => this.readRuns());
    this.follow("change:opened", () => this.readOpened());
    for (const trait of traits) this.follow(`change:${trait}`, () => this.notify());
    this.readRuns();
    this.readOpened();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    for (const { store } of this.entries) store.dispose();
    this.opened?.store.dispose();
    this.requests.clear();
    this.listeners.clear();
  }

  get runs(): readonly LabelledRun[] {
    return this.entries;
  }

  /** The value of a trait of the widget; null if it has no value. */
  trait<T>(name: string): T | null {
    return (this.model.get(name) as T | null | undefined) ?? null;
  }

  /** Whether an answer of the kernel is late. */
  get late(): boolean {
    return this.requests.late;
  }

  /** Call `listener` after every change. */
  subscribe(listener: () => void): Dispose {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Send a request; `refusal` then has the answer. */
  async request<R extends { type: string }>(request: R): Promise<void> {
    this.refusal = await this.ask(request);
    this.notify();
  }

  /** Send a request. Resolves to the reason for a refusal, or "". */
  ask<R extends { type: string }>(request: R): Promise<string> {
    return this.requests.ask(request);
  }

  notify(): void {
    for (const listener of [...this.listeners]) listener();
  }

  /** The status of all runs together, as `Comparison.status` in Python. */
  get status(): State["status"] {
    const statuses = new Set(this.entries.map((run) => run.store.state?.status ?? "ready"));
    const order: State["status"][] = ["running", "paused", "ready", "stopped", "finished"];
    return order.find((status) => statuses.has(status)) ?? "ready";
  }

  private follow(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    this.model.on(event, handler);
    this.disposers.push(() => this.model.off(event, handler));
  }

  private receive(message: OfRun | Reply, buffers: DataView[]): void {
    if (message.type === "reply") this.requests.receiveReply(message);
    else if (message.type === "of_run") {
      const entry = this.entries[message.run];
      if (entry && message.result) entry.result = message.result;
      entry?.model.deliver(message.message, buffers);
    }
    this.notify();
  }

  /** Keep the runs that are still listed, create the new ones, and dispose of the others. */
  private readRuns(): void {
    const compared = this.trait<Compared>("compared")?.runs ?? [];
    const shown = this.trait<ShownRun[]>("shown") ?? [];
    const known = new Map(this.entries.map((entry) => [entry.label, entry]));
    this.entries = [
      ...compared.map(({ label, result, snapshot }, number) => {
        const send = (content: object) => this.requests.send({ ...content, run: number });
        return known.get(label) ?? entryOf(label, snapshot, result, send);
      }),
      ...shown.map(({ name, snapshot }) => known.get(name) ?? entryOf(name, snapshot)),
    ];
    for (const entry of known.values()) if (!this.entries.includes(entry)) entry.store.dispose();
    this.notify();
  }

  private readOpened(): void {
    const opened = this.trait<ShownRun>("opened");
    this.opened?.store.dispose();
    this.opened = opened ? entryOf(opened.name, opened.snapshot) : null;
    this.notify();
  }
}

/** A run that is read from its folder has no kernel to send to. */
function entryOf(
  label: string,
  snapshot: Snapshot,
  result: Result | null = null,
  send: (content: object) => void = () => {},
): Entry {
  const model = new RunModel(snapshot, send);
  return { label, store: new RunStore(model), result, model };
}
