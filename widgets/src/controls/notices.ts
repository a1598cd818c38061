/** The most important thing to say in one line that is always there, and a panel if a step failed. */

import { type Dispose, h, setAttributes, setText } from "../lib/dom";
import { short, thousands } from "../lib/format";
import type { Failure, State } from "../messages";
import { KERNEL_BUSY } from "../requests";
import type { RunStore } from "../run_store";

const REQUESTED = {
  pause: "Pausing after the current step. A loss that does not return is cancelled.",
  stop: "Stopping after the current step. A loss that does not return is cancelled.",
};
const UNCHANGED = "Weights and optimizer are as they were before this step.";
/** A longer traceback is folded. */
const MAX_OPEN_TRACEBACK = 900;
/** How often the line is checked for a late answer. */
const REFRESH_MS = 1000;

export class Notices {
  readonly element: HTMLElement;
  private readonly lineText = h("span");
  private readonly line = h("div", { class: "ml-line", "aria-live": "polite" }, this.lineText);
  private readonly title = h("strong");
  private readonly message = h("div", { class: "ml-failure-text" });
  private readonly traceback = h("pre");
  private readonly remedy = h("div", { class: "ml-hint" });
  private readonly details = h("details", {}, h("summary", {}, "Where"), this.traceback);
  private readonly failurePanel = h("div", { class: "ml-failure", role: "alert", hidden: true });
  private readonly disposers: Dispose[] = [];
  private refusal = "";
  private drawnTraceback = "";

  constructor(private readonly store: RunStore) {
    this.failurePanel.append(this.title, this.message, this.details, this.remedy);
    this.element = h("div", { class: "ml-notices" }, this.line, this.failurePanel);
    const timer = window.setInterval(() => this.draw(), REFRESH_MS);
    this.disposers.push(
      store.subscribe(() => this.draw()),
      () => window.clearInterval(timer),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  /** Show why the kernel refused the last request; "" clears it. */
  showRefusal(message: string): void {
    this.refusal = message;
    this.draw();
  }

  private draw(): void {
    const { state } = this.store;
    const { text, kind } = this.notice(state);
    setText(this.lineText, text);
    setAttributes(this.line, { "data-kind": kind, title: text });
    const failure = state?.failure ?? null;
    if (this.failurePanel.hidden !== (failure === null)) this.failurePanel.hidden = failure === null;
    if (!failure) return;
    const hasLine = failure.line === null || failure.message.includes(`line ${failure.line}`);
    const where = hasLine ? "" : `, line ${failure.line} of ${state?.loss ?? "the loss"}`;
    setText(this.title, `Step ${thousands(failure.step)} failed${where}`);
    setText(this.message, failure.message);
    if (this.drawnTraceback !== failure.traceback) {
      this.drawnTraceback = failure.traceback;
      const lines = sourceLines(failure.traceback);
      this.details.open = lines.length > 0 || failure.traceback.length < MAX_OPEN_TRACEBACK;
      this.traceback.replaceChildren(...(lines.length > 0 ? lines : [failure.traceback]));
    }
    this.details.hidden = failure.traceback === "";
    setText(this.remedy, `${UNCHANGED} ${this.remedyFor(failure, state)}`);
  }

  private remedyFor(failure: Failure, state: State | null): string {
    if (state?.status === "stopped") return "The run is over; New run starts over.";
    if (failure.reward !== null) return fixAndRun(failure.reward);
    const isCustom = this.store.losses.find((entry) => entry.name === failure.loss)?.family === "custom";
    if (isCustom && failure.loss !== null) return fixAndRun(failure.loss);
    if (failure.loss !== null) return "Choose another loss or other settings, then press Resume.";
    if (failure.line === null) return "Resume retries the step.";
    return "Fix the loss and run its cell, then press Resume.";
  }

  private notice(state: State | null): { text: string; kind: "warning" | "quiet" } {
    if (this.store.problem) return { text: this.store.problem, kind: "warning" };
    if (this.store.late) return { text: KERNEL_BUSY, kind: "warning" };
    if (this.refusal) return { text: this.refusal, kind: "warning" };
    if (state?.activity) return { text: state.activity, kind: "quiet" };
    if (state?.activity_error) return { text: state.activity_error, kind: "warning" };
    return { text: state ? statusText(state, this.store) : "", kind: "quiet" };
  }
}

function fixAndRun(name: string): string {
  return `Fix ${name} and run its cell: the run then resumes with this step.`;
}

/** The numbered source lines in a traceback of a loss, with the failing one marked; empty if it has none. */
function sourceLines(traceback: string): HTMLElement[] {
  const lines = traceback.split("\n").filter((line) => /^(-->| {3}) +\d+( |$)/.test(line));
  if (!lines.some((line) => line.startsWith("-->"))) return [];
  return lines.map((line) => h("div", { class: line.startsWith("-->") ? "ml-code ml-marked" : "ml-code" }, line));
}

/** The line below the buttons if there is nothing to warn about. */
export function statusText(state: State, store: Pick<RunStore, "history" | "requestedStatus">): string {
  if (state.status === "ready") {
    const data = state.data ? ` on ${state.data}` : "";
    return `${state.base_model || "The model"} will learn${data}. No step is complete yet.`;
  }
  if (state.status === "running") {
    if (store.requestedStatus) return REQUESTED[store.requestedStatus];
    if (state.steps_done === 0) return "Loading the model and the data…";
    const data = state.data ? `Learning from ${state.data}. ` : "";
    return `${data}A change of the loss or a setting takes effect at the next step.`;
  }
  const how = { paused: "Paused after", stopped: "Stopped after", finished: "Finished" }[state.status];
  const steps = `${thousands(state.steps_done)} ${state.steps_done === 1 ? "step" : "steps"}`;
  return `${how} ${steps}. ${outcomeText(state, store)}`;
}

/** The most important metric that was measured before training: its value then and now. */
function outcomeText(state: State, { history }: Pick<RunStore, "history">): string {
  const name = state.headlines.find((candidate) => candidate in state.baseline);
  const last = name === undefined ? undefined : history.series.get(`held_out/${name}`)?.mean.at(-1);
  if (name === undefined || last === undefined) return "";
  return `Held-out ${name} ${short(state.baseline[name])} → ${short(last)}.`;
}
