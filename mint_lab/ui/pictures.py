"""What readers without a kernel see of a widget: a run, a comparison or tokens as plain data, drawn by ``charts``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ..charts.chart_spec import charts_of
from ..charts.colour_scale import ColourScale
from ..charts.run_data import RatioLimits, run_data
from ..charts.static_comparison import CosineTable, comparison_picture
from ..charts.static_picture import run_picture
from ..charts.token_strips import Chip, Strip, StripGroup, TokenStrips
from ..recipes.registry import recipe_of
from ..runs.branches import branches_of
from ..runs.figure import drawn_branches
from ..runs.store import load_parent
from .messages import Samples, TokenColumn, TokenRow, Tokens
from .state import RunLike
from .token_text import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runs.comparison.comparison import Comparison
    from .run_messages import CosineMatrix

__all__ = ["picture_of_run", "picture_of_runs", "strips_of"]

ITEMS, TOKENS, TEXT = 6, 100, 32
"""Items, tokens of a strip and characters of a token that are shown: pictures are stored in notebooks."""


def picture_of_run(run: RunLike, samples: Samples | None = None) -> bytes:
    """Draw the charts of ``run`` as PNG, and the tokens of ``samples`` below them."""
    with run.reading:
        records, edits, rewinds = list(run.records), list(run.edits), list(run.rewinds)
    branches = branches_of(records, edits, rewinds, run.parent, load_parent(run.parent))
    clip, settings = run.loss.clip, run.settings
    limits = None
    if clip is not None and clip.settings <= set(settings):
        low, high = clip.range(settings)
        limits = RatioLimits(low, high, clip.both) if math.isfinite(low) and math.isfinite(high) else None
    data = run_data(
        run.loss.label,
        records,
        run.baseline,
        edits,
        limits,
        branches=drawn_branches(branches, run.baseline),
        branches_left_out=branches.left_out,
    )
    heading = f"{run.loss.label}, step {len(records)} of {run.steps_total or 0}"
    tokens = None if samples is None else samples["tokens"]
    strips = None if tokens is None else strips_of(tokens)
    return run_picture(data, charts_of(recipe_of(run.recipe).charts), heading, strips)


def picture_of_runs(comparison: Comparison, cosines: CosineMatrix | None = None) -> bytes:
    """Draw all runs of a comparison on top of each other as PNG, and the cosines below them."""
    runs = [run_data(label, list(run.records), run.baseline) for label, run in comparison.runs.items()]
    table = None
    if cosines is not None:
        table = CosineTable(cosines["labels"], cosines["values"], cosines["at"], cosines["step"])
    return comparison_picture(runs, charts_of(recipe_of(comparison.recipe).charts), table)


def strips_of(tokens: Tokens) -> TokenStrips:
    """Return the first items of a message, each with its shared prompt once."""
    table = _Table(tokens)
    items = len({row["item"] for row in tokens["rows"]})
    parts = [f"coloured by {table.by['name']}", table.by["unit"], table.by["note"], tokens["about"]]
    return TokenStrips(
        caption=" · ".join(part for part in parts if part),
        scale=table.scale,
        groups=list(_groups(tokens, table)),
        note=f"{items - ITEMS} more in a running notebook" if items > ITEMS else "",
    )


def _groups(tokens: Tokens, table: _Table) -> Iterator[StripGroup]:
    for item, rows in groupby(tokens["rows"], key=lambda row: row["item"]):
        if item >= ITEMS:
            return
        members = list(rows)
        shared = members[0]["shared"]
        strips = [Strip("prompt", table.prompt(members[0]))] if shared else []
        strips += [Strip(row["role"], table.completion(row)) for row in members]
        yield StripGroup(visible(members[0]["title"]), strips)


class _Table:
    """The buffers of a message as arrays."""

    def __init__(self, tokens: Tokens) -> None:
        self._columns = tokens["columns"]
        self._number = next(i for i, c in enumerate(self._columns) if c["name"] == tokens["by"])
        self.by: TokenColumn = self._columns[self._number]
        self.scale = ColourScale(self.by["scale"], self.by["low"], self.by["high"])
        self._texts = [visible(text) for text in tokens["texts"]]
        self._ids = np.frombuffer(tokens["ids"], dtype="<i4")
        self._pieces = np.frombuffer(tokens["pieces"], dtype="<i4")
        self._values = np.frombuffer(tokens["values"], dtype="<f4").reshape(len(self._columns), -1)
        weight = [i for i, c in enumerate(self._columns) if c["name"] == "weight"]
        self._weights: NDArray[np.float32] | None = self._values[weight[0]] if weight else None

    def prompt(self, row: TokenRow) -> list[Chip]:
        """Return the last tokens of the shared prompt."""
        left_out = max(row["shared"] - TOKENS, 0)
        chips = [self._chip(place) for place in range(row["start"] + left_out, row["start"] + row["shared"])]
        return _gap(left_out) + chips

    def completion(self, row: TokenRow) -> list[Chip]:
        """Return the first tokens after the shared prompt."""
        start, end = row["start"] + row["shared"], row["start"] + row["length"]
        left_out = max(end - start - TOKENS, 0)
        return [self._chip(place) for place in range(start, end - left_out)] + _gap(left_out)

    def _chip(self, place: int) -> Chip:
        text = self._texts[self._pieces[place]]
        value = float(self._values[self._number, place])
        # Numbers of a token with weight 0 are no part of the loss, but a gradient there shows a defect of the loss.
        counts = self._weights is None or np.nan_to_num(self._weights[place]) != 0
        ground = self.scale.ground(value) if counts or (self.by["name"] == "gradient" and value != 0) else None
        numbers = [f"token {self._ids[place]}"]
        numbers += [
            f"{column['name']} {self._values[i, place]:.4g}"
            for i, column in enumerate(self._columns)
            if np.isfinite(self._values[i, place])
        ]
        return Chip(text if len(text) <= TEXT else text[:TEXT] + "…", ground, "\n".join(numbers))


def _gap(left_out: int) -> list[Chip]:
    return [Chip(f"… {left_out} more …", None)] if left_out else []
