"""Every colour of the project, once: plain constants, so that a script can copy them into TypeScript.

Curves have the colours of Okabe and Ito (2008), which readers with any common kind of colour blindness can tell apart;
in dark mode the same hues, lighter. ``widgets/generate_from_python.py`` writes ``widgets/src/lib/palette.ts`` from this
module, which imports nothing of the package.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BASE",
    "BRANCH_DASHES",
    "DASHES",
    "FONT",
    "ROLES",
    "RUNS",
    "TOKENS",
    "VERDICTS",
    "VERDICT_GROUNDS",
]

ROLES: dict[str, dict[str, str]] = {
    "light": {"train": "#0072b2", "held_out": "#e69f00", "chosen": "#009e73", "rejected": "#d55e00"},
    "dark": {"train": "#56b4e9", "held_out": "#e69f00", "chosen": "#2bc39a", "rejected": "#f0803c"},
}
"""Colour of a curve by its role. "chosen" also stands for A > 0, upper bounds and values above 0."""

RUNS: dict[str, list[str]] = {
    "light": ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"],
    "dark": ["#56b4e9", "#f0803c", "#2bc39a", "#e39ac2", "#e6b13c", "#9fb7ff"],
}
"""Colour of a run in a comparison, by its number; the colours repeat."""

DASHES: list[str] = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
"""Line style of a run in a comparison, by its number, in plotly's words: tells runs apart without colour."""

BRANCH_DASHES: list[str] = ["dash", "dot", "dashdot"]
"""Line style of a branch: of the steps that a run has left. Its colours are those of the run's own curves, faint."""

TOKENS: dict[str, dict[str, Any]] = {
    "light": {
        "ground": (255, 255, 255),
        "below": (90, 162, 216),
        "above": (232, 138, 48),
        "single": (169, 143, 208),
        "inks": [(31, 35, 40), (0, 0, 0), (255, 255, 255)],
    },
    "dark": {
        "ground": (24, 27, 31),
        "below": (38, 112, 176),
        "above": (184, 94, 10),
        "single": (126, 96, 184),
        "inks": [(230, 232, 234), (255, 255, 255), (0, 0, 0)],
    },
}
"""Ground of a token by its number, RGB: ``below`` to ``above`` through ``ground`` about 0, or ``ground`` to ``single``.

Text in the first of ``inks`` has a contrast of 4.5 or more on every ground in light mode. Lightness falls along both
arms, so that a grey print still shows the size.
"""

BASE: dict[str, dict[str, str]] = {
    "light": {
        "text": "#1f2328",
        "muted": "#5c6670",
        "grid": "#e3e6ea",
        "line": "#d3d8de",
        "surface": "#ffffff",
        "raised": "#f6f8fa",
        "accent": "#0072b2",
        "on_accent": "#ffffff",
        "bad": "#b94400",
        "bad_ground": "#fdf1ea",
        "bad_line": "#fadccb",
    },
    "dark": {
        "text": "#e6e8ea",
        "muted": "#a3abb3",
        "grid": "#33383e",
        "line": "#434a52",
        "surface": "#16191c",
        "raised": "rgba(255, 255, 255, 0.045)",
        "accent": "#56b4e9",
        "on_accent": "#06202f",
        "bad": "#f5a172",
        "bad_ground": "rgba(213, 94, 0, 0.14)",
        "bad_line": "rgba(213, 94, 0, 0.24)",
    },
}
"""Colours of text, lines and surfaces where the surrounding page sets none."""

VERDICTS: dict[str, str] = {"ok": "#2e7d32", "info": "#66707a", "warn": "#9a5b00", "fail": "#c62828"}
"""Ground of the sign before a line of a preflight report. A white sign can be read on each, in light and dark mode."""

VERDICT_GROUNDS: dict[str, str] = {"warn": "rgba(230,145,0,.13)", "fail": "rgba(222,50,50,.13)"}
"""Ground of the line itself, transparent for either mode; none for the other verdicts."""

FONT = "system-ui, sans-serif"
"""Font of plotly figures."""
