/** The item in the status bar: the current run in one line, and a button that stops it. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Notification } from "@jupyterlab/apputils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { IStatusBar } from "@jupyterlab/statusbar";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { h, icon, setText } from "../../src/lib/dom";
import type { RunDetail } from "../../src/lib/events";
import { notebookOf, reveal } from "./notebook_cells";
import { type Runs, statusTexts } from "./runs";

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
  /** Epoch of the run that was asked to stop; empty for none. */
  private stoppingEpoch = "";

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
    this.stop.addEventListener("click", () => void this.stopRun());
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

  private async stopRun(): Promise<void> {
    const { run } = this;
    if (!run) return;
    this.stoppingEpoch = run.epoch;
    this.draw(run);
    const error = await run.stop();
    if (!error || this.isDisposed) return;
    this.stoppingEpoch = "";
    this.draw(this.run);
    void Notification.error(`The run was not stopped: ${error}`);
  }

  private showNotebook(): void {
    const element = this.run?.element;
    const panel = element ? notebookOf(this.tracker, element) : null;
    if (element && panel) void reveal(this.app, panel, element);
  }

  private draw(run: RunDetail | null): void {
    const hasChanged = (run === null) !== (this.run === null);
    this.run = run;
    if (run) {
      const { state, step, loss, metric } = statusTexts(run);
      const isStopping = this.stoppingEpoch === run.epoch;
      setText(this.state, isStopping ? "stopping" : state);
      setText(this.step, step);
      setText(this.loss, loss);
      setText(this.metric, metric);
      this.stop.disabled = isStopping;
    } else this.stoppingEpoch = "";
    if (hasChanged) this.activeStateChanged.emit();
  }
}
