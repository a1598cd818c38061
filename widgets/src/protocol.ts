/** What kernel and page say to each other: the twin of `mint_lab/ui/protocol.py`, where it is explained. */

export const PROTOCOL = 1;

export interface ParamEntry {
  name: string;
  default: number;
  low: number;
  high: number;
  minimum: number;
  doc: string;
  scale: "linear" | "log";
}

export interface LossEntry {
  name: string;
  label: string;
  family: string;
  formula: string;
  summary: string;
  paper: string;
  params: ParamEntry[];
  reason: string;
}

export interface Line {
  series: string;
  label: string;
  role: "train" | "held_out" | "chosen" | "rejected";
}

export interface Chart {
  name: string;
  title: string;
  unit: string;
  kind: "lines" | "bars";
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
}

export interface Failure {
  step: number;
  message: string;
  line: number | null;
  index: number | null;
  traceback: string;
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
}

export interface Update {
  type: "update";
  epoch: string;
  number: number;
  first: number;
  count: number;
  columns: string[];
  full: boolean;
  state: StateChange;
}

export interface Losses {
  type: "losses";
  losses: LossEntry[];
}

export interface Reply {
  type: "reply";
  request: number;
  error: string;
}

export type Message = Snapshot | Update | Losses | Reply;

export type RequestType = "sync" | "start" | "pause" | "resume" | "step" | "stop" | "set_loss" | "set" | "new_run";

export interface Request {
  type: RequestType;
  request?: number;
  since?: number;
  epoch?: string;
  name?: string;
  value?: number;
}
