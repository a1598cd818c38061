/** The runs that widgets have announced, and which of them the status bar shows. */

import type { RunDetail } from "../../src/lib/events";
import { short, thousands } from "../../src/lib/format";

/** A status without a rank is not shown. */
const RANKS: Partial<Record<RunDetail["status"], number>> = { running: 2, paused: 1 };

/** Whether `detail` has the expected form. A widget of another version may send another one, which is ignored. */
export function isRunDetail(detail: unknown): detail is RunDetail {
  const { epoch, status, step, loss } = (detail ?? {}) as Partial<RunDetail>;
  const strings = [epoch, status, loss].every((value) => typeof value === "string");
  return strings && typeof step === "number";
}

interface AnnouncedRun {
  detail: RunDetail;
  /**
   * When the run last started, paused, resumed or changed its loss; larger is later. A step does not count: with two
   * running runs, the status bar would switch between them several times a second.
   */
  changedAt: number;
}

export class Runs {
  private readonly runs = new Map<string, AnnouncedRun>();
  private readonly listeners = new Set<() => void>();
  private updates = 0;

  update(detail: RunDetail): void {
    const previous = this.runs.get(detail.epoch);
    if (detail.status === "gone") this.runs.delete(detail.epoch);
    else {
      this.updates += 1;
      const isUnchanged = previous?.detail.status === detail.status && previous.detail.loss === detail.loss;
      this.runs.set(detail.epoch, { detail, changedAt: isUnchanged ? previous.changedAt : this.updates });
    }
    this.notify();
  }

  /** Remove the runs for which `isGone` holds, because their kernel no longer exists and announces nothing. */
  remove(isGone: (detail: RunDetail) => boolean): void {
    for (const [epoch, { detail }] of this.runs) if (isGone(detail)) this.runs.delete(epoch);
    this.notify();
  }

  /** The run to show: a running one before a paused one, and of several the one that changed last; null if none. */
  shown(): RunDetail | null {
    const candidates = [...this.runs.values()].filter(({ detail }) => RANKS[detail.status]);
    candidates.sort((a, b) => rank(b) - rank(a) || b.changedAt - a.changedAt);
    return candidates[0]?.detail ?? null;
  }

  /** The runs that are running, the one that changed last first. Of several widgets of a run, one with a view counts. */
  running(): RunDetail[] {
    const running = [...this.runs.values()].filter(({ detail }) => detail.status === "running");
    running.sort((a, b) => Number(!a.detail.element) - Number(!b.detail.element) || b.changedAt - a.changedAt);
    const first = new Map<string, AnnouncedRun>();
    for (const run of running) {
      const key = run.detail.run ?? run.detail.epoch;
      if (!first.has(key)) first.set(key, run);
    }
    return [...first.values()].sort((a, b) => b.changedAt - a.changedAt).map(({ detail }) => detail);
  }

  /** Losses and rewards whose failure paused a run, each with a view of that run if one is known. */
  failures(): { name: string; element: HTMLElement | null }[] {
    return [...this.runs.values()].flatMap(({ detail: { failed, element } }) =>
      failed ? [{ name: failed, element }] : [],
    );
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private notify(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

function rank({ detail }: AnnouncedRun): number {
  return RANKS[detail.status] ?? 0;
}

/** The texts of the status bar: state, progress, loss and metric. */
export function statusTexts(run: RunDetail): { state: string; step: string; loss: string; metric: string } {
  const state = run.status === "paused" ? (run.failed === null ? "paused" : "failed") : "";
  const step = `step ${thousands(run.step)}${run.steps ? ` / ${thousands(run.steps)}` : ""}`;
  return { state, step, loss: run.loss, metric: run.metric ? `${run.metric.name} ${short(run.metric.value)}` : "" };
}
