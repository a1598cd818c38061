/** The latest histogram, in the colour of rejected below 0 and of chosen above. */

import { short } from "../format";
import type { Histogram } from "../protocol";
import { roundUp } from "../scale";
import { axisTitle, type Drawing, Panel, type View } from "./panel";

export class BarsPanel extends Panel {
  protected drawing({ store, theme }: View): Drawing {
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
        xaxis: { range: [low, high], title: axisTitle(caption(histogram), theme), fixedrange: true },
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
