/** A row of buttons that start, pause, step and stop, with the progress beside them: of one run or of several. */

import { type Dispose, h, type IconName, icon, listen, setAttributes, setText } from "../lib/dom";
import { duration, thousands } from "../lib/format";
import type { RequestType, State } from "../messages";
import type { MultiRunStore } from "../multi_run_store";
import type { CompareRequestType } from "../run_messages";
import type { RunStore } from "../run_store";

/** The first button, which changes with the status. */
interface PrimaryButton<R extends string> {
  label: string;
  request: R;
  icon: IconName;
  title: string;
}

interface Progress {
  done: number;
  /** 0 if unknown. */
  total: number;
  stepsPerSecond: number;
  isRunning: boolean;
  /** Replaces "step 3 / 10". */
  count?: string;
  status: string;
}

/** What a row shows. */
interface RowState<R extends string> {
  primary: PrimaryButton<R>;
  /** Buttons that can be pressed; without an entry, one is disabled. */
  enabled: { primary: boolean; step?: boolean; stop: boolean };
  isPrimaryHidden?: boolean;
  progress: Progress;
}

/** What a row needs from its runs. */
interface RowSource<R extends string> {
  state: () => RowState<R>;
  /** Send a request; resolves when the kernel has answered. */
  send: (type: R) => Promise<void>;
  /** Whether an answer is late. */
  isLate: () => boolean;
  subscribe: (listener: () => void) => Dispose;
}

interface RowLabels<R extends string> {
  group: string;
  progress: string;
  stopTitle: string;
  stop: R;
  /** Request of the step button; without one there is no such button. */
  step?: R;
}

export class ButtonRow<R extends string> {
  readonly element: HTMLElement;
  private readonly primary = h("button", { type: "button", class: "ml-button ml-primary" });
  private readonly step: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly progress: ProgressBar;
  private readonly disposers: Dispose[] = [];
  private drawnPrimary: PrimaryButton<R> | null = null;
  private isWaiting = false;

  constructor(
    private readonly source: RowSource<R>,
    labels: RowLabels<R>,
  ) {
    this.step = h("button", { type: "button", class: "ml-button", title: "Do one step" }, icon("step"), "Step");
    this.stop = h("button", { type: "button", class: "ml-button", title: labels.stopTitle }, icon("stop"), "Stop");
    this.progress = new ProgressBar(labels.progress);
    const buttons = h("div", { class: "ml-buttons", role: "group", "aria-label": labels.group });
    buttons.append(this.primary, ...(labels.step ? [this.step] : []), this.stop);
    this.element = h("header", { class: "ml-bar" }, buttons, this.progress.element, this.progress.status);
    this.disposers.push(
      listen(this.primary, "click", () => this.send(this.source.state().primary.request)),
      listen(this.step, "click", () => labels.step && this.send(labels.step)),
      listen(this.stop, "click", () => this.send(labels.stop)),
      source.subscribe(() => this.draw()),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  /** Send a request; all buttons are disabled until the answer. */
  private send(type: R): void {
    this.isWaiting = true;
    this.draw();
    void this.source.send(type).then(() => {
      this.isWaiting = false;
      this.draw();
    });
  }

  private draw(): void {
    const { primary, enabled, isPrimaryHidden, progress } = this.source.state();
    if (primary !== this.drawnPrimary) {
      this.drawnPrimary = primary;
      this.primary.replaceChildren(icon(primary.icon), primary.label);
      this.primary.title = primary.title;
    }
    // If the kernel does not answer in time, the buttons can be pressed again.
    const isBlocked = this.isWaiting && !this.source.isLate();
    setAttributes(this.primary, { disabled: isBlocked || !enabled.primary, hidden: isPrimaryHidden ?? false });
    setAttributes(this.step, { disabled: isBlocked || !enabled.step });
    setAttributes(this.stop, { disabled: isBlocked || !enabled.stop });
    this.progress.show(progress);
  }
}

/** The progress bar, the numbers below it, and the status. */
class ProgressBar {
  readonly element: HTMLElement;
  readonly status = h("span", { class: "ml-status", role: "status" });
  private readonly fill = h("div", { class: "ml-fill" });
  private readonly track: HTMLElement;
  private readonly count = h("span", { class: "ml-count" });
  private readonly rate = h("span", { class: "ml-rate" });
  private readonly remaining = h("span", { class: "ml-left" });

  constructor(label: string) {
    this.track = h(
      "div",
      { class: "ml-track", role: "progressbar", "aria-label": label, "aria-valuemin": 0 },
      this.fill,
    );
    const numbers = h("div", { class: "ml-numbers" }, this.count, this.rate, this.remaining);
    this.element = h("div", { class: "ml-progress" }, this.track, numbers);
  }

  show({ done, total, stepsPerSecond: rate, isRunning, count, status }: Progress): void {
    this.fill.style.width = total > 0 ? `${(100 * Math.min(done, total)) / total}%` : "0";
    setAttributes(this.track, { "aria-valuemax": total || null, "aria-valuenow": done });
    setText(this.count, count ?? `step ${thousands(done)}${total ? ` / ${thousands(total)}` : ""}`);
    setText(this.rate, rate > 0 ? `${rate.toFixed(rate < 10 ? 1 : 0)} steps/s` : "");
    setText(this.remaining, isRunning && rate > 0 && total ? `${duration((total - done) / rate)} left` : "");
    if (this.status.dataset.status !== status) {
      this.status.dataset.status = status;
      this.status.replaceChildren(h("i"), status);
    }
  }
}

const NEW_RUN: PrimaryButton<RequestType> = {
  label: "New run",
  request: "new_run",
  icon: "again",
  title: "Start over with the loss and settings shown",
};

const RUN_PRIMARY: Record<State["status"], PrimaryButton<RequestType>> = {
  ready: { label: "Start", request: "start", icon: "play", title: "Load the model and start training" },
  running: { label: "Pause", request: "pause", icon: "pause", title: "Pause after the current step" },
  paused: { label: "Resume", request: "resume", icon: "play", title: "Continue with the next step" },
  stopped: NEW_RUN,
  finished: NEW_RUN,
};

/**
 * The buttons of one run.
 *
 * @param onRefusal Called with the reason for each refusal, and with "" when a request was accepted.
 * @param canRenew Whether a new run can follow one that is over.
 */
export function runButtons(
  store: RunStore,
  onRefusal: (message: string) => void,
  canRenew = true,
): ButtonRow<RequestType> {
  const send = async (type: RequestType) => {
    const error = await store.request({ type });
    const isRunning = store.state?.status === "running";
    if (!error) store.requestedStatus = isRunning && (type === "pause" || type === "stop") ? type : "";
    onRefusal(error);
  };
  const state = (): RowState<RequestType> => {
    const { state: run } = store;
    const status = run?.status ?? "ready";
    const isOver = status === "stopped" || status === "finished";
    return {
      primary: RUN_PRIMARY[status],
      enabled: {
        primary: run !== null,
        step: run !== null && !isOver && status !== "running",
        stop: run !== null && !isOver,
      },
      isPrimaryHidden: isOver && !canRenew,
      progress: {
        done: run?.steps_done ?? 0,
        total: run?.steps_total ?? 0,
        stepsPerSecond: run?.steps_per_s ?? 0,
        isRunning: status === "running",
        // A failed run that was then stopped is over; the panel below says why it failed.
        status: run?.failure && !isOver ? "failed" : status,
      },
    };
  };
  return new ButtonRow(
    { state, send, isLate: () => store.late, subscribe: (listener) => store.subscribe(listener) },
    { group: "Run", progress: "Progress", stopTitle: "End the run after the current step", stop: "stop", step: "step" },
  );
}

const START_ALL: PrimaryButton<CompareRequestType> = {
  label: "Start",
  request: "start",
  icon: "play",
  title: "Load the model and train every run",
};
const PAUSE_ALL: PrimaryButton<CompareRequestType> = {
  label: "Pause",
  request: "pause",
  icon: "pause",
  title: "Pause every run after its current step",
};
const RESUME_ALL: PrimaryButton<CompareRequestType> = {
  label: "Resume",
  request: "resume",
  icon: "play",
  title: "Resume every run",
};
const ALL_OVER: PrimaryButton<CompareRequestType> = {
  ...START_ALL,
  title: "Every run is over; create a new comparison to start again",
};

/** The buttons of a comparison, for all of its runs together. */
export function comparisonButtons(store: MultiRunStore): ButtonRow<CompareRequestType> {
  const state = (): RowState<CompareRequestType> => {
    const { status, runs } = store;
    const isOver = status === "stopped" || status === "finished";
    const hasRecords = runs.some((run) => run.store.seen > 0);
    const states = runs.map((run) => run.store.state);
    const done = states.reduce((sum, run) => sum + (run?.steps_done ?? 0), 0);
    const total = states.reduce((sum, run) => sum + (run?.steps_total ?? 0), 0);
    const isFailed = states.some((run) => run?.failure) && status !== "running" && !isOver;
    const canPress = !isOver && runs.length > 0;
    return {
      primary: isOver ? ALL_OVER : status === "running" ? PAUSE_ALL : hasRecords ? RESUME_ALL : START_ALL,
      enabled: { primary: canPress, stop: canPress },
      progress: {
        done,
        total,
        stepsPerSecond: states.reduce((sum, run) => sum + (run?.status === "running" ? run.steps_per_s : 0), 0),
        isRunning: status === "running",
        count: `${thousands(done)} / ${thousands(total)} steps of ${runs.length} runs`,
        status: isFailed ? "failed" : status,
      },
    };
  };
  return new ButtonRow(
    {
      state,
      send: (type) => store.request({ type }),
      isLate: () => store.late,
      subscribe: (listener) => store.subscribe(listener),
    },
    {
      group: "All runs",
      progress: "Progress of all runs",
      stopTitle: "End every run after its current step",
      stop: "stop",
    },
  );
}
