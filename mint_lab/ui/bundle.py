"""The TypeScript side of all widgets, and how an output displays a widget."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ..errors import RunError

__all__ = ["BUNDLE", "bundle", "widget_view"]

BUNDLE = Path(__file__).parent / "static" / "widgets.js"
"""The TypeScript side, built from ``widgets/``: one file for all widgets, which loads nothing later."""


def widget_view(model_id: str) -> dict[str, Any]:
    """Return the entry of a mimebundle that displays the live widget."""
    return {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 1, "model_id": model_id}}


@functools.lru_cache(maxsize=1)
def _read(file: Path, _: int) -> str:
    """Return a text that all widgets share, until the file changes."""
    return file.read_text(encoding="utf-8")


def bundle() -> str:
    """Return the text of :data:`BUNDLE`.

    Raises:
        RunError: If the page has not been built.
    """
    try:
        return _read(BUNDLE, BUNDLE.stat().st_mtime_ns)
    except FileNotFoundError:
        raise RunError(
            f"the page has not been built: {BUNDLE} is missing; `pip install -e .` in the repository builds it"
        ) from None
