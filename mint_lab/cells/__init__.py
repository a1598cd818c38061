"""Losses written by a person: the ``%%loss`` cell magic, and ``@loss`` for a module (which needs no notebook).
Rewards likewise: ``%%reward``, and ``mint_lab.reward``.

Importing this imports neither torch nor IPython; that waits until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..lazy import lazy_names

if TYPE_CHECKING:
    from ..losses.decorator import Range, loss

__all__ = ["Range", "load_ipython_extension", "loss", "unload_ipython_extension"]

__getattr__ = lazy_names(__name__, {"Range": "..losses.decorator", "loss": "..losses.decorator"})[0]


def load_ipython_extension(ipython: Any) -> None:
    """What ``%load_ext mint_lab`` calls: makes ``%%loss`` and ``%%reward`` known to this shell."""
    from .loss_cell import loss_cell
    from .reward_cell import reward_cell

    ipython.register_magic_function(loss_cell(ipython), magic_kind="line_cell", magic_name="loss")
    ipython.register_magic_function(reward_cell(ipython), magic_kind="cell", magic_name="reward")
    if _with_body not in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.append(_with_body)


def unload_ipython_extension(ipython: Any) -> None:
    """Forget ``%%loss`` and ``%%reward``; what was registered stays."""
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind].pop("loss", None)
    ipython.magics_manager.magics["cell"].pop("reward", None)
    if _with_body in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.remove(_with_body)


def _with_body(lines: list[str]) -> list[str]:
    """A ``%%loss`` line alone is a cell as well (``--from``); IPython would refuse it for its empty body."""
    alone = bool(lines) and lines[0].startswith("%%loss ") and not "".join(lines[1:]).strip()
    return [lines[0].rstrip("\n") + "\n", "\n"] if alone else lines
