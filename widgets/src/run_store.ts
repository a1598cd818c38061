/**
 * One run as the page knows it, shared by all views of a widget.
 *
 * It holds what the kernel sent, asks for what it missed, and passes requests on. It never changes the state by itself.
 */

import type { Dispose } from "./dom";
import { HeatHistory } from "./heat";
import { History } from "./history";
import { firstLoss } from "./loss_marks";
import {
  type Chart,
  type LossEntry,
  type Message,
  PROTOCOL,
  type Request,
  type Samples,
  type Snapshot,
  type State,
  type Tokens,
  type Update,
} from "./protocol";
import { Requests } from "./requests";

/** The part of anywidget's model that is used here. */
export interface Host {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: "msg:custom", handler: (content: unknown, buffers: DataView[]) => void): void;
  on(event: "change:tokens" | "change:samples", handler: () => void): void;
  off(event: "msg:custom", handler: (content: unknown, buffers: DataView[]) => void): void;
  off(event: "change:tokens" | "change:samples", handler: () => void): void;
}

const ASK_AGAIN_MS = 2000;

export class Store {
  history = new History();
  heats = new HeatHistory();
  state: State | null = null;
  charts: Chart[] = [];
  losses: LossEntry[] = [];
  /** Held-out examples as they were when somebody last asked for them. */
  tokens: Tokens | null = null;
  /** The responses that the run kept last, where it keeps some. */
  samples: Samples | null = null;
  epoch = "";
  seen = 0;
  /** How the person wants the charts; kept here so that another view, or the same one drawn again, starts alike. */
  readonly view = {
    smoothing: 1,
    more: false,
    /** All losses as cards. */
    losses: false,
    tokens: false,
    by: "",
    samples: true,
    samplesBy: "",
    /** Steps shown, where the person has zoomed in. */
    range: null as readonly [number, number] | null,
    /** Curves switched off, by chart and label; charts with a logarithmic axis; histograms shown over time. */
    hidden: new Set<string>(),
    log: new Set<string>(),
    overTime: new Set<string>(),
    /** The chart that is shown large, if one is. */
    large: "",
  };
  /** How often `view` has changed. */
  wishes = 0;
  /** What the kernel was asked for and does when the current step is over. */
  halting: "" | "pause" | "stop" = "";
  /** The loss that made the steps before the first mark of another; "" where the page cannot know. */
  first = "";
  /** Why the page cannot show the run, if so. */
  problem = "";

  private number = 0;
  private asked = 0;
  private readonly requests: Requests;
  private readonly listeners = new Set<() => void>();
  private readonly drafts = new Map<string, { value: number; taken: boolean }>();
  private readonly draftListeners = new Set<() => void>();
  private readonly onMessage = (content: unknown, buffers: DataView[]) => this.receive(content as Message, buffers);

  private readonly onTokens = () => {
    this.tokens = (this.host.get("tokens") as Tokens | null) ?? null;
    this.tell();
  };

  private readonly onSamples = () => {
    this.samples = (this.host.get("samples") as Samples | null) ?? null;
    this.tell();
  };

  constructor(private readonly host: Host) {
    this.requests = new Requests(host, () => this.tell());
    host.on("msg:custom", this.onMessage);
    host.on("change:tokens", this.onTokens);
    host.on("change:samples", this.onSamples);
    this.onTokens();
    this.onSamples();
    const snapshot = host.get("snapshot") as Snapshot | null;
    if (snapshot) this.load(snapshot);
    this.sync();
  }

  dispose(): void {
    this.host.off("msg:custom", this.onMessage);
    this.host.off("change:tokens", this.onTokens);
    this.host.off("change:samples", this.onSamples);
    this.listeners.clear();
    this.draftListeners.clear();
    this.requests.forget();
  }

  subscribe(listener: () => void): Dispose {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The person wants something else of `view`: every view of this run shows it. */
  viewChanged(): void {
    this.wishes += 1;
    this.tell();
  }

  /** Calls `listener` when a setting is being chosen, and when that is over. */
  onDraft(listener: () => void): Dispose {
    this.draftListeners.add(listener);
    return () => this.draftListeners.delete(listener);
  }

  /** A setting as the person is choosing it, else as the kernel says. */
  setting(name: string): number | undefined {
    return this.drafts.get(name)?.value ?? this.state?.settings[name];
  }

  /** The person is choosing `value`; nothing has been asked for. */
  draft(name: string, value: number): void {
    this.drafts.set(name, { value, taken: false });
    this.tellDrafts();
  }

  /** The kernel took what was drafted: it stands until the kernel's own state says so, or says otherwise. */
  draftTaken(name: string, value: number): void {
    const draft = this.drafts.get(name);
    if (draft?.value !== value) return; // another one is being chosen by now
    if (this.state?.settings[name] === draft.value) this.dropDraft(name);
    else draft.taken = true;
  }

  /** Nothing came of it. */
  dropDraft(name: string): void {
    if (this.drafts.delete(name)) this.tellDrafts();
  }

  /** Asks the kernel for something; resolves to why it refused, "" when it did not. */
  request(request: Omit<Request, "request">): Promise<string> {
    return this.requests.ask(request);
  }

  /** Asks for a text. Rejects with why there is none. */
  ask(request: Omit<Request, "request">): Promise<string> {
    return this.requests.text(request);
  }

  /** Whether an answer of the kernel is overdue. */
  get late(): boolean {
    return this.requests.late;
  }

  receive(message: Message, buffers: DataView[]): void {
    if (message.type === "update") this.update(message, buffers);
    else if (message.type === "snapshot") this.replace(attached(message, buffers));
    else if (message.type === "losses") this.losses = message.losses;
    else if (message.type === "reply") this.requests.answer(message);
    else if (message.type === "document") this.requests.deliver(message.request, buffers[0]);
    if (this.state?.status !== "running") this.halting = "";
    this.tell();
  }

  private replace(snapshot: Snapshot): void {
    const known = snapshot.epoch === this.epoch;
    // Another page asked for it; this one is up to date.
    if (known && snapshot.number <= this.number && this.asked === 0) return;
    if (known && snapshot.number < this.number) return;
    this.load(snapshot);
    this.asked = 0;
  }

  private load(snapshot: Snapshot): void {
    if (snapshot.protocol !== PROTOCOL) {
      this.problem = "This page and the kernel run different versions of mint_lab. Reload the page.";
      return;
    }
    this.problem = "";
    const before = snapshot.epoch === this.epoch ? this.state : null;
    this.first = firstLoss(before, snapshot.state, this.first);
    this.epoch = snapshot.epoch;
    this.number = snapshot.number;
    this.seen = snapshot.seen;
    this.state = snapshot.state;
    this.settleDrafts();
    this.charts = snapshot.charts;
    this.losses = snapshot.losses;
    this.history = History.fromData(snapshot.series);
    this.heats = HeatHistory.fromData(snapshot.heats);
  }

  private update(update: Update, buffers: DataView[]): void {
    if (update.epoch !== this.epoch || update.first > this.seen) {
      this.sync();
      return;
    }
    if (update.number <= this.number) return;
    const skip = this.seen - update.first;
    if (update.count > skip) {
      const [steps, values] = buffers;
      if (!steps || !values) {
        this.sync();
        return;
      }
      this.history.append(update.columns, update.count, skip, steps, values);
      // Their steps only grow: what is held already does not count again.
      const held = new Map([...this.heats.heats].map(([name, heat]) => [name, heat.steps.at(-1) ?? 0]));
      for (const histogram of update.histograms) {
        if (histogram.step > (held.get(histogram.name) ?? 0)) this.heats.add(histogram);
      }
      this.seen += update.count - skip;
    }
    const complete = update.full || update.number === this.number + 1;
    const before = this.state as State;
    this.state = { ...before, ...update.state };
    this.first = firstLoss(before, this.state, this.first);
    if (update.state.settings) this.settleDrafts();
    this.number = update.number;
    if (update.full) this.asked = 0;
    else if (!complete) this.sync();
  }

  private sync(): void {
    if (this.asked && Date.now() - this.asked < ASK_AGAIN_MS) return;
    this.asked = Date.now();
    this.requests.send({ type: "sync", since: this.seen, epoch: this.epoch });
  }

  private settleDrafts(): void {
    for (const [name, draft] of this.drafts) if (draft.taken) this.drafts.delete(name);
  }

  private tellDrafts(): void {
    for (const listener of [...this.draftListeners]) listener();
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

/** A snapshot that came as a message, with its buffers where they belong. */
function attached(snapshot: Snapshot, buffers: DataView[]): Snapshot {
  const rest = buffers.values();
  const filled = <T extends { steps: DataView; values: DataView }>(part: T): T => {
    const [steps, values] = [rest.next().value, rest.next().value];
    if (!steps || !values) throw new RangeError("a snapshot without its buffers");
    return { ...part, steps, values };
  };
  return { ...snapshot, series: snapshot.series.map(filled), heats: snapshot.heats.map(filled) };
}
