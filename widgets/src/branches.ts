/** Steps that a run has left by a rewind, or those of its parent after a fork. Charts draw them faint. */

import { Series } from "./history";
import { BRANCH_DASHES } from "./lib/palette";
import type { BranchData, Snapshot } from "./messages";

export interface Branch {
  label: string;
  /** The last step in common with the run. */
  step: number;
  /** The last step of the branch. */
  lastStep: number;
  /** Steps from which another loss computed the training metrics. */
  breaks: number[];
  /** Line style as plotly calls it; it stays the same when later branches follow. */
  dash: string;
  series: Map<string, Series>;
}

export function branchesOf({ branches, branches_left_out }: Snapshot): Branch[] {
  return branches.map((data, i) => branchOf(data, branches_left_out + i));
}

function branchOf({ label, step, breaks, series: all }: BranchData, number: number): Branch {
  const series = new Map(all.map((data) => [data.name, Series.fromData(data)]));
  const lastStep = Math.max(step, ...[...series.values()].map(({ steps }) => steps.at(-1) ?? 0));
  return { label, step, lastStep, breaks, series, dash: BRANCH_DASHES[number % BRANCH_DASHES.length] as string };
}

/** The part of a curve that is drawn: from its last point up to `step` on; nothing if the curve ends there. */
export function afterStep(x: readonly number[], y: readonly number[], step: number): { x: number[]; y: number[] } {
  const later = x.findIndex((at) => at > step);
  if (later < 0) return { x: [], y: [] };
  const from = Math.max(later - 1, 0);
  return { x: x.slice(from), y: y.slice(from) };
}
