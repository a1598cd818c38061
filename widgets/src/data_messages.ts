/**
 * The message about the data of a run. Generated from `mint_lab/ui/data_messages.py`; after a change there, run
 * `python widgets/generate_from_python.py`.
 */

import type { Tokens } from "./messages";

/** A number about the data, as text, with its name. */
export interface NumberEntry {
  name: string;
  value: string;
}

/** Something about the data that a person should know. */
export interface FindingEntry {
  severity: "warning" | "note";
  /** What was found, with the number and the first rows. */
  message: string;
  /** What follows for the training. */
  meaning: string;
  /** What to do. */
  advice: string;
}

/** How many sequences have how many tokens: bin k counts lengths from `start + k * width` on. */
export interface LengthsEntry {
  name: string;
  start: number;
  width: number;
  counts: number[];
  /** The largest length. */
  longest: number;
  /** Longest sequence that is trained on; null if there is no limit of this length. */
  limit: number | null;
}

/** The data of a run, and the tokens of some rows. */
export interface DataReport {
  /** "loading" while the tokenizer and the data are loaded, "failed" if they cannot be. */
  status: "loading" | "ready" | "failed";
  /** Why they cannot be loaded; empty if they can. */
  problem: string;
  /** How many items there are, and how many findings. */
  heading: string;
  /** The recipe, the model and the limit, in words. */
  about: string;
  numbers: NumberEntry[];
  /** The most serious first. */
  findings: FindingEntry[];
  lengths: LengthsEntry[];
  /** Number of items that can be shown. */
  items: number;
  /** Which of them `tokens` shows, counted from 0 in the order of the rows; null: some noteworthy ones. */
  item: number | null;
  /** Number of its row. */
  row: number | null;
  /** Whether it is held out. */
  held_out: boolean;
  /** Whether held-out rows are other data, with numbers of their own. */
  has_two_sources: boolean;
  /** The rows that are shown, with the weight of each token. */
  tokens: Tokens | null;
}
