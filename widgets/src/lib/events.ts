/**
 * Events on `window` between a widget and the JupyterLab extension (`lab/`). Each is built and installed separately and
 * works without the other.
 */

import type { State } from "../messages";

/**
 * From the widget: insert a cell into the notebook. The event can be cancelled: the listener that inserts the cell calls
 * `preventDefault`. If nobody does, the widget shows the source itself.
 */
export const INSERT_CELL = "mint-lab:insert-cell";

/** A cell for the notebook that contains `origin`. */
export interface CellToInsert {
  source: string;
  origin: HTMLElement;
}

/** Return true if a listener inserted the cell into the notebook. */
export function insertCell(detail: CellToInsert): boolean {
  return !window.dispatchEvent(new CustomEvent(INSERT_CELL, { detail, cancelable: true }));
}

/** From the widget: a run exists, or has changed. */
export const RUN = "mint-lab:run";

export interface RunDetail {
  /** Identifies what one widget shows of the run. */
  epoch: string;
  /** Identifies the run; the same in all widgets that show it. A widget of an earlier version sends none. */
  run?: string;
  /** "gone": the page no longer shows the run, whatever its status. */
  status: State["status"] | "gone";
  step: number;
  /** 0 if the number is unknown. */
  steps: number;
  /** Label of the loss with its version: hostile text, like every name that a person chose. */
  loss: string;
  metric: { name: string; value: number } | null;
  /** Name of the loss or reward whose failure paused the run. */
  failed: string | null;
  /** A view of the run, one that is in the document if there is any. */
  element: HTMLElement | null;
  /** Request the end of the run after the current step. Resolves to the reason for a refusal, or "". */
  stop(): Promise<string>;
}

declare global {
  interface WindowEventMap {
    [INSERT_CELL]: CustomEvent<CellToInsert>;
    [RUN]: CustomEvent<RunDetail>;
  }
}
