"""The palette is plain data, complete in both modes, and the only place with colours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mint_lab
from mint_lab.charts import palette

PACKAGE = Path(mint_lab.__file__).parent


def test_no_other_module_has_a_colour() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {match}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "palette.py"
        for match in re.findall(r"#[0-9a-fA-F]{6}\b", path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_light_and_dark_mode_name_the_same() -> None:
    for each in (palette.ROLES, palette.TOKENS, palette.BASE):
        assert list(each) == ["light", "dark"]
        assert list(each["light"]) == list(each["dark"])
    assert len(palette.RUNS["light"]) == len(palette.RUNS["dark"]) == len(palette.DASHES)


def test_runs_are_told_apart_in_colour_and_without() -> None:
    for colours in palette.RUNS.values():
        assert len(set(colours)) == len(colours)
    assert len(set(palette.DASHES)) == len(palette.DASHES)


def test_white_signs_can_be_read_on_every_verdict() -> None:
    for colour in palette.VERDICTS.values():
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5, colour


def test_importing_it_brings_nothing_else() -> None:
    code = "import sys, mint_lab.charts.palette; print({'torch', 'plotly', 'matplotlib', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
