/** The item in the status bar: the current run in one line, a button that stops it, and a menu of all running runs. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Notification } from "@jupyterlab/apputils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { IStatusBar } from "@jupyterlab/statusbar";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { h, icon, setText } from "../../src/lib/dom";
import type { RunDetail } from "../../src/lib/events";
import { notebookOf, reveal } from "./notebook_cells";
import { RunMenu } from "./run_menu";
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
  private readonly count = h("button", {
    type: "button",
    class: "mint-lab-status-count",
    title: "Show or stop each of the running runs",
    hidden: true,
  });
  private readonly menu: RunMenu;
  private readonly unsubscribe: () => void;
  private run: RunDetail | null = null;
  /** Epochs of runs that were asked to stop. */
  private readonly stopping = new Set<string>();

  constructor(
    private readonly runs: Runs,
    private readonly app: JupyterFrontEnd,
    private readonly tracker: INotebookTracker,
  ) {
    super();
    this.addClass("mint-lab-status");
    this.node.setAttribute("role", "group");
    this.node.setAttribute("aria-label", "Training run");
    this.node.append(this.count, this.text, this.stop);
    this.menu = new RunMenu(this.count, {
      show: (run) => this.showNotebook(run),
      stop: (run) => void this.stopRun(run),
    });
    this.text.addEventListener("click", () => this.showNotebook(this.run));
    this.stop.addEventListener("click", () => void this.stopRun(this.run));
    this.unsubscribe = runs.subscribe(() => this.draw());
    this.draw();
  }

  readonly isActive = (): boolean => this.run !== null;

  override dispose(): void {
    if (this.isDisposed) return;
    this.unsubscribe();
    this.menu.dispose();
    Signal.clearData(this);
    super.dispose();
  }

  private async stopRun(run: RunDetail | null): Promise<void> {
    if (!run) return;
    this.stopping.add(run.epoch);
    this.draw();
    const error = await run.stop();
    if (!error || this.isDisposed) return;
    this.stopping.delete(run.epoch);
    this.draw();
    void Notification.error(`The run was not stopped: ${error}`);
  }

  private showNotebook(run: RunDetail | null): void {
    const element = run?.element;
    const panel = element ? notebookOf(this.tracker, element) : null;
    if (element && panel) void reveal(this.app, panel, element);
  }

  private draw(): void {
    const run = this.runs.shown();
    const running = this.runs.running();
    this.count.hidden = running.length < 2;
    setText(this.count, `${running.length} runs`);
    this.menu.draw(running, this.stopping);
    const hasChanged = (run === null) !== (this.run === null);
    this.run = run;
    if (run) {
      const { state, step, loss, metric } = statusTexts(run);
      const isStopping = this.stopping.has(run.epoch);
      setText(this.state, isStopping ? "stopping" : state);
      setText(this.step, step);
      setText(this.loss, loss);
      setText(this.metric, metric);
      this.stop.disabled = isStopping;
    } else this.stopping.clear();
    if (hasChanged) this.activeStateChanged.emit();
  }
}
