"""Outputs that can be updated after their cell has run. The only use of IPython in ``ui``."""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

__all__ = ["Outputs", "after_each_cell", "load_cell_magics"]


class Outputs:
    """Every output that displays one object, each with a display id."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def add(self, bundle: dict[str, Any]) -> None:
        """Add an output to the cell that is running."""
        display_id = uuid.uuid4().hex
        self._ids.append(display_id)
        display(bundle, raw=True, display_id=display_id)

    def update(self, bundle: dict[str, Any]) -> None:
        """Replace the content of all outputs. May be called from any thread.

        In an empty context the kernel attributes the message to the cell that is running, not to the cell that created
        the output: a program that executes a notebook listens only to the running cell.
        """
        for display_id in self._ids:
            contextvars.Context().run(display, bundle, raw=True, display_id=display_id, update=True)


def after_each_cell(callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback()`` after each cell, while what it displays still belongs to that cell.

    A program that executes a notebook ends the kernel as soon as the last cell is done; anything that a thread displays
    later is lost.

    Returns:
        A function that ends the calls.
    """
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    if shell is None:
        return lambda: None

    def on_cell_done(_: Any) -> None:
        callback()

    shell.events.register("post_run_cell", on_cell_done)

    def dispose() -> None:
        with suppress(ValueError):  # the second call
            shell.events.unregister("post_run_cell", on_cell_done)

    return dispose


def load_cell_magics() -> None:
    """Run ``%load_ext mint_lab``, because a page can write a ``%%loss`` cell; without IPython, do nothing."""
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    if shell is not None:
        shell.extension_manager.load_extension("mint_lab")
