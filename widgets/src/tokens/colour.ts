/**
 * Colours of numbers: the twin of `mint_lab/ui/colours.py`, and a dark mode.
 *
 * Blue to orange through the page's ground about 0, ground to purple in one direction: told apart with every common kind
 * of colour blindness. Text on any of them has a contrast of 4.5 at least.
 */

import type { TokenColumn } from "../protocol";

export type Colour = readonly [number, number, number];

interface Palette {
  ground: Colour;
  below: Colour;
  above: Colour;
  single: Colour;
  inks: readonly Colour[];
}

const BLACK: Colour = [0, 0, 0];
const WHITE: Colour = [255, 255, 255];

const LIGHT: Palette = {
  ground: WHITE,
  below: [90, 162, 216],
  above: [232, 138, 48],
  single: [169, 143, 208],
  inks: [[31, 35, 40], BLACK, WHITE],
};
const DARK: Palette = {
  ground: [24, 27, 31],
  below: [38, 112, 176],
  above: [184, 94, 10],
  single: [126, 96, 184],
  inks: [[230, 232, 234], WHITE, BLACK],
};

/** Where `value` lies on the column's scale: -1 to 1, or 0 to 1 for a sequential one; null without a number. */
export function place(value: number, column: TokenColumn): number | null {
  if (Number.isNaN(value)) return null;
  const ratio = column.scale === "ratio";
  const at = ratio ? (value > 0 ? Math.log(value) : Number.NEGATIVE_INFINITY) : value;
  const low = ratio ? Math.log(column.low) : column.low;
  const high = ratio ? Math.log(column.high) : column.high;
  if (column.scale === "sequential") {
    const [near, far] = Math.abs(high) < Math.abs(low) ? [high, low] : [low, high];
    return clamp(far === near ? 0 : (at - near) / (far - near), 0, 1);
  }
  return clamp(at / (high || 1), -1, 1);
}

/** The colour at a place of the scale. */
export function colourAt(share: number, scale: TokenColumn["scale"], dark: boolean): Colour {
  const palette = dark ? DARK : LIGHT;
  const end = scale === "sequential" ? palette.single : share > 0 ? palette.above : palette.below;
  const mixed = palette.ground.map((from, i) => Math.round(from + ((end[i] ?? 0) - from) * Math.abs(share)));
  return [mixed[0] ?? 0, mixed[1] ?? 0, mixed[2] ?? 0];
}

/** The text colour on `ground`: the page's own where it can be read, else black or white. */
export function inkOn(ground: Colour, dark: boolean): Colour {
  const { inks } = dark ? DARK : LIGHT;
  return inks.find((ink) => contrast(ink, ground) >= 4.5) ?? inks[0] ?? BLACK;
}

/** WCAG contrast of two colours, 1 to 21. */
export function contrast(one: Colour, two: Colour): number {
  const [light, dark] = [luminance(one), luminance(two)].sort((a, b) => b - a);
  return ((light ?? 0) + 0.05) / ((dark ?? 0) + 0.05);
}

export function css(colour: Colour): string {
  return `rgb(${colour.join(",")})`;
}

/** The scale as a CSS gradient, low end left. */
export function gradient(column: TokenColumn, dark: boolean): string {
  const stops = Array.from({ length: 13 }, (_, i) => {
    const across = i / 12;
    if (column.scale !== "sequential") return 2 * across - 1;
    return Math.abs(column.high) < Math.abs(column.low) ? 1 - across : across;
  });
  return `linear-gradient(to right, ${stops.map((share) => css(colourAt(share, column.scale, dark))).join(", ")})`;
}

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
