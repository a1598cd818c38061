/** Curves over steps: raw thin, smoothed strong, held-out with points, and a line wherever something changed. */

import { short } from "../format";
import type { Series } from "../history";
import type { Chart, Line, Mark } from "../protocol";
import { extent, type Range, roundRange, stepRange } from "../scale";
import { rawPath, smooth } from "../smooth";
import type { Theme } from "../theme";
import { markLines } from "./marks";
import { axisTitle, type Drawing, type LegendEntry, Panel, type View } from "./panel";

export class LinesPanel extends Panel {
  constructor(
    chart: Chart,
    private readonly stray = false,
  ) {
    super(chart);
  }

  protected drawing(view: View): Drawing {
    const { store, theme } = view;
    const traces: Record<string, unknown>[] = [];
    const columns: number[][] = [];
    const legend: LegendEntry[] = [];
    let points = 0;
    let last: number | undefined;
    for (const line of this.chart.lines) {
      const series = store.history.series.get(line.series);
      const start = baselineOf(line, store.state?.baseline ?? {});
      if (!series && start === undefined) {
        // A chart of ours promises its curves from the start; one made for a stray metric shows only what there is.
        if (!this.stray) legend.push({ label: line.label, colour: theme.roles[line.role], value: "–" });
        continue;
      }
      const drawn = line.role === "held_out" ? held(line, series, start, theme) : noisy(line, series, view);
      traces.push(...drawn.traces);
      columns.push(...drawn.columns);
      legend.push({ label: line.label, colour: theme.roles[line.role], value: short(drawn.last) });
      points += series?.points ?? 0;
      last ??= series?.mean.at(-1);
    }
    const state = store.state;
    const xRange = stepRange(state?.steps_done ?? 0, state?.steps_total ?? 0);
    const range = this.chart.bounds ? padded(this.chart.bounds) : roundRange(...extent(columns));
    const layout = {
      hovermode: "x unified",
      xaxis: { range: xRange, title: axisTitle("step", theme), hoverformat: ",d", tickformat: "~s" },
      yaxis: { range, ...(this.chart.bounds ? { tickvals: [0, 0.25, 0.5, 0.75, 1] } : {}) },
      ...marked(state?.marks ?? [], state?.marks_total ?? 0, xRange, theme),
    };
    return { traces, layout, legend, points, last };
  }
}

interface Drawn {
  traces: Record<string, unknown>[];
  columns: number[][];
  last: number | undefined;
}

function noisy(line: Line, series: Series | undefined, view: View): Drawn {
  if (!series) return { traces: [], columns: [], last: undefined };
  const colour = view.theme.roles[line.role];
  const raw = rawPath(series);
  const smoothed = smooth(series, view.halfLife);
  const strong = view.halfLife > 0;
  const traces: Record<string, unknown>[] = [
    {
      ...{ type: "scatter", mode: "lines", name: line.label, x: raw.x, y: raw.y },
      line: { color: colour, width: strong ? 1 : 1.6 },
      opacity: strong ? 0.32 : 1,
      hovertemplate: `%{y:.4g} ${line.label}<extra></extra>`,
    },
  ];
  if (strong) {
    traces.push({
      ...{ type: "scatter", mode: "lines", x: series.steps, y: smoothed, hoverinfo: "skip" },
      line: { color: colour, width: 2 },
    });
  }
  return { traces, columns: [raw.y], last: smoothed.at(-1) };
}

function held(line: Line, series: Series | undefined, start: number | undefined, theme: Theme): Drawn {
  const x = [...(start === undefined ? [] : [0]), ...(series?.steps ?? [])];
  const y = [...(start === undefined ? [] : [start]), ...(series?.mean ?? [])];
  const colour = theme.roles[line.role];
  const trace = {
    ...{ type: "scatter", mode: x.length > 120 ? "lines" : "lines+markers", name: line.label, x, y },
    line: { color: colour, width: 1.8 },
    marker: { color: colour, size: 5 },
    hovertemplate: `%{y:.4g} ${line.label}<extra></extra>`,
  };
  return { traces: [trace], columns: [y], last: y.at(-1) };
}

function baselineOf(line: Line, baseline: Record<string, number>): number | undefined {
  return line.role === "held_out" ? baseline[line.series.replace("held_out/", "")] : undefined;
}

/** Room for the line itself at both ends of a fixed axis. */
function padded([low, high]: readonly number[]): Range {
  const span = (high as number) - (low as number);
  return [(low as number) - 0.02 * span, (high as number) + 0.02 * span];
}

/** A dotted line before the first step of each change, numbered as in the list below the charts. */
function marked(marks: Mark[], total: number, [low, high]: Range, theme: Theme): object {
  const lines = markLines(marks, total, 0.06 * (high - low));
  const shapes = lines.map(({ x }) => ({
    ...{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below" },
    line: { color: theme.muted, width: 1, dash: "dot" },
  }));
  const annotations = lines
    .filter(({ label }) => label !== "")
    .map(({ x, label }) => ({
      ...{ x, y: 1, xref: "x", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false },
      text: label,
      font: { size: 10, color: theme.muted },
      borderpad: 0,
    }));
  return { shapes, annotations };
}
