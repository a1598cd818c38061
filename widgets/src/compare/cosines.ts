/** The cosines between the gradients of the runs, as a matrix, and the weights at which they are measured. */

import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { short, thousands, threeDecimals } from "../lib/format";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { MultiRunStore } from "../multi_run_store";
import type { Compared, CosineMatrix } from "../run_messages";

/** Value of the choice "before training"; the others are indices of runs. */
const BEFORE_TRAINING = "";

/** What all views of a comparison share. */
export interface CosinesView {
  /** Value of the chosen weights; null before a choice. */
  weights: string | null;
}

export class CosinesPanel {
  readonly element: HTMLElement;
  private readonly select = h("select", { class: "ml-select", "aria-label": "At the weights of" });
  private readonly button = h("button", { type: "button", class: "ml-button" }, "Measure");
  private readonly caption = h("p", { class: "ml-quiet ml-cosines-where", role: "status" });
  private readonly problem = h("p", { class: "ml-note", role: "alert", hidden: true });
  private readonly table = h("table", { class: "ml-cosines", "aria-label": "Cosines between gradients" });
  private readonly disposers: Dispose[] = [];
  private drawnKey = "";

  constructor(
    private readonly store: MultiRunStore,
    private readonly view: CosinesView,
    private readonly theme: () => Theme,
  ) {
    const runs = store.runs.map((run, index) => h("option", { value: String(index) }, `${visible(run.label)}, now`));
    const before = store.trait<Compared>("compared")?.batch_before_training
      ? [h("option", { value: BEFORE_TRAINING }, "before training")]
      : [];
    this.select.append(...before, ...runs);
    this.select.value = view.weights ?? (before.length ? BEFORE_TRAINING : "0");
    const tableBox = h("div", { class: "ml-results-room" }, this.table);
    const heading = h("div", { class: "ml-heading" }, h("span", { class: "ml-title" }, "cosines between gradients"));
    const tools = h("div", { class: "ml-cosines-tools" }, h("label", {}, "weights", this.select), this.button);
    this.element = h(
      "section",
      { class: "ml-card ml-cosines-card", "aria-label": "Gradients" },
      heading,
      h(
        "div",
        { class: "ml-cosines-body" },
        tableBox,
        h("div", { class: "ml-cosines-side" }, tools, this.caption, this.problem),
      ),
    );
    this.disposers.push(
      listen(this.select, "change", () => this.measure()),
      listen(this.button, "click", () => this.measure()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  draw(): void {
    const cosines = this.store.trait<CosineMatrix>("cosines");
    const theme = this.theme();
    const problem = cosines?.problem ?? "";
    setText(this.problem, problem);
    if (this.problem.hidden !== (problem === "")) this.problem.hidden = problem === "";
    const busy = cosines?.busy ?? false;
    setAttributes(this.button, { disabled: busy });
    setAttributes(this.element, { "data-busy": busy });
    setText(this.button, busy ? "Measuring…" : "Measure");
    const key = JSON.stringify([theme.dark, cosines]);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    const measured = cosines && cosines.values.length > 0 ? cosines : null;
    setText(
      this.caption,
      measured ? captionOf(measured) : "Measured when training starts: do the gradients point in the same direction?",
    );
    this.table.replaceChildren(...(measured ? matrix(measured, theme) : []));
  }

  private measure(): void {
    const chosen = this.select.value;
    this.view.weights = chosen;
    const run = chosen === BEFORE_TRAINING ? null : this.store.runs[Number(chosen)];
    void this.store.request({ type: "cosines", at: run?.label ?? null });
  }
}

function captionOf({ at, step, datums }: CosineMatrix): string {
  const weights = at === null ? "before training" : `of ${visible(at)} after ${thousands(step)} steps`;
  return `${datums} sequences of one batch, at the weights ${weights}. |g| is the norm of a gradient.`;
}

function matrix({ labels, values, norms }: CosineMatrix, theme: Theme): HTMLElement[] {
  const heads = labels.map((label) => h("th", { scope: "col" }, runLabel(label)));
  const head = h("thead", {}, h("tr", {}, h("td"), ...heads, h("th", { scope: "col", class: "ml-norm" }, "|g|")));
  const rows = labels.map((label, i) => {
    const cells = (values[i] ?? []).map((value, j) => {
      const cell = h("td", { "data-pair": `${i} ${j}` }, value === null ? "–" : threeDecimals(value));
      cell.style.background = background(value, theme);
      return cell;
    });
    const norm = h("td", { class: "ml-norm" }, short(norms[i]));
    return h("tr", {}, h("th", { scope: "row" }, runLabel(label)), ...cells, norm);
  });
  return [head, h("tbody", {}, ...rows)];
}

function runLabel(label: string): HTMLElement {
  return h("bdi", { class: "ml-run-label", title: visible(label) }, visible(label));
}

/** Blue for gradients that agree, orange for gradients that oppose each other; stronger for larger cosines. */
export function background(value: number | null, { roles }: Pick<Theme, "roles">): string {
  if (value === null) return "none";
  const alpha = Math.round(255 * (0.04 + 0.36 * Math.abs(value)));
  return `${value >= 0 ? roles.train : roles.rejected}${alpha.toString(16).padStart(2, "0")}`;
}
