"""What a test registers is forgotten after it, in every registry of the package.

A process runs many test files, in an order that depends on the load of the machine. A recipe that an example of the
documentation registers would otherwise be offered to the losses of a later file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def registrations_undone() -> Iterator[None]:
    """Restore losses, rewards, recipes, metrics and charts when the block ends."""
    from mint_lab.charts import chart_spec
    from mint_lab.data.rewards import REWARDS
    from mint_lab.losses import LOSSES
    from mint_lab.metrics import registry as metrics
    from mint_lab.recipes.registry import RECIPES

    tables = [table for registry in (LOSSES, REWARDS) for table in (registry._entries, registry._first)]
    tables += [RECIPES._others, metrics._METRICS, chart_spec._CHARTS]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
