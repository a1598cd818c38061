"""Losses written by a person: the ``%%loss`` cell magic, and ``@loss`` for a module (which needs no notebook).

Importing this imports neither torch nor IPython; that waits until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..losses.custom import Range, loss

__all__ = ["Range", "load_ipython_extension", "loss", "unload_ipython_extension"]


def load_ipython_extension(ipython: Any) -> None:
    """What ``%load_ext mint_lab`` calls: makes ``%%loss`` known to this shell. Calling it again changes nothing."""
    from .magic import loss_cell

    ipython.register_magic_function(loss_cell(ipython), magic_kind="cell", magic_name="loss")


def unload_ipython_extension(ipython: Any) -> None:
    """Forget ``%%loss``; losses that were registered stay."""
    ipython.magics_manager.magics["cell"].pop("loss", None)


def __getattr__(name: str) -> Any:
    if name not in ("Range", "loss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..losses import custom

    value = getattr(custom, name)
    globals()[name] = value
    return value
