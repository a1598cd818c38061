/** A curve the size of a word. */

import { setAttributes } from "../dom";

const WIDTH = 84;
const HEIGHT = 24;
const ROOM = 2.5;

/** Points of a curve in a box, the highest value at its top; a constant runs through the middle. */
export function sparkPoints(
  values: readonly number[],
  width = WIDTH,
  height = HEIGHT,
  room = ROOM,
): [number, number][] {
  const known = values.filter(Number.isFinite);
  const low = Math.min(...known);
  const high = Math.max(...known);
  return known.map((value, i) => {
    const across = known.length > 1 ? i / (known.length - 1) : 0.5;
    const up = high > low ? (value - low) / (high - low) : 0.5;
    return [room + across * (width - 2 * room), height - room - up * (height - 2 * room)];
  });
}

export function sparkline(values: readonly number[]): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    width: WIDTH,
    height: HEIGHT,
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
    const end = document.createElementNS(space, "circle");
    setAttributes(end, { cx: last[0], cy: last[1], r: 2, fill: "currentColor" });
    svg.append(end);
  }
  return svg;
}
