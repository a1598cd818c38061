/** A folder of runs as the page knows it: what is listed, what is ticked, what is open. */

import type { Dispose } from "../dom";
import type { OverlayRun } from "../overlay/curves";
import type { OverlayView } from "../overlay/grid";
import type { Reply } from "../protocol";
import type { Listing, ShownRun, TableRequest } from "../protocol_runs";
import { type Model, Requests } from "../requests";
import { type Host, Store } from "../store";

/** A run that is over: it has its snapshot, and nobody to ask. */
class StillHost implements Host {
  constructor(private readonly snapshot: unknown) {}

  get(name: string): unknown {
    return name === "snapshot" ? this.snapshot : null;
  }

  send(): void {}
  on(): void {}
  off(): void {}
}

export class TableStore {
  listing: Listing = { folder: "", rows: [], more: 0 };
  shown: OverlayRun[] = [];
  opened: OverlayRun | null = null;
  readonly view: OverlayView = { smoothing: 1, more: false, hidden: new Set() };
  /** The row with something to fill in below it: a note, or whether to delete the run. */
  asking: { name: string; what: "note" | "delete" } | null = null;
  /** Why the kernel refused the last request. */
  refused = "";

  /** The ticks that the person wants and the kernel has not answered yet. */
  private wanted: readonly string[] | null = null;
  private readonly requests: Requests;
  private readonly listeners = new Set<() => void>();
  private readonly disposers: Dispose[] = [];

  constructor(private readonly model: Model) {
    this.requests = new Requests(model, () => this.tell());
    const heard = (content: unknown) => {
      const reply = content as Reply;
      if (reply.type === "reply") this.requests.answer(reply);
    };
    this.follow("msg:custom", heard);
    this.follow("change:listing", () => this.readListing());
    this.follow("change:shown", () => this.readShown());
    this.follow("change:opened", () => this.readOpened());
    this.readListing();
    this.readShown();
    this.readOpened();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    for (const { store } of this.shown) store.dispose();
    this.opened?.store.dispose();
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

  async request(request: TableRequest): Promise<void> {
    this.refused = await this.requests.ask(request);
    this.tell();
  }

  /** The runs with a tick, in the order of their curves; also those whose curves are still to come. */
  get ticked(): readonly string[] {
    return this.wanted ?? this.shown.map((run) => run.label);
  }

  /** Ticks a run, or takes the tick away. */
  tick(name: string, on: boolean): void {
    const names = this.ticked.filter((label) => label !== name);
    const wanted = on ? [...names, name] : names;
    this.wanted = wanted;
    this.tell();
    void this.request({ type: "show", names: wanted }).then(() => {
      if (this.wanted !== wanted) return; // there was another tick meanwhile
      this.wanted = null;
      this.tell();
    });
  }

  ask(asking: TableStore["asking"]): void {
    this.asking = asking;
    this.refused = "";
    this.tell();
  }

  tell(): void {
    for (const listener of [...this.listeners]) listener();
  }

  private follow(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    this.model.on(event, handler);
    this.disposers.push(() => this.model.off(event, handler));
  }

  private readListing(): void {
    this.listing = (this.model.get("listing") as Listing | null) ?? this.listing;
    if (!this.listing.rows.some((row) => row.name === this.asking?.name)) this.asking = null;
    this.tell();
  }

  private readShown(): void {
    const shown = (this.model.get("shown") as ShownRun[] | null) ?? [];
    const known = new Map(this.shown.map((run) => [run.label, run]));
    this.shown = shown.map((run) => known.get(run.name) ?? still(run));
    for (const run of known.values()) if (!this.shown.includes(run)) run.store.dispose();
    this.tell();
  }

  private readOpened(): void {
    const opened = (this.model.get("opened") as ShownRun | null) ?? null;
    this.opened?.store.dispose();
    this.opened = opened ? still(opened) : null;
    this.tell();
  }
}

function still({ name, snapshot }: ShownRun): OverlayRun {
  return { label: name, store: new Store(new StillHost(snapshot)) };
}
