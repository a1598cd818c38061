/**
 * Messages about several runs. Generated from `mint_lab/ui/run_messages.py`; after a change there, run
 * `python widgets/generate_from_python.py`.
 */

import type { Message, Snapshot } from "./messages";

/**
 * Held-out metrics of a run; only finite numbers.
 *
 * `mean_margin` is chosen minus rejected score, nats, whatever the loss reports under that name.
 */
export interface Result {
  /** Steps completed at the last evaluation; 0 before the first. */
  step: number;
  /** Metrics before training. */
  before: Record<string, number>;
  /** Metrics at the last evaluation. */
  final: Record<string, number>;
}

/** One run of a comparison. Its index in the list is its number and selects its colour and line style. */
export interface ComparedRun {
  label: string;
  result: Result;
  snapshot: Snapshot;
}

/** A comparison as a whole. */
export interface Compared {
  recipe: string;
  /** Whether gradients can be compared before training; false if the first batch is a rollout. */
  batch_before_training: boolean;
  runs: ComparedRun[];
}

/** A message of run number `run`. */
export interface OfRun {
  type: "of_run";
  run: number;
  /** The run's result, if it changed. */
  result: Result | null;
  message: Message;
}

/** Cosines between the gradients of the runs' losses, on one batch of `datums` datums at the same weights. */
export interface CosineMatrix {
  labels: string[];
  /** Row by row; null if a gradient is 0. */
  values: (number | null)[][];
  /** Norm of each gradient. */
  norms: number[];
  /** Run whose weights were used, after `step` steps; null: before training. */
  at: string | null;
  step: number;
  datums: number;
  /** Whether another measurement is in progress. */
  busy: boolean;
  /** Why the last measurement failed; empty if it did not. */
  problem: string;
}

/** One folder of the table. */
export interface RunRow {
  name: string;
  title: string;
  recipe: string;
  losses: string[];
  status: string;
  steps: number;
  steps_total: number;
  /** Time of the last write, seconds since 1970. */
  changed: number;
  /** Held-out metrics before training. */
  before: Record<string, number>;
  /** Held-out metrics at the last evaluation. */
  final: Record<string, number>;
  /** Name of the metric that `curve` shows. */
  main: string;
  /** Held-out values of `main`, in order. */
  curve: number[];
  note: string;
  /** Why the folder cannot be read; empty if it can. */
  problem: string;
}

/** The newest runs of a folder. */
export interface Listing {
  folder: string;
  rows: RunRow[];
  /** Number of runs that are not listed. */
  more: number;
}

/** A run read from its folder. */
export interface ShownRun {
  name: string;
  snapshot: Snapshot;
}

/** A run that an earlier execution of the cell left, which can be continued. */
export interface Earlier {
  loss_label: string;
  steps_done: number;
  steps_total: number;
}

/** A run that a workbench can show. */
export interface RunTab {
  name: string;
  /** Where it comes from, in a few words; empty for a run that is no fork. */
  about: string;
}

/** The runs of a workbench; `shown` is the index of the one on the page. */
export interface RunTabs {
  runs: RunTab[];
  shown: number;
}

export type CompareRequestType = "sync" | "start" | "pause" | "resume" | "stop" | "cosines";

/** A request of a page that shows a comparison. */
export interface CompareRequest {
  type: CompareRequestType;
  /** Number of the request, which the answer repeats. */
  request?: number;
  /** Belongs to "sync" and "stop": index of the run; "stop" without it is for all runs. */
  run?: number;
  /** Belongs to "sync": number of records that the page has. */
  since?: number;
  /** Belongs to "sync": the run that the page shows. */
  epoch?: string;
  /** Belongs to "cosines": label of the run whose weights to use; null: before training. */
  at?: string | null;
}

export type TableRequestType = "list" | "show" | "open" | "note" | "delete";

/** A request of a page that shows a table of runs. */
export interface TableRequest {
  type: TableRequestType;
  /** Number of the request, which the answer repeats. */
  request?: number;
  /** Belongs to "open", "note" and "delete": the run. An "open" with an empty name closes the open run. */
  name?: string;
  /** Belongs to "show": the ticked runs. */
  names?: string[];
  /** Belongs to "note". */
  text?: string;
}
