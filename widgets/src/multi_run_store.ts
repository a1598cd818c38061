/** A comparison as the page knows it: a store a run, fed from one stream of messages. */

import type { Dispose } from "../dom";
import type { OverlayRun } from "../overlay/curves";
import type { OverlayView } from "../overlay/grid";
import type { Message, Reply, State } from "../protocol";
import type { Compared, CompareRequest, CosineMatrix, OfRun, Result } from "../protocol_runs";
import { type Model, Requests } from "../requests";
import { type Host, Store } from "../store";

export interface ComparedView extends OverlayRun {
  result: Result;
}

/** The kernel as one run's store sees it. */
class RunHost implements Host {
  private handler: ((content: unknown, buffers: DataView[]) => void) | null = null;

  constructor(
    private readonly place: number,
    private readonly snapshot: unknown,
    private readonly ask: (content: object) => void,
  ) {}

  get(name: string): unknown {
    return name === "snapshot" ? this.snapshot : null;
  }

  send(content: unknown): void {
    this.ask({ ...(content as object), run: this.place });
  }

  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    if (event === "msg:custom") this.handler = handler;
  }

  off(event: string): void {
    if (event === "msg:custom") this.handler = null;
  }

  deliver(message: Message, buffers: DataView[]): void {
    this.handler?.(message, buffers);
  }
}

export class CompareStore {
  runs: ComparedView[] = [];
  cosines: CosineMatrix | null = null;
  readonly view: OverlayView & { at: string } = { smoothing: 1, more: false, hidden: new Set(), at: "" };
  /** Why the kernel refused the last request. */
  refused = "";

  private readonly hosts: RunHost[] = [];
  private readonly requests: Requests;
  private readonly listeners = new Set<() => void>();

  private readonly onMessage = (content: unknown, buffers: DataView[]) => {
    const message = content as OfRun | Reply;
    if (message.type === "reply") this.requests.answer(message);
    else if (message.type === "of_run") {
      const run = this.runs[message.run];
      if (run && message.result) run.result = message.result;
      this.hosts[message.run]?.deliver(message.message, buffers);
    }
    this.tell();
  };

  private readonly onCosines = () => {
    this.cosines = (this.model.get("cosines") as CosineMatrix | null) ?? null;
    this.tell();
  };

  constructor(private readonly model: Model) {
    this.requests = new Requests(model, () => this.tell());
    model.on("msg:custom", this.onMessage);
    model.on("change:cosines", this.onCosines);
    this.onCosines();
    const compared = model.get("compared") as Compared | null;
    this.runs = (compared?.runs ?? []).map(({ label, result, snapshot }, place) => {
      const host = new RunHost(place, snapshot, (content) => this.requests.send(content));
      this.hosts.push(host);
      return { label, result, store: new Store(host) };
    });
  }

  dispose(): void {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:cosines", this.onCosines);
    for (const { store } of this.runs) store.dispose();
    this.requests.forget();
    this.listeners.clear();
  }

  /** Whether an answer of the kernel is overdue. */
  get late(): boolean {
    return this.requests.late;
  }

  subscribe(listener: () => void): Dispose {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async request(request: CompareRequest): Promise<void> {
    this.refused = await this.requests.ask(request);
    this.tell();
  }

  /** Of all runs together, as `Comparison.status` has it. */
  get status(): State["status"] {
    const found = new Set(this.runs.map((run) => run.store.state?.status ?? "ready"));
    const order: State["status"][] = ["running", "paused", "ready", "stopped", "finished"];
    return order.find((status) => found.has(status)) ?? "ready";
  }

  tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
