"""What the output of a ``%%loss`` or ``%%reward`` cell says about its cell: metadata, saved with the notebook.

The JupyterLab extension shows it at the cell (``widgets/lab/src/marks.ts``).
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

__all__ = ["Kind", "Registered", "leave_refusal", "mark", "not_registered"]

Kind = Literal["loss", "reward"]


class Registered(Protocol):
    """A loss or a reward that is registered."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def label(self) -> str: ...


def mark(kind: Kind, name: str, old: Registered | None, *, refused: bool = False) -> dict[str, Any]:
    """Metadata of an output.

    Args:
        kind: what the cell writes.
        name: its name.
        old: what is registered under that name once the cell has run; None for nothing.
        refused: the cell did not get as far as that.
    """
    state = "refused" if refused else "registered"
    return {"mint_lab": {"kind": kind, "name": name, "version": old.version if old else None, "state": state}}


def not_registered(name: str, old: Registered | None) -> str:
    """That ``name`` is not registered, and what holds instead."""
    return f"{name} is not registered" + (f"; {old.label} stays in use" if old else "")


def leave_refusal(publisher: Any, kind: Kind, line: str, known: Any) -> None:
    """Beside an error, which carries no metadata, put an output that does. Without a name in ``line`` there is none.

    Args:
        publisher: the shell's.
        kind: what the cell writes.
        line: what follows the magic's name.
        known: the registry.
    """
    name = next(iter(line.split()), "")
    if name.isidentifier():
        old = known.get(name)
        data = {"text/plain": f"{not_registered(name, old)}."}
        publisher.publish(data=data, metadata=mark(kind, name, old, refused=True))
