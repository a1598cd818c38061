/** Reports the status of a widget's run to the rest of the page, by events on `window`. */

import type { Dispose } from "./lib/dom";
import { RUN, type RunDetail } from "./lib/events";
import type { RunStore } from "./run_store";

/** The part of a store that is used here. */
export type AnnouncedRun = Pick<
  RunStore,
  "state" | "epoch" | "problem" | "history" | "requestedStatus" | "subscribe" | "request"
>;

export class Announcer {
  private readonly views = new Set<HTMLElement>();
  private readonly unsubscribe: Dispose;
  private lastDetail: RunDetail | null = null;

  constructor(
    private readonly store: AnnouncedRun,
    private readonly target: EventTarget = window,
    /** Requests the end of the run. Resolves to the reason for a refusal, or "". */
    private readonly askToStop: () => Promise<string> = () => store.request({ type: "stop" }),
  ) {
    this.unsubscribe = store.subscribe(() => this.update());
    this.update();
  }

  /** Record that `element` shows the run, until the returned function is called. */
  addView(element: HTMLElement): Dispose {
    this.views.add(element);
    this.update();
    return () => this.views.delete(element);
  }

  dispose(): void {
    this.unsubscribe();
    this.announceEnd();
  }

  private update(): void {
    const detail = this.detail();
    if (this.lastDetail && this.lastDetail.epoch !== detail?.epoch) this.announceEnd();
    if (!detail || isEqual(detail, this.lastDetail)) return;
    this.dispatch(detail);
  }

  private announceEnd(): void {
    if (this.lastDetail && this.lastDetail.status !== "gone")
      this.dispatch({ ...this.lastDetail, status: "gone", failed: null, element: null });
    this.lastDetail = null;
  }

  private dispatch(detail: RunDetail): void {
    this.lastDetail = detail;
    this.target.dispatchEvent(new CustomEvent(RUN, { detail }));
  }

  private detail(): RunDetail | null {
    const { state, epoch } = this.store;
    if (!state || !epoch || this.store.problem) return null;
    const isOver = state.status === "stopped" || state.status === "finished";
    return {
      epoch,
      run: state.key,
      status: state.status,
      step: state.steps_done,
      steps: state.steps_total,
      loss: state.loss_label,
      metric: this.headline(),
      failed: isOver ? null : (state.failure?.loss ?? state.failure?.reward ?? null),
      element: this.element(),
      stop: this.stop,
    };
  }

  /** A view that is in the document, else any: JupyterLab may remove cells that are out of sight from the document. */
  private element(): HTMLElement | null {
    const views = [...this.views];
    return views.find((view) => view.isConnected) ?? views[0] ?? null;
  }

  /** The latest value of the most important metric that the run has, preferably of held-out data. */
  private headline(): RunDetail["metric"] {
    for (const name of this.store.state?.headlines ?? []) {
      const { series } = this.store.history;
      const heldOut = series.get(`held_out/${name}`)?.mean.at(-1);
      if (heldOut !== undefined) return { name: `held-out ${name}`, value: heldOut };
      const training = series.get(name)?.mean.at(-1);
      if (training !== undefined) return { name, value: training };
    }
    return null;
  }

  private readonly stop = async (): Promise<string> => {
    const error = await this.askToStop();
    if (!error && this.store.state?.status === "running") this.store.requestedStatus = "stop";
    return error;
  };
}

function isEqual(a: RunDetail, b: RunDetail | null): boolean {
  return b !== null && JSON.stringify(plainData(a)) === JSON.stringify(plainData(b)) && a.element === b.element;
}

function plainData({ element: _, stop: __, ...data }: RunDetail): Omit<RunDetail, "element" | "stop"> {
  return data;
}
