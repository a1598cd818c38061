/**
 * What a widget and the JupyterLab extension (`lab/`) say to each other, as events on `window`: they are built apart and may
 * be installed apart, and neither needs the other.
 */

import type { State } from "./protocol";

/**
 * From the widget: put a cell into the notebook. The event can be cancelled: whoever makes the cell calls `preventDefault`.
 * Where nobody does, the widget shows the source itself.
 */
export const INSERT_CELL = "mint-lab:insert-cell";

/** A cell to be put into the notebook in which `origin` stands. */
export interface CellToInsert {
  source: string;
  origin: HTMLElement;
}

/** True where somebody put the cell into the notebook. */
export function insertCell(detail: CellToInsert): boolean {
  return !window.dispatchEvent(new CustomEvent(INSERT_CELL, { detail, cancelable: true }));
}

/** From the widget: a run is, or has changed. */
export const RUN = "mint-lab:run";

export interface RunDetail {
  epoch: string;
  /** "gone": the page has nothing to do with the run any more, whatever became of it. */
  status: State["status"] | "gone";
  step: number;
  /** 0 where the number is not known. */
  steps: number;
  /** Label of the loss with its version: hostile text, as all that a person named. */
  loss: string;
  metric: { name: string; value: number } | null;
  /** The loss whose failure holds the run up. */
  failed: string | null;
  /** A view of the run, one that is in the page if there is any. */
  element: HTMLElement | null;
  /** Asks the kernel to end the run after the current step; resolves to why it refused, "" when it did not. */
  stop(): Promise<string>;
}

declare global {
  interface WindowEventMap {
    [INSERT_CELL]: CustomEvent<CellToInsert>;
    [RUN]: CustomEvent<RunDetail>;
  }
}
