/** The colour and line style of each of several runs. Both differ, for readers who cannot tell the colours apart. */

import { dashSample } from "../lib/dash_sample";
import { DASHES, RUNS } from "../lib/palette";

export interface RunStyle {
  colour: string;
  /** Line style as plotly calls it. */
  dash: string;
}

export function runStyle(index: number, dark: boolean): RunStyle {
  const colours = dark ? RUNS.dark : RUNS.light;
  return { colour: colours[index % colours.length] as string, dash: DASHES[index % DASHES.length] as string };
}

/** A short piece of a run's line. */
export function lineSample(index: number, dark: boolean): SVGSVGElement {
  const { colour, dash } = runStyle(index, dark);
  return dashSample(colour, dash);
}
