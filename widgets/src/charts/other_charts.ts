/** Charts for metrics that are in no chart of the recipe: whatever a loss reports is shown. */

import type { Chart, MetricEntry } from "../messages";

/** At most so many; a loss may report any number of metrics. */
const MAX_OTHER_CHARTS = 18;

/** The metrics among `columns` that are not in `shown`, by name, training and held-out column as one metric. */
export function otherMetrics(columns: Iterable<string>, shown: ReadonlySet<string>): string[] {
  const names = new Set<string>();
  for (const column of columns) {
    const name = column.replace(/^held_out\//, "");
    if (!shown.has(column) && !shown.has(name)) names.add(name);
  }
  return [...names].sort().slice(0, MAX_OTHER_CHARTS);
}

/** A chart of one metric. */
export function otherChart(name: string, metric: MetricEntry | undefined): Chart {
  const { definition, unit } = metric ?? { definition: "", unit: "" };
  return {
    ...{ name, title: name, definition, unit, kind: "lines", axis: "", counts: "", bounds: null, overlay: null },
    lines: [
      { series: name, label: "training", role: "train", spread: "" },
      { series: `held_out/${name}`, label: "held-out", role: "held_out", spread: "" },
    ],
  };
}
