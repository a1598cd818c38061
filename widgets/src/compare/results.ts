/** Held-out metrics of every run, before training and at the last evaluation. */

import { h } from "../lib/dom";
import { short } from "../lib/format";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { Chart } from "../messages";
import type { LabelledRun } from "../multi_run_store";
import { overlayCharts } from "../overlay/curves";
import { lineSample } from "../overlay/run_style";

/**
 * The metrics that every run has, in the order of the charts. Metrics without a chart follow by name, and last those
 * whose values do not compare between runs.
 */
export function sharedMetrics(
  metrics: readonly Record<string, number>[],
  charts: readonly (readonly Chart[])[],
): string[] {
  const [first, ...others] = metrics;
  if (!first) return [];
  const overlays = overlayCharts(charts);
  const rank = (name: string) => {
    const index = overlays.findIndex((chart) => chart.name === name);
    if (index < 0) return overlays.length;
    return overlays[index]?.last ? overlays.length + 1 : index;
  };
  return Object.keys(first)
    .filter((name) => others.every((other) => name in other))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

export class ResultsTable {
  readonly element: HTMLElement;
  private readonly head = h("thead");
  private readonly body = h("tbody");
  private drawnKey = "";

  constructor(private readonly theme: () => Theme) {
    const table = h("table", { class: "ml-results", "aria-label": "Held-out metrics" }, this.head, this.body);
    const heading = h("div", { class: "ml-heading" }, h("span", { class: "ml-title" }, "held-out data"));
    heading.append(h("span", { class: "ml-unit" }, "before training → at the last evaluation"));
    this.element = h("section", { class: "ml-card ml-results-card", "aria-label": "Results" }, heading);
    this.element.append(h("div", { class: "ml-results-room" }, table));
  }

  draw(runs: readonly LabelledRun[]): void {
    const { dark } = this.theme();
    const key = JSON.stringify([dark, runs.map((run) => [run.label, run.result, run.store.state?.loss_label])]);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    const latest = runs.map(({ result }) => (result && result.step > 0 ? result.final : (result?.before ?? {})));
    const names = sharedMetrics(
      latest,
      runs.map((run) => run.store.charts),
    );
    this.element.hidden = names.length === 0;
    const titles = ["run", "step", ...names];
    this.head.replaceChildren(h("tr", {}, ...titles.map((name) => h("th", { scope: "col" }, visible(name)))));
    this.body.replaceChildren(
      ...runs.map(({ label, result }, index) => {
        const name = h("bdi", { class: "ml-run-label", title: visible(label) }, visible(label));
        const step = result?.step ?? 0;
        const cells = names.map((metric) =>
          h(
            "td",
            { "data-metric": metric },
            h("span", { class: "ml-quiet" }, `${short(result?.before[metric])} → `),
            h("b", {}, step > 0 ? short(result?.final[metric]) : "–"),
          ),
        );
        const head = h("th", { scope: "row" }, lineSample(index, dark), name);
        return h("tr", { "data-run": label }, head, h("td", {}, String(step)), ...cells);
      }),
    );
  }
}
