/** How one run is told from the others: a colour that the colour-blind can tell apart, and a line style besides. */

import { setAttributes } from "../dom";

export interface Style {
  colour: string;
  /** As plotly calls it. */
  dash: string;
}

/** The twin of `STYLES` in `mint_lab/runs/overlay.py`. */
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DARK = ["#56b4e9", "#f0803c", "#2bc39a", "#e39ac2", "#e6b13c", "#9fb7ff"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

const STROKES: Record<string, string> = {
  solid: "",
  dash: "6 4",
  dot: "2 3",
  dashdot: "7 3 2 3",
  longdash: "11 4",
  longdashdot: "11 3 2 3",
};

export function styleOf(place: number, dark: boolean): Style {
  const at = place % LIGHT.length;
  return { colour: (dark ? DARK : LIGHT)[at] as string, dash: DASHES[at] as string };
}

/** A short piece of a run's line. */
export function sample(place: number, dark: boolean): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const { colour, dash } = styleOf(place, dark);
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, { viewBox: "0 0 30 10", width: 30, height: 10, "aria-hidden": "true", class: "ml-sample" });
  const line = document.createElementNS(space, "line");
  setAttributes(line, { x1: 1, x2: 29, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.4 });
  setAttributes(line, { "stroke-dasharray": STROKES[dash] || null });
  svg.append(line);
  return svg;
}
