/** Start, Pause, Step, Stop, and how far the run is. */

import { type Dispose, h, icon, listen, setAttributes, setText } from "../dom";
import { duration, thousands } from "../format";
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

const WORDS: Record<State["status"], string> = {
  ready: "ready",
  running: "running",
  paused: "paused",
  stopped: "stopped",
  finished: "finished",
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
  private readonly fill = h("div", { class: "ml-fill" });
  private readonly track = h(
    "div",
    { class: "ml-track", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0 },
    this.fill,
  );
  private readonly count = h("span", { class: "ml-count" });
  private readonly rate = h("span", { class: "ml-rate" });
  private readonly left = h("span", { class: "ml-left" });
  private readonly status = h("span", { class: "ml-status", role: "status" });
  private readonly disposers: Dispose[] = [];
  private shown: Primary | null = null;
  private busy = false;

  constructor(
    private readonly store: Store,
    private readonly failed: (message: string) => void,
  ) {
    const buttons = h(
      "div",
      { class: "ml-buttons", role: "group", "aria-label": "Run" },
      this.primary,
      this.step,
      this.stop,
    );
    const progress = h(
      "div",
      { class: "ml-progress" },
      this.track,
      h("div", { class: "ml-numbers" }, this.count, this.rate, this.left),
    );
    this.element = h("header", { class: "ml-bar" }, buttons, progress, this.status);
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
    setAttributes(this.primary, { disabled: !state || this.busy });
    setAttributes(this.step, { disabled: !state || this.busy || ended || status === "running" });
    setAttributes(this.stop, { disabled: !state || this.busy || ended });
    const done = state?.steps_done ?? 0;
    const total = state?.steps_total ?? 0;
    this.fill.style.width = total > 0 ? `${(100 * Math.min(done, total)) / total}%` : "0";
    setAttributes(this.track, { "aria-valuemax": total || null, "aria-valuenow": done });
    setText(this.count, total ? `step ${thousands(done)} / ${thousands(total)}` : `step ${thousands(done)}`);
    const rate = state?.steps_per_s ?? 0;
    setText(this.rate, rate > 0 ? `${rate.toFixed(rate < 10 ? 1 : 0)} steps/s` : "");
    const seconds = (total - done) / rate;
    setText(this.left, status === "running" && rate > 0 && total ? `${duration(seconds)} left` : "");
    const failed = state?.failure ? "failed" : status;
    if (this.status.dataset.status !== failed) {
      this.status.dataset.status = failed;
      this.status.replaceChildren(h("i"), state?.failure ? "failed" : WORDS[status]);
    }
  }
}
