"""Outputs with an id, which can be brought up to date after their cell has run. The only use of IPython in ``ui``."""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

__all__ = ["Outputs", "after_each_cell", "know_cells"]


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


def after_each_cell(call: Callable[[], None]) -> Callable[[], None]:
    """Have ``call`` made after each cell, while what it displays still belongs to the cell; returns what ends that.

    A program that executes a notebook ends the kernel as soon as the last cell is done: what a thread displays a moment
    later is lost.
    """
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    if shell is None:
        return lambda: None

    def done(_: Any) -> None:
        call()

    shell.events.register("post_run_cell", done)

    def dispose() -> None:
        with suppress(ValueError):  # ended already
            shell.events.unregister("post_run_cell", done)

    return dispose


def know_cells() -> None:
    """``%load_ext mint_lab``, for a page that offers to write a ``%%loss`` cell; nothing where there is no IPython."""
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    if shell is not None:
        shell.extension_manager.load_extension("mint_lab")
