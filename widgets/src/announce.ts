/** Tells the rest of the page, by events on `window`, how a widget's run stands. */

import type { Dispose } from "./dom";
import { RUN, type RunDetail } from "./events";
import type { Store } from "./store";

/** The number that says most about a run: the first of these that it has. */
const METRICS = ["held_out/reward", "reward", "held_out/pair_accuracy", "pair_accuracy", "held_out/nll", "nll"];

/** What of a store is needed here. */
export type Announced = Pick<Store, "state" | "epoch" | "problem" | "history" | "halting" | "subscribe" | "request">;

export class Announcer {
  private readonly views = new Set<HTMLElement>();
  private readonly unsubscribe: Dispose;
  private said: RunDetail | null = null;

  constructor(
    private readonly store: Announced,
    private readonly target: EventTarget = window,
  ) {
    this.unsubscribe = store.subscribe(() => this.tell());
    this.tell();
  }

  /** `element` shows the run until what is returned is called. */
  view(element: HTMLElement): Dispose {
    this.views.add(element);
    this.tell();
    return () => this.views.delete(element);
  }

  dispose(): void {
    this.unsubscribe();
    this.end();
  }

  private tell(): void {
    const detail = this.detail();
    if (this.said && this.said.epoch !== detail?.epoch) this.end();
    if (!detail || same(detail, this.said)) return;
    this.say(detail);
  }

  private end(): void {
    if (this.said && this.said.status !== "gone")
      this.say({ ...this.said, status: "gone", failed: null, element: null });
    this.said = null;
  }

  private say(detail: RunDetail): void {
    this.said = detail;
    this.target.dispatchEvent(new CustomEvent(RUN, { detail }));
  }

  private detail(): RunDetail | null {
    const { state, epoch } = this.store;
    if (!state || !epoch || this.store.problem) return null;
    const ended = state.status === "stopped" || state.status === "finished";
    return {
      epoch,
      status: state.status,
      step: state.steps_done,
      steps: state.steps_total,
      loss: state.loss_label,
      metric: this.metric(),
      failed: ended ? null : (state.failure?.loss ?? state.failure?.reward ?? null),
      element: this.element(),
      stop: this.stop,
    };
  }

  /** A view that is in the page; else any: of a notebook, what is scrolled away may be taken out of the page. */
  private element(): HTMLElement | null {
    const views = [...this.views];
    return views.find((view) => view.isConnected) ?? views[0] ?? null;
  }

  private metric(): RunDetail["metric"] {
    for (const name of METRICS) {
      const value = this.store.history.series.get(name)?.mean.at(-1);
      if (value !== undefined) return { name: name.replace("held_out/", "held-out "), value };
    }
    return null;
  }

  private readonly stop = async (): Promise<string> => {
    const error = await this.store.request({ type: "stop" });
    if (!error && this.store.state?.status === "running") this.store.halting = "stop";
    return error;
  };
}

function same(a: RunDetail, b: RunDetail | null): boolean {
  return b !== null && JSON.stringify(compared(a)) === JSON.stringify(compared(b)) && a.element === b.element;
}

function compared({ element: _, stop: __, ...rest }: RunDetail): Omit<RunDetail, "element" | "stop"> {
  return rest;
}
