/** What changed during the run, numbered as on the charts. */

import { h, setText } from "../dom";
import type { Mark } from "../protocol";

const SHOWN = 9;

export class MarkList {
  readonly element = h("ol", { class: "ml-marks", "aria-label": "Changes during the run" });
  private drawn = "";

  draw(marks: Mark[], total: number): void {
    const key = JSON.stringify(marks.slice(-SHOWN)) + total;
    if (key === this.drawn) return;
    this.drawn = key;
    const first = total - marks.length;
    const rows = marks.map((mark, i) => row(first + i + 1, mark)).slice(-SHOWN);
    this.element.replaceChildren(...rows);
    this.element.dataset.marks = String(total);
  }
}

function row(number: number, mark: Mark): HTMLElement {
  const label = h("span", { class: "ml-mark-label" });
  setText(label, mark.label);
  return h("li", {}, h("b", {}, String(number)), label, h("span", { class: "ml-quiet" }, `from step ${mark.step}`));
}

/**
 * Where the charts draw a line for each step with a change, and the number above it.
 *
 * Lines closer than `room` share one number, such as "2–5", above the first of them; the others have none.
 */
export function markLines(marks: Mark[], total: number, room: number): { x: number; label: string }[] {
  const lines: { x: number; label: string }[] = [];
  let cluster = { at: Number.NEGATIVE_INFINITY, from: 0, line: -1 };
  marks.forEach((mark, i) => {
    const number = total - marks.length + i + 1;
    const x = mark.step - 0.5;
    if (lines.at(-1)?.x !== x) lines.push({ x, label: "" });
    if (x - cluster.at > room) cluster = { at: x, from: number, line: lines.length - 1 };
    const line = lines[cluster.line];
    if (line) line.label = number === cluster.from ? String(number) : `${cluster.from}–${number}`;
  });
  return lines;
}
