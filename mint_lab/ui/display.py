"""Outputs that can be updated after their cell has run. The only use of IPython in ``ui``."""

from __future__ import annotations

import contextvars
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from IPython.core.getipython import get_ipython
from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

__all__ = ["Execution", "Outputs", "after_each_cell", "current_execution", "forget_output", "load_cell_magics"]


_OUTPUT_NAME = re.compile(r"_{1,3}|_\d+")  # names that IPython gives to the results of cells


class Execution(NamedTuple):
    """One execution of one cell.

    Attributes:
        cell: Tells the cells of a notebook apart.
        request: The message that asked for this execution.
    """

    cell: str
    request: str


def current_execution() -> Execution | None:
    """Return the execution of a cell that is in progress; None if there is none, as in a script.

    JupyterLab and VS Code send the identifier of the cell. For other programs, the source of the cell is the cell.
    """
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    parent: dict[str, Any] = kernel.get_parent("shell") or {}
    header, metadata = parent.get("header") or {}, parent.get("metadata") or {}
    if header.get("msg_type") != "execute_request":  # a click on a button
        return None
    identifier = metadata.get("cellId")
    source = str((parent.get("content") or {}).get("code", "")).strip()
    return Execution(f"cell {identifier}" if identifier else f"source {source}", str(header.get("msg_id")))


def forget_output(value: object) -> None:
    """Remove a value from the results of cells that IPython keeps; variables of a person stay."""
    shell: Any = get_ipython()  # pyright: ignore[reportUnknownVariableType]
    if shell is None:
        return
    names = shell.user_ns
    for name in [name for name, kept in list(names.items()) if kept is value and _OUTPUT_NAME.fullmatch(name)]:
        if name.strip("_"):
            del names[name]
        else:
            names[name] = ""
            setattr(shell.displayhook, name, "")
    results = names.get("_oh", {})
    for number in [number for number, kept in list(results.items()) if kept is value]:
        del results[number]


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
