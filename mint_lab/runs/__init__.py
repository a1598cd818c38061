"""Training runs that can be started, paused, edited, resumed and compared.

Imports nothing until a name is used, so that importing the package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .comparison.comparison import Comparison
    from .early_stopping import EarlyStopping
    from .failure import RunFailure
    from .run import Run
    from .store import SavedRun, load_run

__all__ = ["Comparison", "EarlyStopping", "Run", "RunFailure", "SavedRun", "load_run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Comparison": ".comparison.comparison",
        "EarlyStopping": ".early_stopping",
        "Run": ".run",
        "RunFailure": ".failure",
        "SavedRun": ".store",
        "load_run": ".store",
    },
)
