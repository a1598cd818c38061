/** The latest histogram, in the colour of rejected below 0 and of chosen above. */

import { short } from "../format";
import type { Heat } from "../heat";
import type { Histogram } from "../protocol";
import { roundUp, stepRange } from "../scale";
import { openTicks } from "./ends";
import { columnAt, heatTrace, shareBetween } from "./heatmap";
import { marked } from "./lines";
import { axisTitle, type Drawing, Panel, type Toggle, type View } from "./panel";

export class BarsPanel extends Panel {
  protected drawing(view: View): Drawing {
    const heat = view.store.heats.heats.get(this.chart.name);
    const over = heat !== undefined && view.store.view.overTime.has(this.chart.name);
    const drawing = over ? overTime(heat, view) : this.latest(view);
    return { ...drawing, toggle: heat ? timeToggle(this.chart.name, view) : null };
  }

  private latest({ store, theme }: View): Drawing {
    const { chosen, rejected } = theme.roles;
    const histogram = store.state?.histograms.find((candidate) => candidate.name === this.chart.name);
    const bins = histogram ? shares(histogram) : [];
    const above = bins.filter((bin) => bin.centre > 0).reduce((sum, bin) => sum + bin.share, 0);
    const low = histogram ? histogram.start : -20;
    const high = histogram ? histogram.start + histogram.width * histogram.counts.length : 20;
    const top = roundUp(Math.max(...bins.map((bin) => bin.share), histogram ? 5 : 20));
    const percent = (share: number) => (histogram ? `${share} %` : "–");
    const ahead = Math.round(above);
    return {
      traces: [
        {
          type: "bar",
          x: bins.map((bin) => bin.centre),
          y: bins.map((bin) => bin.share),
          width: histogram?.width ?? 1,
          marker: { color: bins.map((bin) => (bin.centre > 0 ? chosen : rejected)), line: { width: 0 } },
          customdata: bins.map((bin) => bin.label),
          hovertemplate: "%{y:.1f} % of pairs, %{customdata}<extra></extra>",
        },
      ],
      layout: {
        bargap: 0.12,
        xaxis: {
          ...{ range: [low, high], title: axisTitle(caption(histogram), theme), fixedrange: true },
          ...openTicks([low, high], { below: Boolean(bins[0]?.share), above: Boolean(bins.at(-1)?.share) }),
        },
        yaxis: { range: [0, top], ticksuffix: " %" },
        shapes: [
          {
            ...{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, layer: "below" },
            line: { color: theme.muted, width: 1 },
          },
        ],
      },
      legend: [
        { label: "above 0", colour: chosen, value: percent(ahead) },
        { label: "below 0", colour: rejected, value: percent(100 - ahead) },
      ],
      points: histogram ? histogram.counts.reduce((sum, count) => sum + count, 0) : 0,
      last: histogram?.step,
    };
  }
}

/** Switches a histogram between the latest and all of them. */
export function timeToggle(name: string, { store }: View): Toggle {
  const { overTime } = store.view;
  const flip = () => {
    if (!overTime.delete(name)) overTime.add(name);
  };
  return { label: "over time", title: "Show the histograms of all steps", on: overTime.has(name), flip };
}

function overTime(heat: Heat, { store, theme }: View): Drawing {
  const { state, view } = store;
  const range = view.range ?? stepRange(state?.steps_done ?? 0, state?.steps_total ?? 0);
  const legendAt = (step: number) => {
    const column = columnAt(heat, step);
    const above = column ? shareBetween(heat, column.shares, 0, Number.POSITIVE_INFINITY) : Number.NaN;
    const value = (share: number) => (column ? `${Math.round(share)} %` : "–");
    return [
      { label: "above 0", colour: theme.roles.chosen, value: value(above) },
      { label: "below 0", colour: theme.roles.rejected, value: value(100 - above) },
    ];
  };
  const { shapes, annotations } = marked(state?.marks ?? [], state?.marks_total ?? 0, range, theme) as {
    shapes: object[];
    annotations: object[];
  };
  const ends = [heat.start, heat.start + heat.bin * heat.bins] as const;
  const open = {
    below: heat.columns.some((column) => Boolean(column[0])),
    above: heat.columns.some((column) => Boolean(column.at(-1))),
  };
  const zero = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: theme.muted, width: 1 } };
  return {
    traces: [heatTrace(heat, theme.roles.train, theme)],
    layout: {
      hovermode: false,
      xaxis: { range, title: axisTitle("step", theme), tickformat: "~s" },
      yaxis: { range: ends, type: "linear", ...openTicks(ends, open) },
      shapes: [...shapes, zero],
      annotations,
    },
    legend: legendAt(heat.steps.at(-1) ?? 0),
    points: heat.points,
    last: heat.steps.at(-1),
    overSteps: true,
    readout: legendAt,
  };
}

function caption(histogram: Histogram | undefined): string {
  if (!histogram) return "chosen − rejected";
  const source = histogram.source === "held-out" ? "held-out" : "training batch";
  return `chosen − rejected, ${source}, step ${histogram.step}`;
}

interface Bin {
  centre: number;
  share: number;
  label: string;
}

function shares({ start, width, counts }: Histogram): Bin[] {
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  return counts.map((count, i) => {
    const low = start + i * width;
    const label =
      i === 0
        ? `below ${short(low + width)}`
        : i === counts.length - 1
          ? `above ${short(low)}`
          : `${Number(low.toFixed(2))} to ${Number((low + width).toFixed(2))}`;
    return { centre: low + width / 2, share: (100 * count) / total, label };
  });
}
