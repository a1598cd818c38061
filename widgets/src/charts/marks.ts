/** The changes during a run: the numbered list, the lines in the charts, and the steps at which the loss changed. */

import type { StepPlace } from "../controls/step_menu";
import { h, setText } from "../lib/dom";
import type { Range } from "../lib/scale";
import type { Theme } from "../lib/theme";
import type { Mark } from "../messages";
import type { RunStore } from "../run_store";

/** Entries of the list, the latest. */
const MAX_ENTRIES = 9;
/** Lines closer than this share of the axis get one number. */
const MIN_NUMBER_DISTANCE = 0.06;

export class MarkList {
  readonly element = h("ol", { class: "ml-marks", "aria-label": "Changes during the run" });
  private drawnKey = "";

  /** @param onStep Called when a person chooses a change: with the last step before it. */
  constructor(private readonly onStep?: (place: StepPlace) => void) {
    this.element.addEventListener("click", (event) => {
      const from = (event.target as Element).closest<HTMLElement>("button");
      if (!from) return;
      const { left, bottom } = from.getBoundingClientRect();
      onStep?.({ step: Number(from.dataset.step), x: left, y: bottom, from });
    });
  }

  draw(marks: readonly Mark[], total: number): void {
    const key = JSON.stringify(marks.slice(-MAX_ENTRIES)) + total;
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    const notSent = total - marks.length;
    const rows = marks.map((mark, i) => entry(notSent + i + 1, mark, this.onStep !== undefined)).slice(-MAX_ENTRIES);
    this.element.replaceChildren(...rows);
    this.element.dataset.marks = String(total);
  }
}

function entry(number: number, mark: Mark, isButton: boolean): HTMLElement {
  const label = h("span", { class: "ml-mark-label" });
  setText(label, mark.label);
  const text = `from step ${mark.step}`;
  const title = `Step ${mark.step - 1}, before this change`;
  const step = isButton
    ? h("button", { type: "button", class: "ml-key", title, "data-step": mark.step - 1 }, text)
    : h("span", { class: "ml-quiet" }, text);
  return h("li", { "data-kind": mark.kind }, h("b", {}, String(number)), label, step);
}

/** The steps from which another loss computed the training metrics. */
export function lossChangeSteps({ state }: Pick<RunStore, "state">): number[] {
  return (state?.marks ?? []).filter(({ kind }) => kind === "loss").map(({ step }) => step);
}

/** Plotly's shapes and annotations for the marks: a dotted line before the first step of each change, and its number. */
export function markLayout(
  { state }: Pick<RunStore, "state">,
  [low, high]: Range,
  theme: Theme,
): { shapes: object[]; annotations: object[] } {
  const lines = markLines(state?.marks ?? [], state?.marks_total ?? 0, MIN_NUMBER_DISTANCE * (high - low));
  const visible = lines.filter(({ x }) => x >= low && x <= high);
  const shapes = visible.map(({ x }) => ({
    ...{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below" },
    line: { color: theme.muted, width: 1, dash: "dot" },
  }));
  const annotations = visible
    .filter(({ label }) => label !== "")
    .map(({ x, label }) => ({
      ...{ x, y: 1, xref: "x", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false },
      text: label,
      font: { size: 10, color: theme.muted },
      borderpad: 0,
    }));
  return { shapes, annotations };
}

/**
 * Position and number of the line for each step with a change.
 *
 * Lines closer than `distance` share one number such as "2–5" above the first of them; the others have none.
 *
 * @param total Number of all marks, of which `marks` are the latest.
 */
export function markLines(marks: readonly Mark[], total: number, distance: number): { x: number; label: string }[] {
  const lines: { x: number; label: string }[] = [];
  let group = { x: Number.NEGATIVE_INFINITY, first: 0, line: -1 };
  marks.forEach((mark, i) => {
    const number = total - marks.length + i + 1;
    const x = mark.step - 0.5;
    if (lines.at(-1)?.x !== x) lines.push({ x, label: "" });
    if (x - group.x > distance) group = { x, first: number, line: lines.length - 1 };
    const line = lines[group.line];
    if (line) line.label = number === group.first ? String(number) : `${group.first}–${number}`;
  });
  return lines;
}
