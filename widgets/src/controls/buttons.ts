/** Start, Pause, Step, Stop, and how far the run is. */

import { type Dispose, h, icon, listen, setAttributes } from "../dom";
import { Progress } from "../progress";
import type { RequestType, State } from "../protocol";
import type { Store } from "../store";

type Primary = { label: string; request: RequestType; icon: "play" | "pause" | "again"; hint: string };

const PRIMARY: Record<State["status"], Primary> = {
  ready: { label: "Start", request: "start", icon: "play", hint: "Load the model and begin to train" },
  running: { label: "Pause", request: "pause", icon: "pause", hint: "Pause after the current step" },
  paused: { label: "Resume", request: "resume", icon: "play", hint: "Go on with the next step" },
  stopped: { label: "New run", request: "new_run", icon: "again", hint: "Start over with the loss and settings shown" },
  finished: {
    label: "New run",
    request: "new_run",
    icon: "again",
    hint: "Start over with the loss and settings shown",
  },
};

export class RunControls {
  readonly element: HTMLElement;
  private readonly primary = h("button", { type: "button", class: "ml-button ml-primary" });
  private readonly step = h(
    "button",
    { type: "button", class: "ml-button", title: "Make one step" },
    icon("step"),
    "Step",
  );
  private readonly stop = h(
    "button",
    { type: "button", class: "ml-button", title: "End the run after the current step" },
    icon("stop"),
    "Stop",
  );
  private readonly progress = new Progress("Progress");
  private readonly disposers: Dispose[] = [];
  private shown: Primary | null = null;
  private busy = false;

  constructor(
    private readonly store: Store,
    private readonly failed: (message: string) => void,
    /** Whether a run that has ended can be followed by another one here. */
    private readonly renewable = true,
  ) {
    const buttons = h(
      "div",
      { class: "ml-buttons", role: "group", "aria-label": "Run" },
      this.primary,
      this.step,
      this.stop,
    );
    this.element = h("header", { class: "ml-bar" }, buttons, this.progress.element, this.progress.status);
    this.disposers.push(
      listen(this.primary, "click", () => this.ask(this.shown?.request ?? "start")),
      listen(this.step, "click", () => this.ask("step")),
      listen(this.stop, "click", () => this.ask("stop")),
      store.subscribe(() => this.draw()),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  private ask(type: RequestType): void {
    this.busy = true;
    this.draw();
    void this.store.request({ type }).then((error) => {
      this.busy = false;
      const running = this.store.state?.status === "running";
      if (!error) this.store.halting = running && (type === "pause" || type === "stop") ? type : "";
      this.failed(error);
      this.draw();
    });
  }

  private draw(): void {
    const { state } = this.store;
    const status = state?.status ?? "ready";
    const primary = PRIMARY[status];
    if (primary !== this.shown) {
      this.shown = primary;
      this.primary.replaceChildren(icon(primary.icon), primary.label);
      this.primary.title = primary.hint;
    }
    const ended = status === "stopped" || status === "finished";
    // A kernel that does not answer may never: then the buttons can be pressed again.
    const busy = this.busy && !this.store.late;
    setAttributes(this.primary, { disabled: !state || busy, hidden: ended && !this.renewable });
    setAttributes(this.step, { disabled: !state || busy || ended || status === "running" });
    setAttributes(this.stop, { disabled: !state || busy || ended });
    this.progress.show({
      done: state?.steps_done ?? 0,
      total: state?.steps_total ?? 0,
      stepsPerSecond: state?.steps_per_s ?? 0,
      running: status === "running",
      // A failed run that was stopped then is over; why it failed stands below.
      status: state?.failure && !ended ? "failed" : status,
    });
  }
}
