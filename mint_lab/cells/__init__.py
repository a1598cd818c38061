"""User-written losses and rewards in notebooks: the ``%%loss`` and ``%%reward`` cell magics.

In a module, which needs no notebook, the decorators ``mint_lab.loss`` and ``mint_lab.reward`` do the same. Importing
this package imports neither torch nor IPython; a name is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..lazy import lazy_names

if TYPE_CHECKING:
    from ..losses.decorator import Range, loss

__all__ = ["Range", "load_ipython_extension", "loss", "unload_ipython_extension"]

__getattr__ = lazy_names(__name__, {"Range": "..losses.decorator", "loss": "..losses.decorator"})[0]


def load_ipython_extension(ipython: Any) -> None:
    """Register ``%%loss`` and ``%%reward`` in this shell; ``%load_ext mint_lab`` calls this."""
    from .loss_cell import loss_cell
    from .reward_cell import reward_cell

    ipython.register_magic_function(loss_cell(ipython), magic_kind="line_cell", magic_name="loss")
    ipython.register_magic_function(reward_cell(ipython), magic_kind="cell", magic_name="reward")
    if _with_body not in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.append(_with_body)


def unload_ipython_extension(ipython: Any) -> None:
    """Remove ``%%loss`` and ``%%reward`` from this shell; registered losses and rewards stay."""
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind].pop("loss", None)
    ipython.magics_manager.magics["cell"].pop("reward", None)
    if _with_body in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.remove(_with_body)


def _with_body(lines: list[str]) -> list[str]:
    """Give a single ``%%loss`` line (``--from``) an empty body; IPython refuses a cell magic without a body."""
    alone = bool(lines) and lines[0].startswith("%%loss ") and not "".join(lines[1:]).strip()
    return [lines[0].rstrip("\n") + "\n", "\n"] if alone else lines
