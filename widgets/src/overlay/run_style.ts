/** The colour and line style of each of several runs. Both differ, for readers who cannot tell the colours apart. */

import { setAttributes } from "../lib/dom";
import { DASHES, RUNS } from "../lib/palette";

export interface RunStyle {
  colour: string;
  /** Line style as plotly calls it. */
  dash: string;
}

/** Plotly's line styles as SVG dash arrays. */
const DASH_ARRAYS: Record<string, string> = {
  solid: "",
  dash: "6 4",
  dot: "2 3",
  dashdot: "7 3 2 3",
  longdash: "11 4",
  longdashdot: "11 3 2 3",
};

export function runStyle(index: number, dark: boolean): RunStyle {
  const colours = dark ? RUNS.dark : RUNS.light;
  return { colour: colours[index % colours.length] as string, dash: DASHES[index % DASHES.length] as string };
}

/** A short piece of a run's line. */
export function lineSample(index: number, dark: boolean): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const { colour, dash } = runStyle(index, dark);
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, { viewBox: "0 0 30 10", width: 30, height: 10, "aria-hidden": "true", class: "ml-sample" });
  const line = document.createElementNS(space, "line");
  setAttributes(line, { x1: 1, x2: 29, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.4 });
  setAttributes(line, { "stroke-dasharray": DASH_ARRAYS[dash] || null });
  svg.append(line);
  return svg;
}
