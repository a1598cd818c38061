/** The cosines between the runs' gradients, as a square of numbers, and at whose weights they are measured. */

import { type Dispose, h, listen, setAttributes, setText } from "../dom";
import { short, thousands } from "../format";
import type { CosineMatrix } from "../protocol_runs";
import type { Theme } from "../theme";
import { visible } from "../tokens/text";
import type { CompareStore } from "./store";

export class CosinesPanel {
  readonly element: HTMLElement;
  private readonly select = h("select", { class: "ml-select", "aria-label": "At the weights of" });
  private readonly button = h("button", { type: "button", class: "ml-button" }, "Measure");
  private readonly where = h("p", { class: "ml-quiet ml-cosines-where", role: "status" });
  private readonly problem = h("p", { class: "ml-note", role: "alert", hidden: true });
  private readonly table = h("table", { class: "ml-cosines", "aria-label": "Cosines between gradients" });
  private readonly disposers: Dispose[] = [];
  private drawn = "";

  constructor(
    private readonly store: CompareStore,
    private readonly theme: () => Theme,
  ) {
    const choices = store.runs.map((run, place) => h("option", { value: String(place) }, `${visible(run.label)}, now`));
    const trained = store.runs[0]?.store.state?.recipe === "rl"; // before its first rollout there is no batch
    this.select.append(...(trained ? [] : [h("option", { value: "" }, "before training")]), ...choices);
    this.select.value = trained && store.view.at === "" ? "0" : store.view.at;
    const room = h("div", { class: "ml-results-room" }, this.table);
    const heading = h("div", { class: "ml-heading" }, h("span", { class: "ml-title" }, "cosines between gradients"));
    const tools = h("div", { class: "ml-cosines-tools" }, h("label", {}, "weights", this.select), this.button);
    this.element = h(
      "section",
      { class: "ml-card ml-cosines-card", "aria-label": "Gradients" },
      heading,
      h(
        "div",
        { class: "ml-cosines-body" },
        room,
        h("div", { class: "ml-cosines-side" }, tools, this.where, this.problem),
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
    const { cosines } = this.store;
    const { dark } = this.theme();
    const refused = cosines?.problem ?? "";
    setText(this.problem, refused);
    if (this.problem.hidden !== (refused === "")) this.problem.hidden = refused === "";
    const busy = cosines?.busy ?? false;
    setAttributes(this.button, { disabled: busy });
    setAttributes(this.element, { "data-busy": busy });
    setText(this.button, busy ? "Measuring…" : "Measure");
    const key = JSON.stringify([dark, cosines]);
    if (key === this.drawn) return;
    this.drawn = key;
    const known = cosines && cosines.values.length > 0 ? cosines : null;
    setText(this.where, known ? words(known) : "Measured when training starts: do the losses pull the same way?");
    this.table.replaceChildren(...(known ? square(known, dark) : []));
  }

  private measure(): void {
    const { view, runs } = this.store;
    view.at = this.select.value;
    const run = view.at === "" ? null : runs[Number(view.at)];
    void this.store.request({ type: "cosines", at: run?.label ?? null });
  }
}

function words({ at, step, datums }: CosineMatrix): string {
  const where = at === null ? "before training" : `of ${visible(at)} after ${thousands(step)} steps`;
  return `${datums} sequences of one batch, at the weights ${where}. |g| is the length of a gradient.`;
}

function square({ labels, values, norms }: CosineMatrix, dark: boolean): HTMLElement[] {
  const heads = labels.map((label) => h("th", { scope: "col" }, named(label)));
  const head = h("thead", {}, h("tr", {}, h("td"), ...heads, h("th", { scope: "col", class: "ml-norm" }, "|g|")));
  const rows = labels.map((label, i) => {
    const cells = (values[i] ?? []).map((value, j) => {
      const cell = h("td", { "data-pair": `${i} ${j}` }, value === null ? "–" : fixed(value));
      cell.style.background = ground(value, dark);
      return cell;
    });
    const norm = h("td", { class: "ml-norm" }, short(norms[i]));
    return h("tr", {}, h("th", { scope: "row" }, named(label)), ...cells, norm);
  });
  return [head, h("tbody", {}, ...rows)];
}

function named(label: string): HTMLElement {
  return h("bdi", { class: "ml-run-label", title: visible(label) }, visible(label));
}

/** Three decimals, with a true minus, so that columns stand. */
export function fixed(value: number): string {
  const text = Math.abs(value).toFixed(3);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Blue for gradients that agree, orange for those that undo each other. */
function ground(value: number | null, dark: boolean): string {
  if (value === null) return "none";
  const colour = value >= 0 ? (dark ? "86, 180, 233" : "0, 114, 178") : dark ? "240, 128, 60" : "213, 94, 0";
  return `rgba(${colour}, ${(0.04 + 0.36 * Math.abs(value)).toFixed(3)})`;
}
