"""Outputs with an id, which can be brought up to date after their cell has run. The only use of IPython in ``ui``."""

from __future__ import annotations

import contextvars
import uuid
from typing import Any

from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

__all__ = ["Outputs"]


class Outputs:
    """Every output in which one object is on display."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def add(self, bundle: dict[str, Any]) -> None:
        """Put another output into the cell that is running."""
        display_id = uuid.uuid4().hex
        self._ids.append(display_id)
        display(bundle, raw=True, display_id=display_id)

    def update(self, bundle: dict[str, Any]) -> None:
        """Replace what all outputs show. May be called from any thread.

        In an empty context the kernel attributes the message to the cell that runs now, not to the one that made the
        output: a program that executes a notebook listens to no other.
        """
        for display_id in self._ids:
            contextvars.Context().run(display, bundle, raw=True, display_id=display_id, update=True)
