/**
 * Colours of the page. Generated from `mint_lab/charts/palette.py`; after a change there, run
 * `python widgets/generate_from_python.py`.
 */

export const ROLES = {
  light: { train: "#0072b2", held_out: "#e69f00", chosen: "#009e73", rejected: "#d55e00" },
  dark: { train: "#56b4e9", held_out: "#e69f00", chosen: "#2bc39a", rejected: "#f0803c" },
} as const;

export const RUNS = {
  light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"],
  dark: ["#56b4e9", "#f0803c", "#2bc39a", "#e39ac2", "#e6b13c", "#9fb7ff"],
} as const;

export const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"] as const;

export const BRANCH_DASHES = ["dash", "dot", "dashdot"] as const;

export const TOKENS = {
  light: {
    ground: [255, 255, 255],
    below: [90, 162, 216],
    above: [232, 138, 48],
    single: [169, 143, 208],
    inks: [
      [31, 35, 40],
      [0, 0, 0],
      [255, 255, 255],
    ],
  },
  dark: {
    ground: [24, 27, 31],
    below: [38, 112, 176],
    above: [184, 94, 10],
    single: [126, 96, 184],
    inks: [
      [230, 232, 234],
      [255, 255, 255],
      [0, 0, 0],
    ],
  },
} as const;

export const BASE = {
  light: {
    text: "#1f2328",
    muted: "#5c6670",
    grid: "#e3e6ea",
    line: "#d3d8de",
    surface: "#ffffff",
    raised: "#f6f8fa",
    accent: "#0072b2",
    on_accent: "#ffffff",
    bad: "#b94400",
    bad_ground: "#fdf1ea",
    bad_line: "#fadccb",
  },
  dark: {
    text: "#e6e8ea",
    muted: "#a3abb3",
    grid: "#33383e",
    line: "#434a52",
    surface: "#16191c",
    raised: "rgba(255, 255, 255, 0.045)",
    accent: "#56b4e9",
    on_accent: "#06202f",
    bad: "#f5a172",
    bad_ground: "rgba(213, 94, 0, 0.14)",
    bad_line: "rgba(213, 94, 0, 0.24)",
  },
} as const;
