"""Several runs in one table: what they are, and their held-out metrics before training and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...charts.chart_spec import CHARTS
from ...charts.overlay import compared_metrics, ordered_metrics

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["metric_table"]


def metric_table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a frame with the rows' entries, and their ``before`` and ``final`` metrics as columns ``before/NAME`` ...

    Metrics that every run has come first, then those of some runs; both in the order of the charts.
    """
    import pandas as pd

    flat: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    for row in rows.values():
        plain = {key: value for key, value in row.items() if key not in ("before", "final")}
        metrics = {when: compared_metrics(row[when]) for when in ("before", "final")}
        for name in {**metrics["before"], **metrics["final"]}:
            names[name] = names.get(name, 0) + 1
        flat.append(plain | {f"{when}/{name}": value for when in metrics for name, value in metrics[when].items()})
    order = sorted(ordered_metrics(names, CHARTS.values()), key=lambda name: names[name] < len(rows))
    plain_columns = [key for key in next(iter(rows.values()), {}) if key not in ("before", "final")]
    columns = [*plain_columns, *(f"{when}/{name}" for name in order for when in ("before", "final"))]
    return pd.DataFrame(flat, index=pd.Index(list(rows), name="run")).reindex(columns=columns)
