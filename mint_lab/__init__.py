"""mint_lab: a Jupyter-first workbench for post-training losses.

>>> import mint_lab as ml
>>> lab = ml.Workbench()          # a page in the notebook: pick a loss, press Start, watch
>>> client = ml.ServiceClient().create_lora_training_client("mint-tiny")   # the trainer, MinT's API

Importing this module loads neither torch nor transformers; each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, errors, losses, metrics, types
    from .cells import load_ipython_extension, loss
    from .client.service import ServiceClient
    from .losses import LOSSES
    from .losses.preflight import preflight
    from .runs import Run, load_run
    from .ui import LiveCharts, Workbench

__all__ = [
    "LOSSES",
    "LiveCharts",
    "Run",
    "ServiceClient",
    "Workbench",
    "data",
    "errors",
    "load_ipython_extension",
    "load_run",
    "loss",
    "losses",
    "metrics",
    "preflight",
    "types",
]

# Where each name lives: a module alone, or a module and the name in it.
_HOME: dict[str, tuple[str, str | None]] = {
    "LOSSES": ("losses", "LOSSES"),
    "LiveCharts": ("ui", "LiveCharts"),
    "Run": ("runs", "Run"),
    "ServiceClient": ("client.service", "ServiceClient"),
    "Workbench": ("ui", "Workbench"),
    "data": ("data", None),
    "errors": ("errors", None),
    "load_ipython_extension": ("cells", "load_ipython_extension"),
    "load_run": ("runs", "load_run"),
    "loss": ("cells", "loss"),
    "losses": ("losses", None),
    "metrics": ("metrics", None),
    "preflight": ("losses.preflight", "preflight"),
    "types": ("types", None),
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("mint_lab")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = importlib.import_module(f".{module}", __name__)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
