"""What a page asks for as text: a loss as a cell, the history as CSV, the charts as a plotly figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..losses import LOSSES
from ..usercode.cell_source import cell_from
from .state import RunLike

__all__ = ["DOCUMENTS", "document"]

DOCUMENTS = ("cell", "csv", "figure")
"""Requests that are answered by a document."""


def document(run: RunLike, request: Mapping[str, Any]) -> str:
    """The text that ``request``, one of :data:`DOCUMENTS`, asks for.

    "cell" is a ``%%loss`` cell that does what loss ``name`` does; "csv" has a row for each step, as ``run.history``;
    "figure" is ``run.figure()`` as JSON, which ``plotly.io.from_json`` reads.

    Raises:
        ConfigError: no such loss, or one whose source cannot be copied; a request of another kind.
    """
    kind = request.get("type")
    if kind == "cell":
        return cell_from(LOSSES[str(request.get("name"))])
    records = list(run.records)
    if kind == "csv":
        from ..runs.store import history_frame

        return history_frame(records).to_csv()
    if kind == "figure":
        from ..runs.figure import draw_run

        return str(draw_run(run.recipe, records, list(run.edits), run.baseline).to_json())
    raise ConfigError(f"unknown request {str(kind)[:60]!r}")
