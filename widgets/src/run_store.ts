/**
 * The page's copy of one run, shared by all views of a widget.
 *
 * It stores what the kernel sent, asks for missed messages, and sends requests. It never changes the state of the run.
 */

import { type Branch, branchesOf } from "./branches";
import type { DataReport } from "./data_messages";
import { HeatHistory } from "./heat";
import { History } from "./history";
import type { Dispose } from "./lib/dom";
import { type Range, stepRange } from "./lib/scale";
import {
  type Chart,
  type LossEntry,
  type Message,
  type MetricEntry,
  PROTOCOL,
  type Request,
  type Samples,
  type Snapshot,
  type State,
  type Tokens,
  type Update,
} from "./messages";
import { type Model, Requests } from "./requests";
import type { Earlier, RunTabs } from "./run_messages";

/** A second "sync" request may follow after this time without an answer. */
const SYNC_RETRY_MS = 2000;

/** A value that a person is choosing for a setting. `accepted`: the kernel has accepted it. */
interface Draft {
  value: number;
  accepted: boolean;
}

export class RunStore {
  history = new History();
  heats = new HeatHistory();
  state: State | null = null;
  charts: Chart[] = [];
  metrics: Record<string, MetricEntry> = {};
  losses: LossEntry[] = [];
  /** Examples token by token, as of the last request for them. */
  tokens: Tokens | null = null;
  /** The latest responses that the run stored, if it stores any. */
  samples: Samples | null = null;
  /** The data of the run, as of the last request for them. */
  audit: DataReport | null = null;
  /** The runs of the workbench, if the widget is one. */
  tabs: RunTabs | null = null;
  /** The run that an earlier execution of the cell left, if it can be continued. */
  earlier: Earlier | null = null;
  /** Faint curves: steps that the run has left, the latest last; and the number of earlier ones that are not drawn. */
  branches: Branch[] = [];
  branchesLeftOut = 0;
  epoch = "";
  /** Number of records received. */
  seen = 0;
  /** How a person wants the charts; stored here, so that every view shows the same, also after a new display. */
  readonly view = {
    smoothing: 1,
    /** Further metrics are unfolded. */
    more: false,
    /** All losses are shown as cards. */
    losses: false,
    tokens: false,
    /** Column that colours the tokens. */
    by: "",
    samples: true,
    samplesBy: "",
    data: false,
    /** Steps shown, if a person has zoomed in. */
    range: null as Range | null,
    /** Hidden curves, by chart and label. */
    hidden: new Set<string>(),
    /** Charts with a logarithmic vertical axis. */
    log: new Set<string>(),
    /** Histograms shown over time. */
    overTime: new Set<string>(),
    /** Name of the enlarged chart, if any. */
    large: "",
  };
  /** Number of changes of `view`. */
  viewChanges = 0;
  /** The status that was requested, to be applied after the current step. */
  requestedStatus: "" | "pause" | "stop" = "";
  /** Why the page cannot show the run; empty if it can. */
  problem = "";

  private messageNumber = 0;
  private syncSentAtMs = 0;
  private readonly requests: Requests;
  private readonly listeners = new Set<() => void>();
  private readonly drafts = new Map<string, Draft>();
  private readonly draftListeners = new Set<() => void>();
  private readonly onMessage = (content: unknown, buffers: DataView[]) => this.receive(content as Message, buffers);

  private readonly onTokens = () => {
    this.tokens = (this.model.get("tokens") as Tokens | null) ?? null;
    this.notify();
  };

  private readonly onSamples = () => {
    this.samples = (this.model.get("samples") as Samples | null) ?? null;
    this.notify();
  };

  private readonly onAudit = () => {
    this.audit = (this.model.get("audit") as DataReport | null) ?? null;
    this.notify();
  };

  private readonly onTabs = () => {
    this.tabs = (this.model.get("runs") as RunTabs | null) ?? null;
    this.notify();
  };

  private readonly onEarlier = () => {
    this.earlier = (this.model.get("earlier") as Earlier | null) ?? null;
    this.notify();
  };

  constructor(private readonly model: Model) {
    this.requests = new Requests(model, () => this.notify());
    model.on("msg:custom", this.onMessage);
    model.on("change:tokens", this.onTokens);
    model.on("change:samples", this.onSamples);
    model.on("change:audit", this.onAudit);
    model.on("change:runs", this.onTabs);
    model.on("change:earlier", this.onEarlier);
    this.onTokens();
    this.onSamples();
    this.onAudit();
    this.onTabs();
    this.onEarlier();
    const snapshot = model.get("snapshot") as Snapshot | null;
    if (snapshot) this.load(snapshot);
    this.sync();
  }

  dispose(): void {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:tokens", this.onTokens);
    this.model.off("change:samples", this.onSamples);
    this.model.off("change:audit", this.onAudit);
    this.model.off("change:runs", this.onTabs);
    this.model.off("change:earlier", this.onEarlier);
    this.listeners.clear();
    this.draftListeners.clear();
    this.requests.clear();
  }

  /** Call `listener` after every change. */
  subscribe(listener: () => void): Dispose {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Report that a person changed `view`, so that every view of this run shows it. */
  viewChanged(): void {
    this.viewChanges += 1;
    this.notify();
  }

  /** Call `listener` while a person is choosing a setting, and when the choice ends. */
  onDraft(listener: () => void): Dispose {
    this.draftListeners.add(listener);
    return () => this.draftListeners.delete(listener);
  }

  /** The value of a setting: the draft if there is one, else the kernel's. */
  setting(name: string): number | undefined {
    return this.drafts.get(name)?.value ?? this.state?.settings[name];
  }

  /** Record that a person is choosing `value`; sends nothing. */
  draft(name: string, value: number): void {
    this.drafts.set(name, { value, accepted: false });
    this.notifyDraftListeners();
  }

  /** Record that the kernel accepted the draft. It stays until the next state has the setting. */
  acceptDraft(name: string, value: number): void {
    const draft = this.drafts.get(name);
    if (draft?.value !== value) return; // a person is already choosing another value
    if (this.state?.settings[name] === draft.value) this.dropDraft(name);
    else draft.accepted = true;
  }

  /** Discard the draft. */
  dropDraft(name: string): void {
    if (this.drafts.delete(name)) this.notifyDraftListeners();
  }

  /** The steps that charts show: those that a person has zoomed to, or all, with those of the faint curves. */
  get stepsShown(): Range {
    const done = Math.max(this.state?.steps_done ?? 0, ...this.branches.map(({ lastStep }) => lastStep));
    return this.view.range ?? stepRange(done, this.state?.steps_total ?? 0);
  }

  /** Send a request. Resolves to the reason for a refusal, or "". */
  request(request: Omit<Request, "request">): Promise<string> {
    return this.requests.ask(request);
  }

  /** Request a text. Rejects with the reason for a refusal. */
  requestText(request: Omit<Request, "request">): Promise<string> {
    return this.requests.askText(request);
  }

  /** Whether an answer of the kernel is late. */
  get late(): boolean {
    return this.requests.late;
  }

  receive(message: Message, buffers: DataView[]): void {
    if (message.type === "update") this.update(message, buffers);
    else if (message.type === "snapshot") this.replace(withBuffers(message, buffers));
    else if (message.type === "losses") this.losses = message.losses;
    else if (message.type === "reply") this.requests.receiveReply(message);
    else if (message.type === "document") this.requests.receiveText(message.request, buffers[0]);
    if (this.state?.status !== "running") this.requestedStatus = "";
    this.notify();
  }

  private replace(snapshot: Snapshot): void {
    const isSameRun = snapshot.epoch === this.epoch;
    const isWaiting = this.syncSentAtMs !== 0;
    // Another page may have asked for this snapshot while this one is up to date.
    if (isSameRun && snapshot.number <= this.messageNumber && !isWaiting) return;
    if (isSameRun && snapshot.number < this.messageNumber) return;
    this.load(snapshot);
    this.syncSentAtMs = 0;
  }

  private load(snapshot: Snapshot): void {
    if (snapshot.protocol !== PROTOCOL) {
      this.problem = "This page and the kernel run different versions of mint_lab. Reload the page.";
      return;
    }
    this.problem = "";
    this.epoch = snapshot.epoch;
    this.messageNumber = snapshot.number;
    this.seen = snapshot.seen;
    this.state = snapshot.state;
    this.dropAcceptedDrafts();
    this.charts = snapshot.charts;
    this.metrics = snapshot.metrics;
    this.losses = snapshot.losses;
    this.history = History.fromData(snapshot.series);
    this.heats = HeatHistory.fromData(snapshot.heats);
    this.branches = branchesOf(snapshot);
    this.branchesLeftOut = snapshot.branches_left_out;
  }

  private update(update: Update, buffers: DataView[]): void {
    if (update.epoch !== this.epoch || update.first > this.seen) {
      this.sync();
      return;
    }
    if (update.number <= this.messageNumber) return;
    const skip = this.seen - update.first;
    if (update.count > skip) {
      const [steps, values] = buffers;
      if (!steps || !values) {
        this.sync();
        return;
      }
      this.history.append(update.columns, update.count, skip, steps, values);
      // Steps of a histogram only grow, so one whose step is not greater has been added before.
      const lastSteps = new Map([...this.heats.heats].map(([name, heat]) => [name, heat.steps.at(-1) ?? 0]));
      for (const histogram of update.histograms) {
        if (histogram.step > (lastSteps.get(histogram.name) ?? 0)) this.heats.add(histogram);
      }
      this.seen += update.count - skip;
    }
    const isComplete = update.full || update.number === this.messageNumber + 1;
    this.state = { ...(this.state as State), ...update.state };
    if (update.state.settings) this.dropAcceptedDrafts();
    this.messageNumber = update.number;
    if (update.full) this.syncSentAtMs = 0;
    else if (!isComplete) this.sync();
  }

  /** Ask for the missed messages, unless such a request was just sent. */
  private sync(): void {
    if (this.syncSentAtMs && Date.now() - this.syncSentAtMs < SYNC_RETRY_MS) return;
    this.syncSentAtMs = Date.now();
    this.requests.send({ type: "sync", since: this.seen, epoch: this.epoch });
  }

  private dropAcceptedDrafts(): void {
    for (const [name, draft] of this.drafts) if (draft.accepted) this.drafts.delete(name);
  }

  private notifyDraftListeners(): void {
    for (const listener of [...this.draftListeners]) listener();
  }

  private notify(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

/** Put the buffers that travelled beside a snapshot into its fields. */
function withBuffers(snapshot: Snapshot, buffers: DataView[]): Snapshot {
  const remaining = buffers.values();
  const filled = <T extends { steps: DataView; values: DataView }>(part: T): T => {
    const [steps, values] = [remaining.next().value, remaining.next().value];
    if (!steps || !values) {
      throw new RangeError(`a snapshot with ${buffers.length} buffers; expected two for each series and heat map`);
    }
    return { ...part, steps, values };
  };
  const [series, heats] = [snapshot.series.map(filled), snapshot.heats.map(filled)];
  const branches = snapshot.branches.map((branch) => ({ ...branch, series: branch.series.map(filled) }));
  return { ...snapshot, series, heats, branches };
}
