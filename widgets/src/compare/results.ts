/** Held-out metrics of every run, before training and now. */

import { h } from "../dom";
import { short } from "../format";
import { sample } from "../overlay/styles";
import type { Theme } from "../theme";
import { visible } from "../tokens/text";
import type { ComparedView } from "./store";

const FIRST = ["pair_accuracy", "reward", "nll", "mean_margin", "logps/chosen", "logps/rejected", "displacement_frac"];

/** Metrics that every run has, well-known ones first, the losses last: they have units of their own. */
export function sharedMetrics(finals: readonly Record<string, number>[]): string[] {
  const [first, ...rest] = finals;
  if (!first) return [];
  const shared = Object.keys(first).filter((name) => rest.every((final) => name in final));
  const place = (name: string) => {
    const known = FIRST.indexOf(name);
    return name === "loss" ? FIRST.length + 1 : known < 0 ? FIRST.length : known;
  };
  return shared.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}

export class ResultsTable {
  readonly element: HTMLElement;
  private readonly head = h("thead");
  private readonly body = h("tbody");
  private drawn = "";

  constructor(private readonly theme: () => Theme) {
    const table = h("table", { class: "ml-results", "aria-label": "Held-out metrics" }, this.head, this.body);
    const heading = h("div", { class: "ml-heading" }, h("span", { class: "ml-title" }, "held-out data"));
    heading.append(h("span", { class: "ml-unit" }, "before training → at the last evaluation"));
    this.element = h("section", { class: "ml-card ml-results-card", "aria-label": "Results" }, heading);
    this.element.append(h("div", { class: "ml-results-room" }, table));
  }

  draw(runs: readonly ComparedView[]): void {
    const { dark } = this.theme();
    const key = JSON.stringify([dark, runs.map((run) => [run.label, run.result, run.store.state?.loss_label])]);
    if (key === this.drawn) return;
    this.drawn = key;
    const known = runs.map((run) => (run.result.step > 0 ? run.result.final : run.result.before));
    const names = sharedMetrics(known);
    this.element.hidden = names.length === 0;
    const titles = ["run", "step", ...names];
    this.head.replaceChildren(h("tr", {}, ...titles.map((name) => h("th", { scope: "col" }, visible(name)))));
    this.body.replaceChildren(
      ...runs.map(({ label, result }, place) => {
        const name = h("bdi", { class: "ml-run-label", title: visible(label) }, visible(label));
        const cells = names.map((metric) =>
          h(
            "td",
            { "data-metric": metric },
            h("span", { class: "ml-quiet" }, `${short(result.before[metric])} → `),
            h("b", {}, result.step > 0 ? short(result.final[metric]) : "–"),
          ),
        );
        const row = h("th", { scope: "row" }, sample(place, dark), name);
        return h("tr", { "data-run": label }, row, h("td", {}, String(result.step)), ...cells);
      }),
    );
  }
}
