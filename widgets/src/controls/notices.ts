/** What a person should know now: one line that is always there, and a panel when a step failed. */

import { type Dispose, h, setAttributes, setText } from "../dom";
import { short, thousands } from "../format";
import type { State } from "../protocol";
import type { Store } from "../store";

const PATIENCE_MS = 1500;

export class Notices {
  readonly element: HTMLElement;
  private readonly words = h("span");
  private readonly line = h("div", { class: "ml-line", "aria-live": "polite" }, this.words);
  private readonly title = h("strong");
  private readonly message = h("div", { class: "ml-failure-text" });
  private readonly trace = h("pre");
  private readonly details = h("details", {}, h("summary", {}, "Where"), this.trace);
  private readonly failure = h("div", { class: "ml-failure", role: "alert", hidden: true });
  private readonly disposers: Dispose[] = [];
  private refused = "";

  constructor(private readonly store: Store) {
    const hint =
      "Weights and optimizer are as they were before this step. Mend the loss, run its cell, then press Resume.";
    this.failure.append(this.title, this.message, this.details, h("div", { class: "ml-quiet" }, hint));
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
    // A short trace (the loss's own lines) is what one wants to see; a long one stays folded until asked for.
    if (this.trace.textContent !== failure.traceback) this.details.open = failure.traceback.length < 900;
    setText(this.trace, failure.traceback);
    this.details.hidden = failure.traceback === "";
  }

  private advice(state: State | null): { text: string; kind: string } {
    if (this.store.problem) return { text: this.store.problem, kind: "warning" };
    if (this.store.waited > PATIENCE_MS) {
      return { text: "The kernel is busy with a cell; it answers as soon as that is done.", kind: "warning" };
    }
    if (this.refused) return { text: this.refused, kind: "warning" };
    if (!state) return { text: "", kind: "quiet" };
    return { text: calm(state, this.store), kind: "quiet" };
  }
}

function calm(state: State, store: Store): string {
  if (state.status === "ready") {
    const data = state.data ? ` on ${state.data}` : "";
    return `${state.base_model || "The model"} will learn${data}. No step has been made yet.`;
  }
  if (state.status === "running") {
    if (state.steps_done === 0) return "Loading the model and the data…";
    const data = state.data ? `Learning from ${state.data}. ` : "";
    return `${data}A change of the loss or a setting takes effect at the next step.`;
  }
  const how = { paused: "Paused after", stopped: "Stopped after", finished: "Finished" }[state.status];
  return `${how} ${thousands(state.steps_done)} steps. ${progress(state, store)}`;
}

/** What the run achieved on held-out data. */
function progress(state: State, store: Store): string {
  const name = ["pair_accuracy", "loss"].find((candidate) => candidate in state.baseline);
  const last = name && store.history.series.get(`held_out/${name}`)?.mean.at(-1);
  if (!name || last === undefined || last === "") return "";
  return `Held-out ${name} ${short(state.baseline[name])} → ${short(last)}.`;
}
