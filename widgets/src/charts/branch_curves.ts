/** The faint curves of a chart, and their legend, which all charts of a run share. */

import { afterStep, type Branch } from "../branches";
import { dashSample } from "../lib/dash_sample";
import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { smooth } from "../lib/smooth";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { Line } from "../messages";
import type { RunStore } from "../run_store";
import type { PanelView } from "./panel";

const OPACITY = 0.6;

/** The key of a branch in `view.hidden`. */
export const branchKey = ({ label }: Branch) => `branch/${label}`;

/**
 * The faint curve of `line` in one branch; null if it has none.
 *
 * @param start The held-out value before the first step.
 */
export function branchTrace(branch: Branch, line: Line, start: number | undefined, view: PanelView) {
  const series = branch.series.get(line.series);
  if (!series) return null;
  const isHeldOut = line.role === "held_out";
  const values = isHeldOut ? series.mean : smooth(series, view.halfLife, branch.breaks);
  const first = isHeldOut && start !== undefined ? { x: [0], y: [start] } : { x: [], y: [] };
  const { x, y } = afterStep([...first.x, ...series.steps], [...first.y, ...values], branch.step);
  if (x.length === 0) return null;
  const trace = {
    ...{ type: "scatter", mode: "lines", name: branch.label, x, y, opacity: OPACITY },
    line: { color: view.theme.roles[line.role], width: 1.5, dash: branch.dash },
  };
  return { trace, x, y };
}

/** What the faint curves are. A press hides one in all charts or shows it again. */
export class BranchLegend {
  readonly element = h("div", { class: "ml-branches", role: "group", "aria-label": "Faint curves", hidden: true });
  private readonly dispose_: Dispose;
  private drawnKey = "";

  constructor(
    private readonly store: RunStore,
    private readonly theme: () => Theme,
  ) {
    this.dispose_ = listen(this.element, "click", (event) => {
      const key = (event.target as Element).closest<HTMLElement>("button")?.dataset.key;
      if (key === undefined) return;
      const { hidden } = store.view;
      if (!hidden.delete(key)) hidden.add(key);
      store.viewChanged();
    });
  }

  dispose(): void {
    this.dispose_();
    this.element.remove();
  }

  draw(): void {
    const { branches, branchesLeftOut, view } = this.store;
    const { muted } = this.theme();
    const key = JSON.stringify([branches.map(({ label, dash }) => [label, dash]), branchesLeftOut, muted]);
    if (key !== this.drawnKey) {
      this.drawnKey = key;
      this.element.hidden = branches.length === 0;
      this.element.replaceChildren(...branches.map((branch) => entry(branch, muted)), leftOutNote(branchesLeftOut));
    }
    branches.forEach((branch, i) => {
      const isHidden = view.hidden.has(branchKey(branch));
      const button = this.element.children[i];
      if (button) setAttributes(button, { "aria-pressed": String(!isHidden), title: isHidden ? "Show" : "Hide" });
    });
  }
}

function entry(branch: Branch, colour: string): HTMLElement {
  const label = h("bdi", { class: "ml-branch-label" }, visible(branch.label));
  const button = h("button", { type: "button", class: "ml-key", "data-key": branchKey(branch) });
  button.append(dashSample(colour, branch.dash, 1.6), label);
  return button;
}

function leftOutNote(count: number): HTMLElement {
  const note = h("span", { class: "ml-quiet" });
  setText(note, count === 0 ? "" : `${count} earlier ${count === 1 ? "one is" : "ones are"} not drawn`);
  return note;
}
