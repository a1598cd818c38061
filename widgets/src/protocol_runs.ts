/** What kernel and page say of several runs: the twin of `mint_lab/ui/protocol_runs.py`, where it is explained. */

import type { Message, Snapshot } from "./protocol";

export interface Result {
  step: number;
  before: Record<string, number>;
  final: Record<string, number>;
}

export interface ComparedRun {
  label: string;
  result: Result;
  snapshot: Snapshot;
}

export interface Compared {
  recipe: string;
  runs: ComparedRun[];
}

export interface OfRun {
  type: "of_run";
  run: number;
  result: Result | null;
  message: Message;
}

export interface CosineMatrix {
  labels: string[];
  values: (number | null)[][];
  norms: number[];
  at: string | null;
  step: number;
  datums: number;
  busy: boolean;
  problem: string;
}

export interface RunRow {
  name: string;
  title: string;
  recipe: string;
  losses: string[];
  status: string;
  steps: number;
  steps_total: number;
  changed: number;
  before: Record<string, number>;
  final: Record<string, number>;
  main: string;
  curve: number[];
  note: string;
  problem: string;
}

export interface Listing {
  folder: string;
  rows: RunRow[];
  more: number;
}

export interface ShownRun {
  name: string;
  snapshot: Snapshot;
}

export type CompareRequestType = "sync" | "start" | "pause" | "resume" | "stop" | "cosines";

export interface CompareRequest {
  type: CompareRequestType;
  request?: number;
  run?: number;
  since?: number;
  epoch?: string;
  at?: string | null;
}

export type TableRequestType = "list" | "show" | "open" | "note" | "delete";

export interface TableRequest {
  type: TableRequestType;
  request?: number;
  name?: string;
  names?: string[];
  text?: string;
}
