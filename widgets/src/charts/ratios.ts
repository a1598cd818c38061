/**
 * Ratios of trainer to sampler: tokens with a positive advantage upwards, those with a negative one downwards, and the
 * limits beyond which the loss clips them. A limit that is being chosen moves at once; what still acts stays dotted.
 */

import { setting } from "../format";
import type { Clip, Histogram } from "../protocol";
import { clippedShare, type Limits, limitsOf, type Piece, pieces, rootHeight, rootTicks, tokensIn } from "../ratios";
import { roundUp } from "../scale";
import type { Theme } from "../theme";
import { timeToggle } from "./bars";
import { axisTitle, type Drawing, Panel, type View } from "./panel";
import { ratiosOverTime } from "./ratios_time";

const RATIOS = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5];
const NARROW = [0.4, 0.5, 0.7, 1, 1.4, 2, 2.5];
/** Axis of a run that has no histogram yet. */
const AXIS = { start: -1.025, width: 0.05, bins: 41 };

interface Half {
  sign: 1 | -1;
  name: string;
  colour: string;
  all: Piece[];
  /** Ratios at which this half is cut. */
  below: number | null;
  above: number | null;
}

export class RatiosPanel extends Panel {
  protected override readonly live = true;

  protected drawing(view: View): Drawing {
    const { heats } = view.store.heats;
    const [up, down] = [heats.get(`${this.chart.name}/positive`), heats.get(`${this.chart.name}/negative`)];
    const over = up && down && view.store.view.overTime.has(this.chart.name);
    const drawing = over ? ratiosOverTime(up, down, view) : this.latest(view);
    return { ...drawing, toggle: up && down ? timeToggle(this.chart.name, view) : null };
  }

  private latest(view: View): Drawing {
    const { store, theme } = view;
    const { state } = store;
    const find = (sign: string) => state?.histograms.find(({ name }) => name === `${this.chart.name}/${sign}`);
    const up = find("positive");
    const down = find("negative");
    const known = up ?? down;
    const clip = state?.clip ?? null;
    const limits = limitsOf(clip, (name) => store.setting(name));
    const total = tokensIn(up) + tokensIn(down);
    const half = (sign: 1 | -1, histogram: Histogram | undefined): Half => {
      const below = limits && (sign < 0 || clip?.both) ? limits.low : null;
      const above = limits && (sign > 0 || clip?.both) ? limits.high : null;
      const name = sign > 0 ? "A > 0" : "A < 0";
      const colour = theme.roles[sign > 0 ? "chosen" : "rejected"];
      return { sign, name, colour, below, above, all: pieces(histogram, total, { below, above }) };
    };
    const halves = [half(1, up), half(-1, down)];
    const start = known?.start ?? AXIS.start;
    const end = start + (known ? known.width * known.counts.length : AXIS.width * AXIS.bins);
    const highest = Math.max(...halves.flatMap(({ all }) => all.map((piece) => piece.share)), total ? 5 : 50);
    const top = roundUp(highest);
    const acted = known?.clip ? { low: known.clip[0] as number, high: known.clip[1] as number } : null;
    const scene: Scene = { theme, start, end, top: rootHeight(top) * 1.04, clip, limits, acted };
    const shares = halves.map(({ all }) => clippedShare(all));
    const words = limits && total ? shares.map((share) => `≈ ${percent(share)} %`) : ["–", "–"];
    const caption = known ? `ratio r, step ${known.step}` : "ratio r";
    return {
      traces: halves.flatMap((one) => [bars(one, false, theme), bars(one, true, theme)]),
      layout: {
        barmode: "overlay",
        hovermode: "closest",
        xaxis: { range: [start, end], fixedrange: true, title: axisTitle(caption, theme), ...ratioTicks(view) },
        yaxis: { range: [-scene.top, scene.top], ...shareTicks(top), zeroline: true, zerolinecolor: theme.muted },
        shapes: halves.flatMap((one) => limitShapes(one, scene)),
        annotations: [...halves.map((one) => corner(one, scene)), ...halves.flatMap((one) => limitLabels(one, scene))],
      },
      legend: halves.map(({ name, colour }, i) => ({
        label: limits || !total ? `${name}, clipped` : name,
        colour,
        value: limits || !total ? (words[i] as string) : `${percent(sum(halves[i] as Half))} %`,
      })),
      points: total,
      last: known?.step,
      attributes: {
        "data-low": limits?.low ?? null,
        "data-high": limits?.high ?? null,
        "data-clipped": limits && total ? shares.map((share) => share.toFixed(3)).join(" ") : null,
        "data-pending": limits && acted ? String(differ(limits, acted)) : null,
      },
      words: spoken(limits, known, words),
    };
  }
}

interface Scene {
  theme: Theme;
  start: number;
  end: number;
  top: number;
  clip: Clip | null;
  limits: Limits | null;
  acted: Limits | null;
}

function differ(one: Limits, other: Limits): boolean {
  return Math.abs(one.low - other.low) > 1e-9 || Math.abs(one.high - other.high) > 1e-9;
}

function sum({ all }: Half): number {
  return all.reduce((total, piece) => total + piece.part, 0);
}

function percent(share: number): string {
  return share >= 10 || share === 0 ? share.toFixed(0) : share.toFixed(1);
}

/** What gets through in full colour; what is clipped hatched, so that it is told apart without colour. */
function bars({ sign, name, colour, all }: Half, clipped: boolean, theme: Theme): Record<string, unknown> {
  const shown = all.filter((piece) => piece.clipped === clipped && piece.share > 0);
  const hatched = { pattern: { shape: "/", fgcolor: colour, bgcolor: theme.surface, size: 5, solidity: 0.45 } };
  return {
    type: "bar",
    x: shown.map(({ from, to }) => (from + to) / 2),
    y: shown.map(({ share }) => sign * rootHeight(share)),
    width: shown.map(({ from, to }) => 0.92 * (to - from)),
    marker: { color: colour, line: { width: clipped ? 1 : 0, color: colour }, ...(clipped ? hatched : {}) },
    customdata: shown.map(({ part, label }) => `${percent(part)} % of tokens, ${label}`),
    hovertemplate: `%{customdata}<br>${escaped(name)}${clipped ? ", clipped" : ""}<extra></extra>`,
  };
}

/** Plotly reads its texts as HTML. */
function escaped(text: string): string {
  return text.replace("<", "&lt;").replace(">", "&gt;");
}

function limitShapes({ sign, colour, below, above }: Half, scene: Scene): object[] {
  const { start, end, top, theme, acted } = scene;
  const shapes: object[] = [];
  const span = { y0: 0, y1: sign * top, layer: "below" };
  const line = (ratio: number, dash: string, width: number, ink: string) => {
    const x = Math.log(ratio);
    if (!(x > start && x < end)) return;
    shapes.push({ ...span, type: "line", x0: x, x1: x, layer: "above", line: { color: ink, width, dash } });
  };
  const ground = (x0: number, x1: number) => {
    if (x1 <= x0) return;
    shapes.push({ ...span, type: "rect", x0, x1, fillcolor: colour, opacity: 0.12, line: { width: 0 } });
  };
  const old = acted && scene.limits && differ(acted, scene.limits) ? acted : null;
  if (below !== null) {
    ground(start, Math.min(end, below > 0 ? Math.log(below) : start));
    if (old && old.low !== below) line(old.low, "dot", 1.2, theme.muted);
    line(below, "solid", 2, theme.text);
  }
  if (above !== null) {
    ground(Math.max(start, above > 0 ? Math.log(above) : start), end);
    if (old && old.high !== above) line(old.high, "dot", 1.2, theme.muted);
    line(above, "solid", 2, theme.text);
  }
  return shapes;
}

/** The ratio at each limit, outside of it; with an arrow where it lies beyond the axis. */
function limitLabels({ sign, below, above }: Half, scene: Scene): object[] {
  const { start, end, top, theme, acted, limits } = scene;
  const label = (ratio: number, high: boolean) => {
    const x = ratio > 0 ? Math.log(ratio) : Number.NEGATIVE_INFINITY;
    const off = x <= start || x >= end;
    const at = Math.min(end, Math.max(start, x));
    const pending = acted && limits && ratio !== (high ? acted.high : acted.low);
    const text = `${setting(ratio)}${pending ? ", next update" : ""}`;
    // Where there is too little room outside, inside.
    const room = high ? end - at > 0.25 * (end - start) : at - start > 0.25 * (end - start);
    const right = high === room;
    const arrow = off ? (x >= end ? " →" : "← ") : "";
    return {
      ...{ x: at, y: sign * top, xanchor: right ? "left" : "right", yanchor: sign > 0 ? "top" : "bottom" },
      ...{ showarrow: false, xshift: right ? 4 : -4, font: { size: 11, color: theme.text } },
      text: arrow.startsWith("←") ? arrow + text : text + arrow,
    };
  };
  // A lower limit of 0 clips nothing, and there is nothing to point at.
  const low = below !== null && below > 0 ? [label(below, false)] : [];
  return [...low, ...(above === null ? [] : [label(above, true)])];
}

/** Which half is which, where no limit is expected. */
function corner({ sign, name, colour }: Half, { start, end, top }: Scene): object {
  const left = sign > 0;
  return {
    ...{ x: left ? start : end, y: sign * top, showarrow: false, xshift: left ? 4 : -4, text: escaped(name) },
    ...{ xanchor: left ? "left" : "right", yanchor: left ? "top" : "bottom", font: { size: 12, color: colour } },
  };
}

function ratioTicks({ width }: View): object {
  const ratios = (width ?? 0) > 420 ? RATIOS : NARROW;
  return { tickvals: ratios.map(Math.log), ticktext: ratios.map(String) };
}

function shareTicks(top: number): object {
  const shares = rootTicks(top);
  return {
    tickvals: [...shares.map((share) => -rootHeight(share)).reverse(), 0, ...shares.map(rootHeight)],
    ticktext: [...[...shares].reverse(), 0, ...shares].map((share) => `${share} %`),
  };
}

function spoken(limits: Limits | null, known: Histogram | undefined, shares: string[]): string {
  if (!known) return "no ratios yet";
  const step = `step ${known.step}`;
  if (!limits) return `${step}, the loss clips nothing`;
  const [high, low] = [setting(limits.high), setting(limits.low)];
  return `${step}, clipped above ${high} ${shares[0]} of the tokens, below ${low} ${shares[1]}`;
}
