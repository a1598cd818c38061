/** What a person should know now: one line that is always there, and a panel when a step failed. */

import { type Dispose, h, setAttributes, setText } from "../dom";
import { short, thousands } from "../format";
import type { Failure, State } from "../protocol";
import { BUSY } from "../requests";
import type { Store } from "../store";

const HALTING = {
  pause: "Pausing after the current step. A loss that does not return is broken off.",
  stop: "Stopping after the current step. A loss that does not return is broken off.",
};
const KEPT = "Weights and optimizer are as they were before this step.";

export class Notices {
  readonly element: HTMLElement;
  private readonly words = h("span");
  private readonly line = h("div", { class: "ml-line", "aria-live": "polite" }, this.words);
  private readonly title = h("strong");
  private readonly message = h("div", { class: "ml-failure-text" });
  private readonly trace = h("pre");
  private readonly hint = h("div", { class: "ml-hint" });
  private readonly details = h("details", {}, h("summary", {}, "Where"), this.trace);
  private readonly failure = h("div", { class: "ml-failure", role: "alert", hidden: true });
  private readonly disposers: Dispose[] = [];
  private refused = "";
  private told = "";

  constructor(private readonly store: Store) {
    this.failure.append(this.title, this.message, this.details, this.hint);
    this.element = h("div", { class: "ml-notices" }, this.line, this.failure);
    const timer = window.setInterval(() => this.draw(), 1000);
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

  /** Says why the kernel refused the last request; "" clears it. */
  refuse(message: string): void {
    this.refused = message;
    this.draw();
  }

  private draw(): void {
    const { state } = this.store;
    const { text, kind } = this.advice(state);
    setText(this.words, text);
    setAttributes(this.line, { "data-kind": kind, title: text });
    const failure = state?.failure ?? null;
    if (this.failure.hidden !== (failure === null)) this.failure.hidden = failure === null;
    if (!failure) return;
    const told = failure.line === null || failure.message.includes(`line ${failure.line}`);
    const where = told ? "" : `, line ${failure.line} of ${state?.loss ?? "the loss"}`;
    setText(this.title, `Step ${thousands(failure.step)} failed${where}`);
    setText(this.message, failure.message);
    if (this.told !== failure.traceback) {
      this.told = failure.traceback;
      const own = ownLines(failure.traceback);
      // The loss's own lines are what one wants to see; a long trace stays folded until asked for.
      this.details.open = own.length > 0 || failure.traceback.length < 900;
      this.trace.replaceChildren(...(own.length > 0 ? own : [failure.traceback]));
    }
    this.details.hidden = failure.traceback === "";
    setText(this.hint, `${KEPT} ${this.remedy(failure, state)}`);
  }

  private remedy(failure: Failure, state: State | null): string {
    if (state?.status === "stopped") return "The run has ended; New run starts over.";
    if (failure.reward !== null) {
      return `Mend ${failure.reward} and run its cell: the run goes on from this step by itself.`;
    }
    const own = this.store.losses.find((entry) => entry.name === failure.loss)?.family === "custom";
    if (own) return `Mend ${failure.loss} and run its cell: the run goes on from this step by itself.`;
    if (failure.loss !== null) return "Choose another loss or other settings, then press Resume.";
    if (failure.line === null) return "Resume makes the step again.";
    return "Mend the loss and run its cell, then press Resume.";
  }

  private advice(state: State | null): { text: string; kind: string } {
    if (this.store.problem) return { text: this.store.problem, kind: "warning" };
    if (this.store.late) return { text: BUSY, kind: "warning" };
    if (this.refused) return { text: this.refused, kind: "warning" };
    if (!state) return { text: "", kind: "quiet" };
    return { text: calm(state, this.store), kind: "quiet" };
  }
}

/** The numbered lines of the loss that a traceback shows, the failing one marked; none where it shows no such line. */
function ownLines(traceback: string): HTMLElement[] {
  const lines = traceback.split("\n").filter((line) => /^(-->| {3}) +\d+( |$)/.test(line));
  if (!lines.some((line) => line.startsWith("-->"))) return [];
  return lines.map((line) => h("div", { class: line.startsWith("-->") ? "ml-code ml-marked" : "ml-code" }, line));
}

/** What of a store is told about. */
type Told = Pick<Store, "history" | "halting">;

/** The line below the buttons, while there is nothing to warn of. */
export function calm(state: State, store: Told): string {
  if (state.status === "ready") {
    const data = state.data ? ` on ${state.data}` : "";
    return `${state.base_model || "The model"} will learn${data}. No step has been made yet.`;
  }
  if (state.status === "running") {
    if (store.halting) return HALTING[store.halting];
    if (state.steps_done === 0) return "Loading the model and the data…";
    const data = state.data ? `Learning from ${state.data}. ` : "";
    return `${data}A change of the loss or a setting takes effect at the next step.`;
  }
  const how = { paused: "Paused after", stopped: "Stopped after", finished: "Finished" }[state.status];
  const steps = `${thousands(state.steps_done)} ${state.steps_done === 1 ? "step" : "steps"}`;
  return `${how} ${steps}. ${progress(state, store)}`;
}

/** What the run achieved on held-out data: the first of these that it measured before training. */
function progress(state: State, { history }: Told): string {
  const name = ["pair_accuracy", "reward", "loss"].find((candidate) => candidate in state.baseline);
  const last = name === undefined ? undefined : history.series.get(`held_out/${name}`)?.mean.at(-1);
  if (name === undefined || last === undefined) return "";
  return `Held-out ${name} ${short(state.baseline[name])} → ${short(last)}.`;
}
