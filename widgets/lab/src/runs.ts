/** The runs that the open widgets speak of, and which of them the status bar shows. */

import type { RunDetail } from "../../src/lib/events";
import { short, thousands } from "../../src/lib/format";

const RANK: Partial<Record<RunDetail["status"], number>> = { running: 2, paused: 1 };

/** A widget of another version may say something else, which is then not heard. */
export function isRun(detail: unknown): detail is RunDetail {
  const { epoch, status, step, loss } = (detail ?? {}) as Partial<RunDetail>;
  const strings = [epoch, status, loss].every((value) => typeof value === "string");
  return strings && typeof step === "number";
}

interface Known {
  detail: RunDetail;
  /** When it last began, paused, went on or took another loss; larger is later. A step alone does not count: of two runs
   * at work, the one on show would change with every step of either. */
  turn: number;
}

export class Runs {
  private readonly known = new Map<string, Known>();
  private readonly listeners = new Set<() => void>();
  private turn = 0;

  take(detail: RunDetail): void {
    const before = this.known.get(detail.epoch);
    if (detail.status === "gone") this.known.delete(detail.epoch);
    else {
      const same = before?.detail.status === detail.status && before.detail.loss === detail.loss;
      this.turn += 1;
      this.known.set(detail.epoch, { detail, turn: same ? before.turn : this.turn });
    }
    this.tell();
  }

  /** Drops the runs that `gone` tells of: their kernel is no more, and nobody else will say so. */
  forget(gone: (detail: RunDetail) => boolean): void {
    for (const [epoch, { detail }] of this.known) if (gone(detail)) this.known.delete(epoch);
    this.tell();
  }

  /** The run to show: one at work before one that waits, the latest of several; null where none is alive. */
  shown(): RunDetail | null {
    const alive = [...this.known.values()].filter(({ detail }) => RANK[detail.status]);
    alive.sort((a, b) => rank(b) - rank(a) || b.turn - a.turn);
    return alive[0]?.detail ?? null;
  }

  /** Losses that hold up a run, each with a view of that run where one is known. */
  failures(): { name: string; element: HTMLElement | null }[] {
    return [...this.known.values()].flatMap(({ detail: { failed, element } }) =>
      failed ? [{ name: failed, element }] : [],
    );
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

function rank({ detail }: Known): number {
  return RANK[detail.status] ?? 0;
}

/** The words of the status bar: how it stands, how far it is, with what, and how well. */
export function words(run: RunDetail): { state: string; step: string; loss: string; metric: string } {
  const state = run.status === "paused" ? (run.failed === null ? "paused" : "failed") : "";
  const step = `step ${thousands(run.step)}${run.steps ? ` / ${thousands(run.steps)}` : ""}`;
  return { state, step, loss: run.loss, metric: run.metric ? `${run.metric.name} ${short(run.metric.value)}` : "" };
}
