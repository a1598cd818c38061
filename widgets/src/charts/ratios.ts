/**
 * Ratios of trainer to sampler: tokens with a positive advantage upwards, tokens with a negative one downwards, and the
 * limits beyond which the loss clips them. A limit follows its slider at once; the limit of the last step stays dotted.
 * Or the same over time.
 */

import type { Heat } from "../heat";
import { setting } from "../lib/format";
import { pair, roundUp } from "../lib/scale";
import type { Theme } from "../lib/theme";
import type { Clip, Histogram, Line } from "../messages";
import {
  type BinPart,
  clippedShare,
  type Limits,
  limitsOf,
  rootHeight,
  rootTicks,
  splitBins,
  tokensIn,
} from "../ratios";
import { timeToggle } from "./bars";
import { columnAt, heatTrace, shareBetween } from "./heatmap";
import { axisTitle, type Drawing, escapeHtml, Panel, type PanelView, stepAxis } from "./panel";

/** Labelled ratios of the horizontal axis, in a wide and in a narrow chart. */
const WIDE_TICKS = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5];
const NARROW_TICKS = [0.4, 0.5, 0.7, 1, 1.4, 2, 2.5];
const WIDE_FROM_PX = 420;
/** Labelled ratios of the vertical axis over time. */
const TIME_TICKS = [0.5, 0.7, 1, 1.4, 2];
/** Top of the axis in percent, without a histogram and at least. */
const EMPTY_TOP = 50;
const MIN_TOP = 5;

/** The tokens with one sign of the advantage. */
interface Half {
  /** 1 is drawn upwards, -1 downwards. */
  sign: 1 | -1;
  label: string;
  colour: string;
  parts: BinPart[];
  /** Ratios beyond which this half is clipped. */
  below: number | null;
  above: number | null;
}

/** What the shapes and labels of both halves share. */
interface Axes {
  theme: Theme;
  /** Ends of the horizontal axis, log-ratios. */
  start: number;
  end: number;
  /** Upper end of the vertical axis. */
  top: number;
  /** Limits with the settings as they are or as a person is choosing them. */
  limits: Limits | null;
  /** Limits that the loss applied at the step of the histogram. */
  applied: Limits | null;
}

export class RatiosPanel extends Panel {
  override readonly followsDrafts = true;

  override drawing(view: PanelView): Drawing {
    const { store } = view;
    const [up, down] = this.chart.lines.map((line) => store.heats.heats.get(line.series));
    const isOverTime = up && down && store.view.overTime.has(this.chart.name);
    const drawing = isOverTime ? this.overTime(up, down, view) : this.latest(view);
    return { ...drawing, toggle: up && down ? timeToggle(this.chart.name, store) : null };
  }

  private latest(view: PanelView): Drawing {
    const { store, theme } = view;
    const { state } = store;
    const { axis, bounds, counts, lines } = this.chart;
    const histograms = lines.map((line) => state?.histograms.find(({ name }) => name === line.series));
    const known = histograms.find(Boolean);
    const clip = state?.clip ?? null;
    const limits = limitsOf(clip, (name) => store.setting(name));
    const total = histograms.reduce((sum, histogram) => sum + tokensIn(histogram), 0);
    const halves = lines.slice(0, 2).map((line, i): Half => {
      const sign = i === 0 ? 1 : -1;
      const { low: below, high: above } = limitsOfSign(sign, limits, clip);
      const parts = splitBins(histograms[i], total, { below, above });
      return { sign, label: line.label, colour: theme.roles[line.role], below, above, parts };
    });
    const [start, end] = known ? [known.start, known.start + known.width * known.counts.length] : pair(bounds, [-1, 1]);
    const highest = Math.max(
      ...halves.flatMap(({ parts }) => parts.map((part) => part.binShare)),
      total ? MIN_TOP : EMPTY_TOP,
    );
    const topShare = roundUp(highest);
    const applied = known?.clip ? { low: known.clip[0] as number, high: known.clip[1] as number } : null;
    const axes: Axes = { theme, start, end, top: rootHeight(topShare) * 1.04, limits, applied };
    const shares = halves.map(({ parts }) => clippedShare(parts));
    const shareTexts = shares.map((share) => (limits && total ? `≈ ${percent(share)} %` : "–"));
    const title = escapeHtml(known ? [axis, `step ${known.step}`].filter(Boolean).join(", ") : axis);
    return {
      traces: halves.flatMap((half) => [barTrace(half, false, counts, theme), barTrace(half, true, counts, theme)]),
      layout: {
        barmode: "overlay",
        hovermode: "closest",
        xaxis: { range: [start, end], fixedrange: true, title: axisTitle(title, theme), ...ratioTicks(view) },
        yaxis: { range: [-axes.top, axes.top], ...shareTicks(topShare), zeroline: true, zerolinecolor: theme.muted },
        shapes: halves.flatMap((half) => limitShapes(half, axes)),
        annotations: [
          ...halves.map((half) => halfLabel(half, axes)),
          ...halves.flatMap((half) => limitLabels(half, axes)),
        ],
      },
      legend: halves.map(({ label, colour, parts }, i) => ({
        label: limits || !total ? `${label}, clipped` : label,
        colour,
        value: limits || !total ? (shareTexts[i] as string) : `${percent(totalShare(parts))} %`,
      })),
      points: total,
      last: known?.step,
      attributes: {
        ...limitAttributes(limits),
        "data-clipped": limits && total ? shares.map((share) => share.toFixed(3)).join(" ") : null,
        "data-pending": limits && applied ? String(isDifferent(limits, applied)) : null,
      },
      text: spokenText(limits, known, shareTexts),
    };
  }

  /** Positive advantages in the upper half, negative ones in the lower half, each with its limits. */
  private overTime(up: Heat, down: Heat, view: PanelView): Drawing {
    const { store, theme } = view;
    const { state } = store;
    const clip = state?.clip ?? null;
    const limits = limitsOf(clip, (name) => store.setting(name));
    const range = store.stepsShown;
    const [upLine, downLine] = this.chart.lines as [Line, Line];
    const halves = [
      { heat: up, line: upLine, yAxis: "y", limits: limitsOfSign(1, limits, clip) },
      { heat: down, line: downLine, yAxis: "y2", limits: limitsOfSign(-1, limits, clip) },
    ];
    const legendAt = (step: number) =>
      halves.map(({ heat, line, limits: ends }) => ({
        label: `of ${line.label}, beyond`,
        colour: theme.roles[line.role],
        value: shareBeyond(heat, step, ends),
      }));
    return {
      traces: halves.map(({ heat, line, yAxis }) => heatTrace(heat, theme.roles[line.role], theme, yAxis)),
      layout: {
        hovermode: false,
        xaxis: { ...stepAxis(range, theme), anchor: "y2" },
        yaxis: { ...ratioAxis(up), domain: [0.53, 1] },
        yaxis2: { ...ratioAxis(down), domain: [0, 0.47] },
        shapes: halves.flatMap(({ yAxis, limits: { low, high } }) => [
          ...limitLine(high, yAxis, theme),
          ...limitLine(low, yAxis, theme),
        ]),
      },
      legend: legendAt(up.steps.at(-1) ?? 0),
      points: up.points + down.points,
      last: up.steps.at(-1),
      attributes: { ...limitAttributes(limits), "data-pending": null },
      isOverSteps: true,
      readout: legendAt,
    };
  }
}

/** The limits for tokens with one sign of the advantage: A > 0 has an upper one, A < 0 a lower one, unless `both`. */
function limitsOfSign(
  sign: 1 | -1,
  limits: Limits | null,
  clip: Clip | null,
): { low: number | null; high: number | null } {
  return {
    low: limits && (sign < 0 || clip?.both) ? limits.low : null,
    high: limits && (sign > 0 || clip?.both) ? limits.high : null,
  };
}

function limitAttributes(limits: Limits | null): Record<string, number | null> {
  return { "data-low": limits?.low ?? null, "data-high": limits?.high ?? null };
}

function isDifferent(one: Limits, other: Limits): boolean {
  return Math.abs(one.low - other.low) > 1e-9 || Math.abs(one.high - other.high) > 1e-9;
}

function totalShare(parts: readonly BinPart[]): number {
  return parts.reduce((total, part) => total + part.share, 0);
}

function percent(share: number): string {
  return share >= 10 || share === 0 ? share.toFixed(0) : share.toFixed(1);
}

/** The clipped parts of the bins hatched, the others filled, so that the difference does not depend on colour. */
function barTrace(half: Half, isClipped: boolean, counts: string, theme: Theme): Record<string, unknown> {
  const { sign, label, colour } = half;
  const parts = half.parts.filter((part) => part.clipped === isClipped && part.binShare > 0);
  const hatched = { pattern: { shape: "/", fgcolor: colour, bgcolor: theme.surface, size: 5, solidity: 0.45 } };
  return {
    type: "bar",
    x: parts.map(({ from, to }) => (from + to) / 2),
    y: parts.map(({ binShare }) => sign * rootHeight(binShare)),
    width: parts.map(({ from, to }) => 0.92 * (to - from)),
    marker: { color: colour, line: { width: isClipped ? 1 : 0, color: colour }, ...(isClipped ? hatched : {}) },
    customdata: parts.map((part) => `${percent(part.share)} % of ${escapeHtml(counts)}, ${part.label}`),
    hovertemplate: `%{customdata}<br>${escapeHtml(label)}${isClipped ? ", clipped" : ""}<extra></extra>`,
  };
}

/** A line at each limit of a half, and a tint where it is clipped. */
function limitShapes({ sign, colour, below, above }: Half, axes: Axes): object[] {
  const { start, end, top, theme, applied, limits } = axes;
  const shapes: object[] = [];
  const span = { y0: 0, y1: sign * top, layer: "below" };
  const addLine = (ratio: number, dash: string, width: number, color: string) => {
    const x = Math.log(ratio);
    if (!(x > start && x < end)) return;
    shapes.push({ ...span, type: "line", x0: x, x1: x, layer: "above", line: { color, width, dash } });
  };
  const addTint = (x0: number, x1: number) => {
    if (x1 <= x0) return;
    shapes.push({ ...span, type: "rect", x0, x1, fillcolor: colour, opacity: 0.12, line: { width: 0 } });
  };
  const outdated = applied && limits && isDifferent(applied, limits) ? applied : null;
  if (below !== null) {
    addTint(start, Math.min(end, below > 0 ? Math.log(below) : start));
    if (outdated && outdated.low !== below) addLine(outdated.low, "dot", 1.2, theme.muted);
    addLine(below, "solid", 2, theme.text);
  }
  if (above !== null) {
    addTint(Math.max(start, above > 0 ? Math.log(above) : start), end);
    if (outdated && outdated.high !== above) addLine(outdated.high, "dot", 1.2, theme.muted);
    addLine(above, "solid", 2, theme.text);
  }
  return shapes;
}

/** The ratio at each limit, outside of it; with an arrow if it lies beyond the axis. */
function limitLabels({ sign, below, above }: Half, axes: Axes): object[] {
  const { start, end, top, theme, applied, limits } = axes;
  const labelOf = (ratio: number, isHigh: boolean) => {
    const x = ratio > 0 ? Math.log(ratio) : Number.NEGATIVE_INFINITY;
    const clampedX = Math.min(end, Math.max(start, x));
    const isPending = applied && limits && ratio !== (isHigh ? applied.high : applied.low);
    const text = `${setting(ratio)}${isPending ? ", next update" : ""}`;
    // Without enough room outside of the limit, the label stands inside.
    const outsideRoom = isHigh ? end - clampedX : clampedX - start;
    const hasRoom = outsideRoom > 0.25 * (end - start);
    const isRight = isHigh === hasRoom;
    const withArrow = x >= end ? `${text} →` : x <= start ? `← ${text}` : text;
    return {
      ...{ x: clampedX, y: sign * top, xanchor: isRight ? "left" : "right", yanchor: sign > 0 ? "top" : "bottom" },
      ...{ showarrow: false, xshift: isRight ? 4 : -4, font: { size: 11, color: theme.text } },
      text: withArrow,
    };
  };
  // A lower limit of 0 clips nothing and has no place on the axis.
  const low = below !== null && below > 0 ? [labelOf(below, false)] : [];
  return [...low, ...(above === null ? [] : [labelOf(above, true)])];
}

/** The name of a half, in the corner where it has no limit. */
function halfLabel({ sign, label, colour }: Half, { start, end, top }: Axes): object {
  const isLeft = sign > 0;
  return {
    ...{ x: isLeft ? start : end, y: sign * top, showarrow: false, xshift: isLeft ? 4 : -4, text: escapeHtml(label) },
    ...{ xanchor: isLeft ? "left" : "right", yanchor: isLeft ? "top" : "bottom", font: { size: 12, color: colour } },
  };
}

function ratioTicks({ widthPx }: PanelView): object {
  const ratios = (widthPx ?? 0) > WIDE_FROM_PX ? WIDE_TICKS : NARROW_TICKS;
  return { tickvals: ratios.map(Math.log), ticktext: ratios.map(String) };
}

function shareTicks(top: number): object {
  const shares = rootTicks(top);
  return {
    tickvals: [...shares.map((share) => -rootHeight(share)).reverse(), 0, ...shares.map(rootHeight)],
    ticktext: [...[...shares].reverse(), 0, ...shares].map((share) => `${share} %`),
  };
}

/** The chart as a sentence, for a screen reader. */
function spokenText(limits: Limits | null, known: Histogram | undefined, shares: string[]): string {
  if (!known) return "no ratios yet";
  const step = `step ${known.step}`;
  if (!limits) return `${step}, the loss clips nothing`;
  const [high, low] = [setting(limits.high), setting(limits.low)];
  return `${step}, clipped above ${high} ${shares[0]} of the tokens, below ${low} ${shares[1]}`;
}

/** Share of the tokens beyond the limits at a step, as text. */
function shareBeyond(heat: Heat, step: number, { low, high }: { low: number | null; high: number | null }): string {
  const column = columnAt(heat, step);
  if (!column) return "–";
  const below =
    low === null || low <= 0 ? 0 : shareBetween(heat, column.shares, Number.NEGATIVE_INFINITY, Math.log(low));
  const above = high === null ? 0 : shareBetween(heat, column.shares, Math.log(high), Number.POSITIVE_INFINITY);
  return `≈ ${(below + above).toFixed(below + above >= 10 ? 0 : 1)} %`;
}

function ratioAxis(heat: Heat): object {
  return {
    range: [heat.start, heat.start + heat.bin * heat.bins],
    ...{ type: "linear", tickvals: TIME_TICKS.map(Math.log), ticktext: TIME_TICKS.map(String) },
  };
}

function limitLine(ratio: number | null, yAxis: string, theme: Theme): object[] {
  if (ratio === null || ratio <= 0) return [];
  const y = Math.log(ratio);
  return [
    {
      ...{ type: "line", xref: "paper", x0: 0, x1: 1, yref: yAxis, y0: y, y1: y },
      line: { color: theme.text, width: 1.2, dash: "dash" },
      label: { text: setting(ratio), textposition: "end", font: { size: 10, color: theme.text } },
    },
  ];
}
