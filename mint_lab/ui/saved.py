"""The snapshot of a run that was read from its folder: what a page draws of it, without controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

from ..recipes.record import Status
from ..recipes.registry import recipe_of
from ..runs.branches import branches_of
from ..runs.store import load_parent
from .branch_data import branch_data
from .heat import HeatHistory
from .history import History
from .messages import PROTOCOL, Histogram, Snapshot, State
from .state import columns_of, finite, histograms_of, marks_of, option_entries
from .utf8 import as_utf8
from .wire_charts import charts_for, metric_entries

if TYPE_CHECKING:
    from ..runs.store import SavedRun

__all__ = ["saved_snapshot"]

READ_ONLY = "This run was read from its folder. Run.open(folder) continues it."


def saved_snapshot(run: SavedRun) -> Snapshot:
    """Return the curves of ``run``, its marks and its last histograms, with the settings of its last step.

    Steps that it has left are faint curves.
    """
    history = History()
    heats = HeatHistory()
    histograms: dict[str, Histogram] = {}
    for record in run.records:
        history.add(record.step, columns_of(record))
        for histogram in histograms_of(record):
            if heats.add(histogram):
                histograms[histogram["name"]] = histogram
    recipe = run.info.recipe
    branches = branches_of(run.records, run.edits, run.rewinds, run.parent, load_parent(run.parent))
    return Snapshot(
        type="snapshot",
        protocol=PROTOCOL,
        epoch=as_utf8(run.folder.name),
        number=1,
        seen=len(run.records),
        state=_state(run, recipe, list(histograms.values())),
        charts=charts_for(recipe),
        metrics=metric_entries(),
        losses=[],
        series=history.to_data(),
        heats=heats.to_data(),
        branches=branch_data(branches),
        branches_left_out=branches.left_out,
    )


def _state(run: SavedRun, recipe: str, histograms: list[Histogram]) -> State:
    last = run.records[-1] if run.records else None
    description = recipe_of(recipe)
    is_known = run.info.status in get_args(Status)  # the file can contain any text
    state = State(
        key=run.folder.name,
        status=cast(Status, run.info.status) if is_known else "stopped",
        steps_done=last.step if last else 0,
        steps_total=max(run.info.steps, last.step if last else 0),
        steps_per_s=0.0,
        recipe=recipe,
        options=option_entries(recipe, run.info.options),
        headlines=list(description.headlines),
        tokens_about=description.examples,
        keeps_samples=description.keeps_samples,
        base_model=run.info.base_model,
        data="",
        loss=last.loss_name if last else "",
        loss_label=f"{last.loss_name} v{last.loss_version}" if last else "",
        last_loss=last.loss_name if last else "",
        settings=finite(last.settings if last else {}),
        controls=[],
        clip=None,
        marks=marks_of(run.edits),
        marks_total=len(run.edits),
        baseline=finite(run.baseline),
        histograms=histograms,
        warnings=[],
        failure=None,
        activity="",
        activity_error="",
        no_rewind=READ_ONLY,
        no_fork=READ_ONLY,
    )
    return as_utf8(state)
