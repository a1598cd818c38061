/** Ratios over time: tokens with a positive advantage above, those with a negative one below, each with its limit. */

import { setting } from "../format";
import type { Heat } from "../heat";
import { limitsOf } from "../ratios";
import { stepRange } from "../scale";
import { columnAt, heatTrace, shareBetween } from "./heatmap";
import { axisTitle, type Drawing, type View } from "./panel";

const TICKS = [0.5, 0.7, 1, 1.4, 2];

export function ratiosOverTime(up: Heat, down: Heat, { store, theme }: View): Drawing {
  const { state, view } = store;
  const clip = state?.clip ?? null;
  const limits = limitsOf(clip, (name) => store.setting(name));
  const range = view.range ?? stepRange(state?.steps_done ?? 0, state?.steps_total ?? 0);
  const bounds = {
    up: { high: limits?.high ?? null, low: clip?.both ? (limits?.low ?? null) : null },
    down: { low: limits?.low ?? null, high: clip?.both ? (limits?.high ?? null) : null },
  };
  const beyond = (heat: Heat, step: number, { low, high }: { low: number | null; high: number | null }) => {
    const column = columnAt(heat, step);
    if (!column) return "–";
    const below =
      low === null || low <= 0 ? 0 : shareBetween(heat, column.shares, Number.NEGATIVE_INFINITY, Math.log(low));
    const above = high === null ? 0 : shareBetween(heat, column.shares, Math.log(high), Number.POSITIVE_INFINITY);
    return `≈ ${(below + above).toFixed(below + above >= 10 ? 0 : 1)} %`;
  };
  const legendAt = (step: number) => [
    { label: "of A > 0, beyond", colour: theme.roles.chosen, value: beyond(up, step, bounds.up) },
    { label: "of A < 0, beyond", colour: theme.roles.rejected, value: beyond(down, step, bounds.down) },
  ];
  const line = (ratio: number | null, yref: string) =>
    ratio === null || ratio <= 0
      ? []
      : [
          {
            ...{ type: "line", xref: "paper", x0: 0, x1: 1, yref, y0: Math.log(ratio), y1: Math.log(ratio) },
            line: { color: theme.text, width: 1.2, dash: "dash" },
            label: { text: setting(ratio), textposition: "end", font: { size: 10, color: theme.text } },
          },
        ];
  const axis = (heat: Heat) => ({
    range: [heat.start, heat.start + heat.bin * heat.bins],
    ...{ type: "linear", tickvals: TICKS.map(Math.log), ticktext: TICKS.map(String) },
  });
  return {
    traces: [heatTrace(up, theme.roles.chosen, theme), heatTrace(down, theme.roles.rejected, theme, "y2")],
    layout: {
      hovermode: false,
      xaxis: { range, title: axisTitle("step", theme), tickformat: "~s", anchor: "y2" },
      yaxis: { ...axis(up), domain: [0.53, 1] },
      yaxis2: { ...axis(down), domain: [0, 0.47] },
      shapes: [
        ...line(bounds.up.high, "y"),
        ...line(bounds.up.low, "y"),
        ...line(bounds.down.low, "y2"),
        ...line(bounds.down.high, "y2"),
      ],
    },
    legend: legendAt(up.steps.at(-1) ?? 0),
    points: up.points + down.points,
    last: up.steps.at(-1),
    attributes: { "data-low": limits?.low ?? null, "data-high": limits?.high ?? null, "data-pending": null },
    overSteps: true,
    readout: legendAt,
  };
}
