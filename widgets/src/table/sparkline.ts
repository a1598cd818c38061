/** A curve the size of a word. */

import { setAttributes } from "../lib/dom";

const WIDTH_PX = 84;
const HEIGHT_PX = 24;
const MARGIN_PX = 2.5;

/** Points of a curve in a box, with the highest value at the top. A constant is drawn in the middle. */
export function sparkPoints(
  values: readonly number[],
  width = WIDTH_PX,
  height = HEIGHT_PX,
  margin = MARGIN_PX,
): [number, number][] {
  const finite = values.filter(Number.isFinite);
  const low = Math.min(...finite);
  const high = Math.max(...finite);
  return finite.map((value, i) => {
    const across = finite.length > 1 ? i / (finite.length - 1) : 0.5;
    const up = high > low ? (value - low) / (high - low) : 0.5;
    return [margin + across * (width - 2 * margin), height - margin - up * (height - 2 * margin)];
  });
}

export function sparkline(values: readonly number[]): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, {
    viewBox: `0 0 ${WIDTH_PX} ${HEIGHT_PX}`,
    width: WIDTH_PX,
    height: HEIGHT_PX,
    role: "img",
    class: "ml-spark",
  });
  const points = sparkPoints(values);
  const line = document.createElementNS(space, "polyline");
  const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  setAttributes(line, { points: path, fill: "none", stroke: "currentColor", "stroke-width": 1.4 });
  svg.append(line);
  const last = points.at(-1);
  if (last) {
    const dot = document.createElementNS(space, "circle");
    setAttributes(dot, { cx: last[0], cy: last[1], r: 2, fill: "currentColor" });
    svg.append(dot);
  }
  return svg;
}
