/**
 * Colours of numbers, on a light and on a dark page. `mint_lab/charts/colour_scale.py` computes those of a light page for
 * the static picture.
 *
 * A diverging scale runs from blue through the background to orange, a sequential one from the background to purple.
 * People with any common kind of colour blindness can tell them apart. Text on them has a contrast of at least 4.5.
 */

import { TOKENS } from "../lib/palette";
import type { TokenColumn } from "../messages";

export type Colour = readonly [number, number, number];

/** Contrast of text that is legible by WCAG 2, level AA. */
const MIN_CONTRAST = 4.5;

/** Where `value` lies on the column's scale: -1 to 1, or 0 to 1 if it is sequential; null if there is no number. */
export function scalePosition(value: number, column: TokenColumn): number | null {
  if (Number.isNaN(value)) return null;
  const isRatio = column.scale === "ratio";
  const at = isRatio ? (value > 0 ? Math.log(value) : Number.NEGATIVE_INFINITY) : value;
  const low = isRatio ? Math.log(column.low) : column.low;
  const high = isRatio ? Math.log(column.high) : column.high;
  if (column.scale === "sequential") {
    const [near, far] = Math.abs(high) < Math.abs(low) ? [high, low] : [low, high];
    return clamp(far === near ? 0 : (at - near) / (far - near), 0, 1);
  }
  return clamp(at / (high || 1), -1, 1);
}

/** The colour at a position of the scale. */
export function colourAt(position: number, scale: TokenColumn["scale"], dark: boolean): Colour {
  const palette = dark ? TOKENS.dark : TOKENS.light;
  const end = scale === "sequential" ? palette.single : position > 0 ? palette.above : palette.below;
  const mixed = palette.ground.map((from, i) => Math.round(from + ((end[i] ?? 0) - from) * Math.abs(position)));
  return [mixed[0] ?? 0, mixed[1] ?? 0, mixed[2] ?? 0];
}

/** The first text colour that is legible on `background`: the page's own, black or white. */
export function inkOn(background: Colour, dark: boolean): Colour {
  const { inks } = dark ? TOKENS.dark : TOKENS.light;
  return inks.find((ink) => contrast(ink, background) >= MIN_CONTRAST) ?? inks[0];
}

/** WCAG contrast of two colours, 1 to 21. */
export function contrast(one: Colour, other: Colour): number {
  const [lighter, darker] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return ((lighter ?? 0) + 0.05) / ((darker ?? 0) + 0.05);
}

export function css(colour: Colour): string {
  return `rgb(${colour.join(",")})`;
}

/** The scale as a CSS gradient, low end on the left. */
export function gradient(column: TokenColumn, dark: boolean): string {
  const stops = Array.from({ length: 13 }, (_, i) => {
    const across = i / 12;
    if (column.scale !== "sequential") return 2 * across - 1;
    return Math.abs(column.high) < Math.abs(column.low) ? 1 - across : across;
  });
  return `linear-gradient(to right, ${stops.map((stop) => css(colourAt(stop, column.scale, dark))).join(", ")})`;
}

/** Relative luminance of an sRGB colour, 0 to 1. */
function luminance(colour: Colour): number {
  const [red, green, blue] = colour.map((part) => {
    const value = part / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * (red ?? 0) + 0.7152 * (green ?? 0) + 0.0722 * (blue ?? 0);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
