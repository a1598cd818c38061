/**
 * Messages between kernel and page. Generated from `mint_lab/ui/messages.py`; after a change there, run
 * `python widgets/generate_from_python.py`.
 */

export const PROTOCOL = 8;

/** A setting with a slider. */
export interface ParamEntry {
  name: string;
  default: number;
  /** Left end of the slider. */
  low: number;
  /** Right end of the slider. */
  high: number;
  /** Smallest value that may be typed. */
  minimum: number;
  doc: string;
  /** How positions on the slider map to values. */
  scale: "linear" | "log";
}

/** A field of the data that a loss reads. */
export interface InputEntry {
  name: string;
  /** Whether this run's data has the field, or the trainer adds it. */
  here: boolean;
}

/** A loss as the picker shows it. */
export interface LossEntry {
  name: string;
  label: string;
  family: string;
  formula: string;
  summary: string;
  paper: string;
  inputs: InputEntry[];
  params: ParamEntry[];
  /** Why the loss cannot be used with this run; empty if it can. */
  reason: string;
}

/** One curve of a chart, or one part of a histogram. */
export interface Line {
  /** Column with the values. In a chart of kind "ratios", name of the histogram; of kind "bars", empty. */
  series: string;
  /** Name in the legend. */
  label: string;
  /** Selects the colour. */
  role: "train" | "held_out" | "chosen" | "rejected";
  /** Column with the standard deviation, drawn as a band on both sides; empty for none. */
  spread: string;
}

/** How a chart differs when it shows several runs. */
export interface Overlay {
  /**
   * Two series; the chart then shows the first minus the second, if charts of the runs have both. Empty: the chart
   * shows its own series.
   */
  difference: string[];
  /** Replaces the unit of the chart. With `difference`, only if the difference is shown. */
  unit: string;
  /** Whether the chart stands after all others, because its values do not compare between runs. */
  last: boolean;
}

/**
 * One chart of a run.
 *
 * Kind "lines" draws curves over steps. Kind "bars" draws the latest histogram called `name`: the first line names the
 * values above 0, the second those below. Kind "ratios" draws two histograms of log-ratios, the first line's upwards
 * (advantage > 0) and the second line's downwards (advantage < 0), with the bounds beyond which the loss clips; it is
 * as wide as two other charts.
 */
export interface Chart {
  name: string;
  title: string;
  /** One sentence with the formula, the tooltip of the title; empty if unknown. */
  definition: string;
  unit: string;
  kind: "lines" | "bars" | "ratios";
  /** Title of the horizontal axis of a histogram; empty for "lines". */
  axis: string;
  /** What a histogram counts, such as "pairs"; empty for "lines". */
  counts: string;
  lines: Line[];
  /**
   * Ends of a fixed vertical axis of "lines"; null fits it to the data. Ends of the horizontal axis of a histogram that
   * has no data yet.
   */
  bounds: number[] | null;
  /** How the chart differs when it shows several runs; null if it does not. */
  overlay: Overlay | null;
}

/** A metric that may have no chart in the recipe's list: the page makes one from this entry. */
export interface MetricEntry {
  /** One sentence with the formula. */
  definition: string;
  unit: string;
}

/** A change that took effect before `step`. */
export interface Mark {
  step: number;
  kind: "loss" | "reward" | "setting";
  label: string;
}

/** Counts in bins of equal width; the outer bins also count all values beyond them. */
export interface Histogram {
  name: string;
  step: number;
  /** "training" or "held-out". */
  source: string;
  /** Left end of the first bin. */
  start: number;
  width: number;
  counts: number[];
  /** Lowest and highest ratio that the loss did not clip at that step; null if it clips nothing. */
  clip: number[] | null;
}

/** The ratio `base + slope * settings[setting]`, which the page evaluates while a slider moves. */
export interface Bound {
  setting: string;
  base: number;
  slope: number;
}

/** Where the current loss clips the ratio of a token: below `low` if A < 0, above `high` if A > 0. */
export interface Clip {
  low: Bound;
  high: Bound;
  /** Whether it clips on both sides, whatever the sign of the advantage A. */
  both: boolean;
}

/** Why a step failed. */
export interface Failure {
  step: number;
  message: string;
  /** Line of the loss's own source, counted from 1. */
  line: number | null;
  /** Datum that the loss was processing. */
  index: number | null;
  traceback: string;
  /** Loss that resumes the run when it is registered again; null if no loss does. */
  loss: string | null;
  /** Reward that resumes the run when it is registered again; null if no reward does. */
  reward: string | null;
}

/** An option of the recipe, fixed for the whole run; `value` is its text. */
export interface OptionEntry {
  name: string;
  value: string;
  doc: string;
}

/** All of a run that is not a curve. Its size does not depend on the length of the run. */
export interface State {
  /** Tells runs apart; the same in all widgets that show the run. */
  key: string;
  status: "ready" | "running" | "paused" | "stopped" | "finished";
  steps_done: number;
  /** 0 if unknown. */
  steps_total: number;
  steps_per_s: number;
  recipe: string;
  options: OptionEntry[];
  /** Names of the metrics that summarise the run, the most important first; the run may lack any of them. */
  headlines: string[];
  /** The examples that a "tokens" request shows, in words. */
  tokens_about: string;
  /** Whether the run stores responses at each evaluation. */
  keeps_samples: boolean;
  base_model: string;
  data: string;
  /** Name of the loss that makes the next step. */
  loss: string;
  loss_label: string;
  /** Name of the loss that made the last step; empty before the first. */
  last_loss: string;
  settings: Record<string, number>;
  controls: ParamEntry[];
  clip: Clip | null;
  /** The latest changes; `marks_total` counts all. */
  marks: Mark[];
  marks_total: number;
  /** Held-out metrics before training. */
  baseline: Record<string, number>;
  /** The latest of each name. */
  histograms: Histogram[];
  warnings: string[];
  failure: Failure | null;
  /** What the kernel does at the page's request and that takes some time, such as a rewind; empty if nothing. */
  activity: string;
  /** Why the last such request failed; empty if it did not. */
  activity_error: string;
  /** Why the run cannot return to a step; empty if it can. */
  no_rewind: string;
  /** Why the run cannot be forked; empty if it can. */
  no_fork: string;
}

/** The fields of `State` that changed; the others are absent. */
export type StateChange = Partial<State>;

/** One decimated curve: buckets of `width` points each, except the last. */
export interface SeriesData {
  name: string;
  width: number;
  /** Number of points before decimation. */
  points: number;
  /** Last step of each bucket, float64 `(n,)`. */
  steps: DataView;
  /** float32. `(n,)` if `width` is 1, else `(3, n)`: lowest, highest, mean. */
  values: DataView;
}

/** A histogram over time, decimated like a curve: each column is the mean of `width` histograms, as shares. */
export interface HeatData {
  name: string;
  start: number;
  /** Width of a bin. */
  bin: number;
  /** Number of bins. */
  bins: number;
  width: number;
  /** Number of histograms before decimation. */
  points: number;
  source: string;
  /** Last step of each column, float64 `(n,)`. */
  steps: DataView;
  /** float32 `(n, bins)`. */
  values: DataView;
}

/** Steps that a run has left by a rewind, or those of its parent after a fork: faint curves. */
export interface BranchData {
  /** What a legend calls it. */
  label: string;
  /** The last step in common with the run; the curves are drawn from there. */
  step: number;
  /** Steps from which another loss computed the training metrics. */
  breaks: number[];
  /** Its curves with the common steps, at which smoothing begins. */
  series: SeriesData[];
}

/** The whole run after `seen` records and `number` messages. */
export interface Snapshot {
  type: "snapshot";
  protocol: number;
  /** Identifies the run and its rewinds: another epoch has other records. */
  epoch: string;
  number: number;
  seen: number;
  state: State;
  charts: Chart[];
  /** Metrics by name, for those that the recipe's charts do not show. */
  metrics: Record<string, MetricEntry>;
  losses: LossEntry[];
  series: SeriesData[];
  heats: HeatData[];
  /** Faint curves, the latest last. */
  branches: BranchData[];
  /** Number of earlier ones. */
  branches_left_out: number;
}

/**
 * Records `first` to `first + count - 1`, counted from 0, and what changed in the state.
 *
 * If `count` > 0, two buffers travel beside it: steps, float64 `(count,)`; values, float32 `(len(columns), count)`, nan
 * where a record lacks the metric.
 */
export interface Update {
  type: "update";
  epoch: string;
  number: number;
  first: number;
  count: number;
  columns: string[];
  /** Whether `state` has all fields. */
  full: boolean;
  /** Those of the records, in order. */
  histograms: Histogram[];
  state: StateChange;
}

/** The picker's entries, after a loss was registered. */
export interface Losses {
  type: "losses";
  losses: LossEntry[];
}

/** One number per token. */
export interface TokenColumn {
  name: string;
  unit: string;
  /** What the sign means, in a few words. */
  note: string;
  /**
   * The colour scale. "diverging" is symmetrical about 0, "ratio" about 1 on a logarithmic axis. "sequential" runs from
   * the end nearer to 0, which has no colour, to the other end.
   */
  scale: "diverging" | "ratio" | "sequential";
  /** Low end of the colour scale; values may lie beyond it. */
  low: number;
  /** High end of the colour scale; values may lie beyond it. */
  high: number;
}

/** One sequence: tokens `start` to `start + length - 1` of all tokens. */
export interface TokenRow {
  /** Rows of the same item belong together, and share their prompt. */
  item: number;
  title: string;
  role: "" | "chosen" | "rejected";
  start: number;
  length: number;
  /** Number of prompt tokens at the start. */
  shared: number;
}

/** Sequences token by token; `n` counts the tokens of all rows. */
export interface Tokens {
  /** Steps of training completed; null if unknown. */
  step: number | null;
  /** The loss whose gradient is shown. */
  about: string;
  /** Column that colours at first. */
  by: string;
  rows: TokenRow[];
  columns: TokenColumn[];
  texts: string[];
  /** Token ids, int32 `(n,)`; -1 if not stored. */
  ids: DataView;
  /** Index into `texts` for each token, int32 `(n,)`. */
  pieces: DataView;
  /**
   * float32 `(len(columns), n)`; nan where a token has no such number. The first token of a sequence has none at all,
   * because the model does not predict it.
   */
  values: DataView;
}

/** One response: tokens `start` to `start + length - 1` of all tokens. */
export interface SampleRow {
  source: "training" | "held-out";
  prompt: string;
  response: string;
  reward: number;
  advantage: number | null;
  start: number;
  /** 0 if the tokens were not stored. */
  length: number;
}

/** Responses of step `step`. */
export interface Samples {
  step: number;
  rows: SampleRow[];
  /** Tokens of all rows, with the columns "ratio" and "clipped" (0 or 1). */
  tokens: Tokens | null;
}

/** The answer to a request. */
export interface Reply {
  type: "reply";
  /** Number of the request. */
  request: number;
  /** Why the kernel refused; empty if it accepted. */
  error: string;
}

/** The answer to a request for a text, which travels beside it as one buffer of UTF-8. */
export interface Document {
  type: "document";
  /** Number of the request. */
  request: number;
}

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
  | "continue_earlier"
  | "rewind"
  | "fork"
  | "show_run"
  | "tokens"
  | "data"
  | "cell"
  | "csv"
  | "figure";

/**
 * A request of a page that shows one run.
 *
 * A `Document` answers "cell", "csv" (the history) and "figure" (plotly JSON); a `Reply` the others.
 */
export interface Request {
  type: RequestType;
  /** Number of the request, which the answer repeats. */
  request?: number;
  /** Belongs to "sync": number of records that the page has. */
  since?: number;
  /** Belongs to "sync": the run that the page shows. */
  epoch?: string;
  /**
   * Belongs to "set_loss" and "cell" (a loss), to "set" (a setting), and to "fork" (name of the new run; empty for the
   * default).
   */
  name?: string;
  /** Belongs to "set". */
  value?: number;
  /** Belongs to "data": the item to show, counted from 0 in the order of the rows. */
  item?: number;
  /** Belongs to "data": the number of the row to show. Without `item` and `row`, noteworthy rows are shown. */
  row?: number;
  /**
   * Belongs to "rewind" and "fork": the last step that is kept. Both are answered before they are done; then `activity`
   * of the state says what happens.
   */
  step?: number;
  /** Belongs to "fork": loss of the new run; empty for that of the run at the step. */
  loss?: string;
  /** Belongs to "show_run": index of the run in the trait `runs`. */
  run?: number;
  /** Belongs to "data": whether `row` is one of the held-out data, if these have numbers of their own. */
  held_out?: boolean;
}

export type Message = Snapshot | Update | Losses | Reply | Document;
