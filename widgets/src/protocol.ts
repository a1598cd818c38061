/** What kernel and page say to each other: the twin of `mint_lab/ui/protocol.py`, where it is explained. */

export const PROTOCOL = 5;

export interface ParamEntry {
  name: string;
  default: number;
  low: number;
  high: number;
  minimum: number;
  doc: string;
  scale: "linear" | "log";
}

export interface InputEntry {
  name: string;
  here: boolean;
}

export interface LossEntry {
  name: string;
  label: string;
  family: string;
  formula: string;
  summary: string;
  paper: string;
  inputs: InputEntry[];
  params: ParamEntry[];
  reason: string;
}

export interface Line {
  series: string;
  label: string;
  role: "train" | "held_out" | "chosen" | "rejected";
  spread: string;
}

export interface Chart {
  name: string;
  title: string;
  unit: string;
  kind: "lines" | "bars" | "ratios";
  lines: Line[];
  bounds: number[] | null;
}

export interface Mark {
  step: number;
  label: string;
}

export interface Histogram {
  name: string;
  step: number;
  source: string;
  start: number;
  width: number;
  counts: number[];
  clip: number[] | null;
}

export interface Bound {
  setting: string;
  base: number;
  slope: number;
}

export interface Clip {
  low: Bound;
  high: Bound;
  both: boolean;
}

export interface Failure {
  step: number;
  message: string;
  line: number | null;
  index: number | null;
  traceback: string;
  loss: string | null;
  reward: string | null;
}

export interface State {
  status: "ready" | "running" | "paused" | "stopped" | "finished";
  steps_done: number;
  steps_total: number;
  steps_per_s: number;
  recipe: string;
  base_model: string;
  data: string;
  loss: string;
  loss_label: string;
  settings: Record<string, number>;
  controls: ParamEntry[];
  clip: Clip | null;
  marks: Mark[];
  marks_total: number;
  baseline: Record<string, number>;
  histograms: Histogram[];
  warnings: string[];
  failure: Failure | null;
}

export type StateChange = Partial<State>;

export interface SeriesData {
  name: string;
  width: number;
  points: number;
  steps: DataView;
  values: DataView;
}

export interface HeatData {
  name: string;
  start: number;
  bin: number;
  bins: number;
  width: number;
  points: number;
  source: string;
  steps: DataView;
  values: DataView;
}

export interface Snapshot {
  type: "snapshot";
  protocol: number;
  epoch: string;
  number: number;
  seen: number;
  state: State;
  charts: Chart[];
  losses: LossEntry[];
  series: SeriesData[];
  heats: HeatData[];
}

export interface Update {
  type: "update";
  epoch: string;
  number: number;
  first: number;
  count: number;
  columns: string[];
  full: boolean;
  histograms: Histogram[];
  state: StateChange;
}

export interface Losses {
  type: "losses";
  losses: LossEntry[];
}

export interface TokenColumn {
  name: string;
  unit: string;
  note: string;
  scale: "diverging" | "ratio" | "sequential";
  low: number;
  high: number;
}

export interface TokenRow {
  item: number;
  title: string;
  role: "" | "chosen" | "rejected";
  start: number;
  length: number;
  shared: number;
}

export interface Tokens {
  step: number | null;
  about: string;
  by: string;
  rows: TokenRow[];
  columns: TokenColumn[];
  texts: string[];
  ids: DataView;
  pieces: DataView;
  values: DataView;
}

export interface SampleRow {
  source: "training" | "held-out";
  prompt: string;
  response: string;
  reward: number;
  advantage: number | null;
  start: number;
  length: number;
}

export interface Samples {
  step: number;
  rows: SampleRow[];
  tokens: Tokens | null;
}

export interface Reply {
  type: "reply";
  request: number;
  error: string;
}

export interface Document {
  type: "document";
  request: number;
}

export type Message = Snapshot | Update | Losses | Reply | Document;

export type RequestType =
  | "sync"
  | "start"
  | "pause"
  | "resume"
  | "step"
  | "stop"
  | "set_loss"
  | "set"
  | "new_run"
  | "tokens"
  | "cell"
  | "csv"
  | "figure";

export interface Request {
  type: RequestType;
  request?: number;
  since?: number;
  epoch?: string;
  name?: string;
  value?: number;
}
