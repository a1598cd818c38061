/** The latest histogram in bars, values above 0 and below 0 in different colours; or all histograms over time. */

import type { Heat } from "../heat";
import { short } from "../lib/format";
import { openTicks, pair, type Range, roundUp } from "../lib/scale";
import type { Histogram } from "../messages";
import type { RunStore } from "../run_store";
import type { LegendEntry } from "./chart_legend";
import { columnAt, heatTrace, shareBetween } from "./heatmap";
import { markLayout } from "./marks";
import { axisTitle, type Drawing, escapeHtml, Panel, type PanelView, stepAxis, type Toggle } from "./panel";

/** Top of the axis in percent, without a histogram and at least. */
const EMPTY_TOP = 20;
const MIN_TOP = 5;

export class BarsPanel extends Panel {
  override drawing(view: PanelView): Drawing {
    const { store } = view;
    const heat = store.heats.heats.get(this.chart.name);
    const isOverTime = heat !== undefined && store.view.overTime.has(this.chart.name);
    const drawing = isOverTime ? this.overTime(heat, view) : this.latest(view);
    return { ...drawing, toggle: heat ? timeToggle(this.chart.name, store) : null };
  }

  private latest(view: PanelView): Drawing {
    const { theme } = view;
    const { axis, counts, bounds } = this.chart;
    const histogram = view.store.state?.histograms.find(({ name }) => name === this.chart.name);
    const [above, below] = this.chart.lines.map(({ role }) => theme.roles[role]);
    const bins = histogram ? binsOf(histogram) : [];
    const ends: Range = histogram ? endsOf(histogram) : pair(bounds, [-1, 1]);
    const top = roundUp(Math.max(...bins.map((bin) => bin.share), histogram ? MIN_TOP : EMPTY_TOP));
    const shareAbove = bins.filter((bin) => bin.centre > 0).reduce((sum, bin) => sum + bin.share, 0);
    return {
      traces: [
        {
          type: "bar",
          x: bins.map((bin) => bin.centre),
          y: bins.map((bin) => bin.share),
          width: histogram?.width ?? 1,
          marker: { color: bins.map((bin) => (bin.centre > 0 ? above : below)), line: { width: 0 } },
          customdata: bins.map((bin) => bin.label),
          hovertemplate: `%{y:.1f} %${counts && ` of ${escapeHtml(counts)}`}, %{customdata}<extra></extra>`,
        },
      ],
      layout: {
        bargap: 0.12,
        xaxis: {
          ...{ range: ends, title: axisTitle(escapeHtml(caption(axis, histogram)), theme), fixedrange: true },
          ...openTicks(ends, { below: Boolean(bins[0]?.share), above: Boolean(bins.at(-1)?.share) }),
        },
        yaxis: { range: [0, top], ticksuffix: " %" },
        shapes: [
          {
            ...{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, layer: "below" },
            line: { color: theme.muted, width: 1 },
          },
        ],
      },
      legend: this.legendOf(histogram ? shareAbove : Number.NaN, view),
      points: histogram ? histogram.counts.reduce((sum, count) => sum + count, 0) : 0,
      last: histogram?.step,
    };
  }

  private overTime(heat: Heat, view: PanelView): Drawing {
    const { store, theme } = view;
    const range = store.stepsShown;
    const legendAt = (step: number) => {
      const column = columnAt(heat, step);
      const shareAbove = column ? shareBetween(heat, column.shares, 0, Number.POSITIVE_INFINITY) : Number.NaN;
      return this.legendOf(shareAbove, view);
    };
    const ends: Range = [heat.start, heat.start + heat.bin * heat.bins];
    const outer = {
      below: heat.columns.some((column) => Boolean(column[0])),
      above: heat.columns.some((column) => Boolean(column.at(-1))),
    };
    const { shapes, annotations } = markLayout(store, range, theme);
    const zero = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: theme.muted, width: 1 } };
    return {
      traces: [heatTrace(heat, theme.roles.train, theme)],
      layout: {
        hovermode: false,
        xaxis: stepAxis(range, theme),
        yaxis: { range: ends, type: "linear", ...openTicks(ends, outer) },
        shapes: [...shapes, zero],
        annotations,
      },
      legend: legendAt(heat.steps.at(-1) ?? 0),
      points: heat.points,
      last: heat.steps.at(-1),
      isOverSteps: true,
      readout: legendAt,
    };
  }

  /** The share above 0 and the rest, which add up to 100 %. */
  private legendOf(shareAbove: number, { theme }: PanelView): LegendEntry[] {
    const rounded = Math.round(shareAbove);
    const shares = [rounded, 100 - rounded];
    return this.chart.lines.slice(0, 2).map(({ label, role }, i) => ({
      label,
      colour: theme.roles[role],
      value: Number.isNaN(shareAbove) ? "–" : `${shares[i]} %`,
    }));
  }
}

/** Switches a chart between the latest histogram and all of them. */
export function timeToggle(name: string, { view }: RunStore): Toggle {
  const flip = () => {
    if (!view.overTime.delete(name)) view.overTime.add(name);
  };
  return { label: "over time", title: "Show the histograms of all steps", isOn: view.overTime.has(name), flip };
}

function caption(axis: string, histogram: Histogram | undefined): string {
  if (!histogram) return axis;
  const source = histogram.source === "held-out" ? "held-out" : "training batch";
  return [axis, source, `step ${histogram.step}`].filter(Boolean).join(", ");
}

function endsOf({ start, width, counts }: Histogram): Range {
  return [start, start + width * counts.length];
}

interface Bin {
  centre: number;
  /** Percent of all counts. */
  share: number;
  label: string;
}

function binsOf({ start, width, counts }: Histogram): Bin[] {
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
