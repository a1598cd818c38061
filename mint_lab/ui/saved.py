"""A run read from its folder, as a page draws it: the snapshot that a live run would give, with nothing to press."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from ..recipes.registry import recipe_of
from .heat import HeatHistory
from .history import History
from .protocol import PROTOCOL, Histogram, Snapshot, State
from .state import columns_of, histograms_of, marks_of, option_entries
from .wire import travels
from .wire_charts import charts_for, metric_entries

if TYPE_CHECKING:
    from ..runs.store import SavedRun

__all__ = ["saved_snapshot"]

_STATUSES = ("ready", "running", "paused", "stopped", "finished")


def saved_snapshot(run: SavedRun) -> Snapshot:
    """The curves of ``run``, its marks and its last histograms; its losses' settings as they last were."""
    history = History()
    heats = HeatHistory()
    histograms: dict[str, Histogram] = {}
    for record in run.records:
        history.add(record.step, columns_of(record))
        for histogram in histograms_of(record):
            if heats.add(histogram):
                histograms[histogram["name"]] = histogram
    recipe = run.info.recipe
    return Snapshot(
        type="snapshot",
        protocol=PROTOCOL,
        epoch=travels(run.folder.name),
        number=1,
        seen=len(run.records),
        state=_state(run, recipe, list(histograms.values())),
        charts=charts_for(recipe),
        metrics=metric_entries(),
        losses=[],
        series=history.to_data(),
        heats=heats.to_data(),
    )


def _state(run: SavedRun, recipe: str, histograms: list[Histogram]) -> State:
    last = run.records[-1] if run.records else None
    status = run.info.status
    facts = recipe_of(recipe)
    state = State(
        status=cast(Any, status if status in _STATUSES else "stopped"),
        steps_done=last.step if last else 0,
        steps_total=max(run.info.steps, last.step if last else 0),
        steps_per_s=0.0,
        recipe=recipe,
        options=option_entries(recipe, run.info.options),
        headlines=list(facts.headlines),
        tokens_about=facts.examples,
        keeps_samples=facts.keeps_samples,
        base_model=run.info.base_model,
        data="",
        loss=last.loss_name if last else "",
        loss_label=f"{last.loss_name} v{last.loss_version}" if last else "",
        last_loss=last.loss_name if last else "",
        settings={k: v for k, v in (last.settings if last else {}).items() if math.isfinite(v)},
        controls=[],
        clip=None,
        marks=marks_of(run.edits),
        marks_total=len(run.edits),
        baseline={k: v for k, v in run.baseline.items() if math.isfinite(v)},
        histograms=histograms,
        warnings=[],
        failure=None,
    )
    return travels(state)
