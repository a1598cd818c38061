/**
 * One run as the page knows it, shared by all views of a widget.
 *
 * It holds what the kernel sent, asks for what it missed, and passes requests on. It never changes the state by itself.
 */

import type { Dispose } from "./dom";
import { History } from "./history";
import {
  type Chart,
  type LossEntry,
  type Message,
  PROTOCOL,
  type Request,
  type Snapshot,
  type State,
  type Update,
} from "./protocol";

/** The part of anywidget's model that is used here. */
export interface Host {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: "msg:custom", handler: (content: unknown, buffers: DataView[]) => void): void;
  off(event: "msg:custom", handler: (content: unknown, buffers: DataView[]) => void): void;
}

const ASK_AGAIN_MS = 2000;

export class Store {
  history = new History();
  state: State | null = null;
  charts: Chart[] = [];
  losses: LossEntry[] = [];
  epoch = "";
  seen = 0;
  /** How the person wants the charts; kept here so that another view, or the same one drawn again, starts alike. */
  readonly view = { smoothing: 1, more: false };
  /** Why the page cannot show the run, if so. */
  problem = "";

  private number = 0;
  private asked = 0;
  private requests = 0;
  private readonly waiting = new Map<number, { since: number; done: (error: string) => void }>();
  private readonly listeners = new Set<() => void>();
  private readonly onMessage = (content: unknown, buffers: DataView[]) => this.receive(content as Message, buffers);

  constructor(private readonly host: Host) {
    host.on("msg:custom", this.onMessage);
    const snapshot = host.get("snapshot") as Snapshot | null;
    if (snapshot) this.load(snapshot);
    this.sync();
  }

  dispose(): void {
    this.host.off("msg:custom", this.onMessage);
    this.listeners.clear();
    this.waiting.clear();
  }

  subscribe(listener: () => void): Dispose {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Asks the kernel for something; resolves to why it refused, "" when it did not. */
  request(request: Omit<Request, "request">): Promise<string> {
    this.requests += 1;
    const number = this.requests;
    return new Promise((done) => {
      this.waiting.set(number, { since: Date.now(), done });
      this.send({ ...request, request: number });
    });
  }

  /** How long the oldest unanswered request has waited, ms. */
  get waited(): number {
    const oldest = Math.min(...[...this.waiting.values()].map((entry) => entry.since));
    return Number.isFinite(oldest) ? Date.now() - oldest : 0;
  }

  receive(message: Message, buffers: DataView[]): void {
    if (message.type === "update") this.update(message, buffers);
    else if (message.type === "snapshot") this.replace(message);
    else if (message.type === "losses") this.losses = message.losses;
    else if (message.type === "reply") this.answer(message.request, message.error);
    this.tell();
  }

  private answer(request: number, error: string): void {
    this.waiting.get(request)?.done(error);
    this.waiting.delete(request);
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
    this.epoch = snapshot.epoch;
    this.number = snapshot.number;
    this.seen = snapshot.seen;
    this.state = snapshot.state;
    this.charts = snapshot.charts;
    this.losses = snapshot.losses;
    this.history = History.fromData(snapshot.series);
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
      this.seen += update.count - skip;
    }
    const complete = update.full || update.number === this.number + 1;
    this.state = { ...(this.state as State), ...update.state };
    this.number = update.number;
    if (update.full) this.asked = 0;
    else if (!complete) this.sync();
  }

  private sync(): void {
    if (this.asked && Date.now() - this.asked < ASK_AGAIN_MS) return;
    this.asked = Date.now();
    this.send({ type: "sync", since: this.seen, epoch: this.epoch });
  }

  private send(request: Request): void {
    try {
      this.host.send(request);
    } catch {
      // No kernel: what the snapshot shows stays on the page.
    }
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
