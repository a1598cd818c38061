"""mint_lab: a Jupyter-first workbench for post-training losses.

>>> import mint_lab as ml
>>> lab = ml.Workbench()          # a page in the notebook: pick a loss, press Start, watch
>>> client = ml.ServiceClient().create_lora_training_client("mint-tiny")   # the trainer, with the API of MinT

Importing this module loads neither torch nor transformers, because each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy import lazy_names

if TYPE_CHECKING:
    from . import data, errors, losses, metrics, recipes, types, ui
    from .cells import load_ipython_extension, loss
    from .client.service import ServiceClient
    from .data.rewards import reward
    from .lora_options import LoraOptions
    from .losses import LOSSES
    from .preflight import preflight
    from .recipes import recipe
    from .runs import EarlyStopping, Run, load_run
    from .ui import LiveCharts, RunTable, TokenView, Workbench, show_tokens
    from .ui.compare import compare, sweep
    from .ui.data_audit import audit

__all__ = [
    "LOSSES",
    "EarlyStopping",
    "LiveCharts",
    "LoraOptions",
    "Run",
    "RunTable",
    "ServiceClient",
    "TokenView",
    "Workbench",
    "audit",
    "compare",
    "data",
    "errors",
    "load_ipython_extension",
    "load_run",
    "loss",
    "losses",
    "metrics",
    "preflight",
    "recipe",
    "recipes",
    "reward",
    "show_tokens",
    "sweep",
    "types",
    "ui",
]

_lazy, __dir__ = lazy_names(
    __name__,
    {
        "EarlyStopping": ".runs",
        "LOSSES": ".losses",
        "LiveCharts": ".ui",
        "LoraOptions": ".lora_options",
        "Run": ".runs",
        "RunTable": ".ui",
        "ServiceClient": ".client.service",
        "TokenView": ".ui",
        "Workbench": ".ui",
        "audit": ".ui.data_audit",
        "compare": ".ui.compare",
        "data": None,
        "errors": None,
        "load_ipython_extension": ".cells",
        "load_run": ".runs",
        "loss": ".cells",
        "losses": None,
        "metrics": None,
        "preflight": ".preflight",
        "recipe": ".recipes",
        "recipes": None,
        "reward": ".data.rewards",
        "show_tokens": ".ui",
        "sweep": ".ui.compare",
        "types": None,
        "ui": None,
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mint_lab")
    return _lazy(name)
