/** Which of a run's marks stand for another loss, and which loss made the last step. */

import type { LossEntry, Mark, State } from "./protocol";

/** What of a store is needed here. `first` is as {@link firstLoss} has it. */
export interface Made {
  state: State | null;
  losses: readonly LossEntry[];
  first: string;
}

/**
 * The marks that stand for another loss or another version of it, with its name.
 *
 * A mark says what changed in words alone: those of a loss or of a reward are its name and version, those of a setting
 * its name and value. A saved run names no losses, and any of the former counts.
 */
export function lossMarks(marks: readonly Mark[], losses: readonly LossEntry[]): { step: number; name: string }[] {
  const known = new Set(losses.map(({ name }) => name));
  return marks.flatMap(({ step, label }) => {
    const name = /^(.+) v\d+$/su.exec(label)?.[1];
    return name !== undefined && (known.size === 0 || known.has(name)) ? [{ step, name }] : [];
  });
}

/** The loss that made the last step; "" where nobody here knows. The state names the one that will make the next. */
export function lossOfLastStep({ state, losses, first }: Made): string {
  if (!state) return "";
  // Nobody can choose another loss for a saved run.
  if (losses.length === 0) return state.loss;
  return lossMarks(state.marks, losses).at(-1)?.name ?? first;
}

/**
 * The loss that the steps without a mark were made with, as a page learns it from one state after another.
 *
 * A page that meets a run which is over cannot know: a person may have chosen the loss of the next one already.
 */
export function firstLoss(before: State | null, after: State, known: string): string {
  if (after.steps_done === 0) return after.loss;
  if (!before) return after.status === "finished" || after.status === "stopped" ? "" : after.loss;
  if (after.steps_done === before.steps_done || before.steps_done > 0) return known;
  // The first steps came with this state; a loss that was chosen meanwhile may have made them, or not.
  return before.loss === after.loss ? after.loss : "";
}
