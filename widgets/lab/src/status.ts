/** The status bar's item: the current run in a line, and a button that stops it. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Notification } from "@jupyterlab/apputils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { IStatusBar } from "@jupyterlab/statusbar";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { h, icon, setText } from "../../src/lib/dom";
import type { RunDetail } from "../../src/lib/events";
import { panelOf, reveal } from "./places";
import { type Runs, words } from "./runs";

export class RunStatus extends Widget implements IStatusBar.IItem {
  readonly item = this;
  readonly align = "middle";
  readonly activeStateChanged = new Signal<this, void>(this);
  private readonly state = h("strong", { class: "mint-lab-status-state" });
  private readonly step = h("span", { class: "mint-lab-status-number" });
  private readonly loss = h("bdi", { class: "mint-lab-status-loss" });
  private readonly metric = h("span", { class: "mint-lab-status-number" });
  private readonly text = h(
    "button",
    { type: "button", class: "mint-lab-status-text", title: "Show the notebook of this run" },
    ...[this.state, this.step, this.loss, this.metric],
  );
  private readonly stop = h(
    "button",
    { type: "button", class: "mint-lab-status-stop", title: "Stop this run after the current step" },
    ...[icon("stop"), "Stop"],
  );
  private readonly unsubscribe: () => void;
  private run: RunDetail | null = null;
  /** The run that was asked to stop. */
  private stopping = "";

  constructor(
    runs: Runs,
    private readonly app: JupyterFrontEnd,
    private readonly tracker: INotebookTracker,
  ) {
    super();
    this.addClass("mint-lab-status");
    this.node.setAttribute("role", "group");
    this.node.setAttribute("aria-label", "Training run");
    this.node.append(this.text, this.stop);
    this.text.addEventListener("click", () => this.showNotebook());
    this.stop.addEventListener("click", () => void this.halt());
    this.unsubscribe = runs.subscribe(() => this.draw(runs.shown()));
    this.draw(runs.shown());
  }

  readonly isActive = (): boolean => this.run !== null;

  override dispose(): void {
    if (this.isDisposed) return;
    this.unsubscribe();
    Signal.clearData(this);
    super.dispose();
  }

  private async halt(): Promise<void> {
    const { run } = this;
    if (!run) return;
    this.stopping = run.epoch;
    this.draw(run);
    const error = await run.stop();
    if (!error || this.isDisposed) return;
    this.stopping = "";
    this.draw(this.run);
    void Notification.error(`The run was not stopped: ${error}`);
  }

  private showNotebook(): void {
    const element = this.run?.element;
    const panel = element ? panelOf(this.tracker, element) : null;
    if (element && panel) void reveal(this.app, panel, element);
  }

  private draw(run: RunDetail | null): void {
    const changed = (run === null) !== (this.run === null);
    this.run = run;
    if (run) {
      const { state, step, loss, metric } = words(run);
      const stopping = this.stopping === run.epoch;
      setText(this.state, stopping ? "stopping" : state);
      setText(this.step, step);
      setText(this.loss, loss);
      setText(this.metric, metric);
      this.stop.disabled = stopping;
    } else this.stopping = "";
    if (changed) this.activeStateChanged.emit();
  }
}
