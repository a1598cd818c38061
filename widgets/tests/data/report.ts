/** A report about data for tests. */

import type { DataReport } from "../../src/data_messages";
import { float32Buffer, int32Buffer, tokensOf } from "../support";

const TOKENS = tokensOf([], {
  by: "weight",
  step: null,
  about: "",
  rows: [{ item: 0, title: "row 7", role: "", start: 0, length: 3, shared: 1 }],
  columns: [{ name: "weight", unit: "", note: "0: does not count", scale: "sequential", low: 0, high: 1 }],
  texts: ["Q", "<b>", "."],
  ids: int32Buffer([4, 5, 6]),
  pieces: int32Buffer([0, 1, 2]),
  values: float32Buffer([Number.NaN, 1, 0]),
});
export const REPORT: DataReport = {
  ...{ status: "ready", problem: "", heading: "3 pairs to train on", about: "recipe preference", items: 3, item: null },
  numbers: [{ name: "rows read", value: "4" }],
  findings: [
    { severity: "warning", message: "1 of 4 rows <b>", meaning: "no gradient", advice: "remove it" },
    { severity: "note", message: "2 of 4 rows", meaning: "may be meant", advice: "look" },
  ],
  lengths: [{ name: "prompt", start: 2, width: 1, counts: [1, 4], longest: 3, limit: null }],
  ...{ row: null, held_out: false, has_two_sources: false, tokens: TOKENS },
};
