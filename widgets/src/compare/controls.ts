/** Start, Pause and Stop for all runs, and how far they are together. */

import { type Dispose, h, icon, listen, setAttributes } from "../dom";
import { thousands } from "../format";
import { Progress } from "../progress";
import type { CompareRequestType } from "../protocol_runs";
import type { CompareStore } from "./store";

type Primary = { label: string; request: CompareRequestType; icon: "play" | "pause"; hint: string };

const START: Primary = { label: "Start", request: "start", icon: "play", hint: "Load the model and train every run" };
const PAUSE: Primary = { label: "Pause", request: "pause", icon: "pause", hint: "Pause every run after its step" };
const RESUME: Primary = { label: "Resume", request: "resume", icon: "play", hint: "Go on with every run" };

const OVER = "Every run has ended; make a new comparison to start over";

export class CompareControls {
  readonly element: HTMLElement;
  private readonly primary = h("button", { type: "button", class: "ml-button ml-primary" });
  private readonly stop = h(
    "button",
    { type: "button", class: "ml-button", title: "End every run after its current step" },
    icon("stop"),
    "Stop",
  );
  private readonly progress = new Progress("Progress of all runs");
  private readonly disposers: Dispose[] = [];
  private shown: Primary = START;
  private busy = false;

  constructor(private readonly store: CompareStore) {
    const buttons = h("div", { class: "ml-buttons", role: "group", "aria-label": "All runs" }, this.primary, this.stop);
    this.element = h("header", { class: "ml-bar" }, buttons, this.progress.element, this.progress.status);
    this.primary.append(icon("play"), "Start");
    this.disposers.push(
      listen(this.primary, "click", () => this.ask(this.shown.request)),
      listen(this.stop, "click", () => this.ask("stop")),
      store.subscribe(() => this.draw()),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  private ask(type: CompareRequestType): void {
    this.busy = true;
    this.draw();
    void this.store.request({ type }).then(() => {
      this.busy = false;
      this.draw();
    });
  }

  private draw(): void {
    const { status, runs } = this.store;
    const ended = status === "stopped" || status === "finished";
    const begun = runs.some((run) => run.store.seen > 0);
    const primary = status === "running" ? PAUSE : begun && !ended ? RESUME : START;
    if (primary !== this.shown) {
      this.shown = primary;
      this.primary.replaceChildren(icon(primary.icon), primary.label);
    }
    // A kernel that does not answer may never: then the buttons can be pressed again.
    const busy = this.busy && !this.store.late;
    setAttributes(this.primary, {
      disabled: busy || ended || runs.length === 0,
      title: ended ? OVER : primary.hint,
    });
    setAttributes(this.stop, { disabled: busy || ended || runs.length === 0 });
    const states = runs.map((run) => run.store.state);
    const done = states.reduce((sum, state) => sum + (state?.steps_done ?? 0), 0);
    const total = states.reduce((sum, state) => sum + (state?.steps_total ?? 0), 0);
    this.progress.show({
      done,
      total,
      stepsPerSecond: states.reduce((sum, state) => sum + (state?.status === "running" ? state.steps_per_s : 0), 0),
      running: status === "running",
      count: `${thousands(done)} / ${thousands(total)} steps of ${runs.length} runs`,
      status: states.some((state) => state?.failure) && status !== "running" && !ended ? "failed" : status,
    });
  }
}
