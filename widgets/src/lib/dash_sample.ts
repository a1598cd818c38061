/** A short piece of a line, as a legend shows it. */

import { setAttributes } from "./dom";

/** Plotly's line styles as SVG dash arrays. */
const DASH_ARRAYS: Record<string, string> = {
  solid: "",
  dash: "6 4",
  dot: "2 3",
  dashdot: "7 3 2 3",
  longdash: "11 4",
  longdashdot: "11 3 2 3",
};

/** @param dash Line style as plotly calls it. */
export function dashSample(colour: string, dash: string, width = 2.4): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, { viewBox: "0 0 30 10", width: 30, height: 10, "aria-hidden": "true", class: "ml-sample" });
  const line = document.createElementNS(space, "line");
  setAttributes(line, { x1: 1, x2: 29, y1: 5, y2: 5, stroke: colour, "stroke-width": width });
  setAttributes(line, { "stroke-dasharray": DASH_ARRAYS[dash] || null });
  svg.append(line);
  return svg;
}
