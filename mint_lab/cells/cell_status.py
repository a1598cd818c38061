"""The status of a ``%%loss`` or ``%%reward`` cell: metadata of its output, saved with the notebook.

The JupyterLab extension shows it at the cell (``widgets/lab/src/marks.ts``).
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

__all__ = ["Kind", "Registered", "cell_status", "not_registered", "publish_refusal"]

Kind = Literal["loss", "reward"]


class Registered(Protocol):
    """A registered loss or reward."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def label(self) -> str: ...


def cell_status(kind: Kind, name: str, entry: Registered | None, *, refused: bool = False) -> dict[str, Any]:
    """Return the metadata of an output.

    Args:
        kind: What the cell defines.
        name: Its name.
        entry: What is registered under that name after the cell has run; None for nothing.
        refused: True if the cell's own function was not registered.
    """
    state = "refused" if refused else "registered"
    return {"mint_lab": {"kind": kind, "name": name, "version": entry.version if entry else None, "state": state}}


def not_registered(name: str, entry: Registered | None) -> str:
    """Return a sentence that ``name`` was not registered, and which version stays in use."""
    return f"{name} is not registered" + (f"; {entry.label} stays in use" if entry else "")


def publish_refusal(publisher: Any, kind: Kind, line: str, known: Any) -> None:
    """Publish an output with the status of a refused cell: the error itself carries no metadata.

    Nothing is published if ``line`` has no name.

    Args:
        publisher: The shell's display publisher.
        kind: What the cell defines.
        line: What follows the magic's name.
        known: The registry.
    """
    name = next(iter(line.split()), "")
    if name.isidentifier():
        entry = known.get(name)
        data = {"text/plain": f"{not_registered(name, entry)}."}
        publisher.publish(data=data, metadata=cell_status(kind, name, entry, refused=True))
