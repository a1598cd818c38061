"""``compare(["dpo", "simpo"])``: several losses, the same batches, the same seed, and their curves in one chart."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from ..charts.overlay import compared_metrics
from ..errors import ConfigError
from ..recipes.registry import recipe_of
from ..runs.comparison.comparison import Comparison
from ..runs.comparison.gradient_cosines import Cosines
from ..runs.comparison.grid import grid_variants
from ..threads import PackageThread
from .bundle import widget_view
from .display import Outputs
from .messages import Message, Reply
from .page_widget import PageWidget, pause_run, weakly
from .pictures import picture_of_runs
from .publisher import Publisher
from .requests import reply_to, unknown_request
from .run_messages import Compared, ComparedRun, CosineMatrix, OfRun, Result
from .state import finite
from .utf8 import as_utf8
from .workbench import describe_data

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from ..runs.comparison.grid import Grid
    from ..runs.comparison.variants import Losses, LossLike, Variant
    from ..runs.run import Run
    from ..types import Datum

__all__ = ["Compare", "compare", "sweep"]

BUTTONS = ("pause", "resume", "stop")
MAX_CHARACTERS = 4000  # of a message that is sent


def compare(
    losses: Losses | list[Variant],
    *,
    recipe: str = "preference",
    seed: int = 0,
    steps: int | None = None,
    data: Any = None,
    held_out: Any = None,
    folder: str | os.PathLike[str] | None = None,
    **run_options: Any,
) -> Compare:
    """Train with several losses side by side: one base model, one seed, the same batches in the same order.

    >>> both = ml.compare(["dpo", "simpo"], steps=200)          # a page: press Start    # doctest: +SKIP
    >>> ml.compare({"soft": ("dpo", {"beta": 0.05}), "hard": ("dpo", {"beta": 1.0})})  # doctest: +SKIP
    >>> both.start().wait()                                     # or without the page    # doctest: +SKIP
    >>> both.table(), both.gradient_cosines()                                            # doctest: +SKIP

    Args:
        losses: Names of registered losses, functions in the custom call form, or ``(loss, settings)`` tuples; a list of
            these, or a mapping of labels to these.
        recipe: Name of a recipe: "preference", "sft", "rl", "unpaired", or a registered one.
        seed: Of the adapters' initial weights, the order of the data, and the held-out split.
        steps: Optimizer steps of each run; None for the recipe's default.
        data, held_out: As the recipe takes them; loaded once.
        folder: Folder in which each run gets a new folder; None for ``./runs``.
        run_options: As of :class:`~mint_lab.runs.comparison.comparison.Comparison`: ``clients``, and what every
            :class:`~mint_lab.runs.run.Run` takes, such as ``batch_size``, ``base_model`` and ``lora``.

    Raises:
        ConfigError: As :class:`~mint_lab.runs.comparison.comparison.Comparison`.
    """
    comparison = Comparison(
        losses, recipe=recipe, seed=seed, steps=steps, data=data, held_out=held_out, folder=folder, **run_options
    )
    return Compare(comparison, data=describe_data(data, recipe))


def sweep(
    grid: Grid,
    *,
    recipe: str = "preference",
    loss: LossLike | None = None,
    loss_config: dict[str, float] | None = None,
    seed: int = 0,
    steps: int | None = None,
    data: Any = None,
    held_out: Any = None,
    folder: str | os.PathLike[str] | None = None,
    **run_options: Any,
) -> Compare:
    """Train with every combination of some settings side by side, on the page of :func:`compare`.

    >>> runs = ml.sweep({"beta": [0.05, 0.1], "learning_rate": [3e-4, 1e-3]}, loss="dpo")  # doctest: +SKIP
    >>> runs.start().wait()                                                                # doctest: +SKIP
    >>> runs.table()                                                                       # doctest: +SKIP

    Args:
        grid: Lists of values by name: settings of the loss, arguments of :class:`~mint_lab.runs.run.Run` such as
            ``learning_rate``, ``seed`` or ``rank``, options of the recipe, or ``loss``. The runs are named by what
            differs.
        recipe: Name of a recipe: "preference", "sft", "rl", "unpaired", or a registered one.
        loss: Loss of all runs, unless it is in the grid; None for the default of the recipe.
        loss_config: Settings of the loss that all runs share.
        seed: Of every run, unless it is in the grid.
        steps: Optimizer steps of each run; None for the recipe's default.
        data, held_out: As the recipe takes them.
        folder: Folder in which each run gets a new folder; None for ``./runs``.
        run_options: As of :func:`compare`.

    Raises:
        ConfigError: If a name is unknown, with the nearest one, or a value is not valid; before anything trains.
    """
    variants = grid_variants(grid, recipe=recipe, loss=loss, loss_config=loss_config)
    return compare(
        variants, recipe=recipe, seed=seed, steps=steps, data=data, held_out=held_out, folder=folder, **run_options
    )


class Compare(PageWidget):
    """Show a comparison, with its controls. :meth:`close` ends its threads and subscriptions; the runs continue.

    Attributes:
        part: The widget of the bundle; fixed by the class.
        compared: See :class:`~mint_lab.ui.run_messages.Compared`; computed whenever it is sent.
        cosines: See :class:`~mint_lab.ui.run_messages.CosineMatrix`; None before the first measurement.
    """

    part = traitlets.Unicode("compare", read_only=True).tag(sync=True)
    compared = traitlets.Any(None).tag(sync=True, to_json=lambda _, widget: widget._compared())
    cosines = traitlets.Any(None).tag(sync=True)

    _publishers: Sequence[Publisher] = ()  # a class attribute, so that close() works if the constructor raised

    def __init__(self, comparison: Comparison, *, data: str = "") -> None:
        self._outputs = Outputs()
        self._pictured: list[tuple[int, int]] = []  # rewinds and steps of each run in the picture without a kernel
        self._comparison = comparison
        self._results: list[Result | None] = [None] * len(comparison.runs)  # that pages have
        self._measure_lock = threading.Lock()
        self._idle_lock = threading.Lock()
        # Before the widget is announced to the page, because the announcement has the snapshots of all runs.
        runs: list[Any] = list(comparison.runs.values())
        self._publishers = [
            Publisher(run, functools.partial(weakly(self._send_from), number), data=data, on_idle=weakly(self._on_idle))
            for number, run in enumerate(runs)
        ]
        super().__init__()
        self.replace_earlier()

    # -- the comparison itself -----------------------------------------------------------------------------------------

    @property
    def comparison(self) -> Comparison:
        """The comparison that the widget shows."""
        return self._comparison

    @property
    def runs(self) -> dict[str, Run]:
        """The runs by label."""
        return self._comparison.runs

    def start(self) -> Compare:
        """As ``Comparison.start``; also measure cosines before training, if the recipe has a batch by then."""
        self._comparison.start()
        if self.cosines is None and recipe_of(self._comparison.recipe).batch_before_training:
            self._start_measurement(None)
        return self

    def pause(self) -> Compare:
        """Pause every run after its current step."""
        self._comparison.pause()
        return self

    def stop(self) -> Compare:
        """End every run for good after its current step."""
        self._comparison.stop()
        return self

    def wait(self, timeout: float | None = None, *, check: bool = True) -> bool:
        """As ``Comparison.wait``."""
        return self._comparison.wait(timeout, check=check)

    def table(self) -> pd.DataFrame:
        """As ``Comparison.table``."""
        return self._comparison.table()

    def figure(self) -> go.Figure:
        """As ``Comparison.figure``."""
        return self._comparison.figure()

    def gradient_cosines(self, at: str | None = None, data: Sequence[Datum] | None = None) -> pd.DataFrame:
        """As ``Comparison.gradient_cosines``."""
        return self._comparison.gradient_cosines(at, data)

    # -- display -------------------------------------------------------------------------------------------------------

    def pause_unseen(self, why: str) -> None:
        """Pause the runs that are running."""
        for run in self.runs.values():
            pause_run(run, why)

    def _end(self) -> None:
        for publisher in self._publishers:
            publisher.close()
        self._publishers = ()
        super()._end()

    def __repr__(self) -> str:
        return f"Compare({list(self.runs)!r}, recipe={self._comparison.recipe!r})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget, a text, and once there are curves their picture for readers without a kernel."""
        mimebundle: dict[str, Any] = {"text/plain": repr(self), **widget_view(self.model_id)}
        if any(run.records for run in self.runs.values()):
            mimebundle["image/png"] = picture_of_runs(self._comparison, self.cosines)
        return mimebundle, {}

    def _ipython_display_(self, **_: Any) -> None:
        self.show_on_page()
        self._outputs.add(self._repr_mimebundle_()[0])

    def _compared(self) -> Compared | None:
        if not self._publishers:
            return None
        pairs = zip(self.runs.items(), self._publishers, strict=True)
        return Compared(
            recipe=self._comparison.recipe,
            batch_before_training=recipe_of(self._comparison.recipe).batch_before_training,
            runs=[
                ComparedRun(label=label, result=_result(run), snapshot=publisher.snapshot())
                for (label, run), publisher in pairs
            ],
        )

    # -- messages ------------------------------------------------------------------------------------------------------

    def _on_idle(self) -> None:
        """Once every run has paused or ended, store what a saved notebook shows without a kernel.

        The publisher thread of each run calls this; with the lock, two runs that end together update the output once.
        """
        with self._idle_lock:
            status = self._comparison.status
            if status == "running" or not self._publishers:
                return
            self.send_state("compared")
            progress = [(len(run.rewinds), len(run.records)) for run in self.runs.values()]
            if status in ("stopped", "finished") and progress != self._pictured:
                self._outputs.update(self._repr_mimebundle_()[0])
                self._pictured = progress

    def _send_from(self, number: int, message: Message, buffers: Sequence[bytes]) -> None:
        result: Result | None = _result(list(self.runs.values())[number])
        if result == self._results[number]:
            result = None
        else:
            self._results[number] = result
        self._send_content(OfRun(type="of_run", run=number, result=result, message=message), buffers)

    def _send_content(self, content: OfRun | Reply, buffers: Sequence[bytes] = ()) -> None:
        if self.comm is not None:
            self.send(content, list(buffers))

    def _on_message(self, content: dict[str, Any]) -> None:
        if not self._publishers:
            return
        if content.get("type") == "sync":
            run, since = content.get("run"), content.get("since")
            if isinstance(run, int) and 0 <= run < len(self._publishers):
                self._results[run] = None  # this page may have an old result
                self._publishers[run].sync(since if isinstance(since, int) else -1, str(content.get("epoch")))
            return
        self._send_content(reply_to(content, self._perform))

    def _perform(self, request: Mapping[str, Any]) -> None:
        kind, at = request.get("type"), request.get("at")
        if kind == "start":
            self.start()
        elif kind == "stop" and request.get("run") is not None:
            self._run(request["run"]).stop()
        elif kind in BUTTONS:
            getattr(self._comparison, str(kind))()
        elif kind == "cosines":
            self._start_measurement(None if at is None else self._comparison[at].name)
        else:
            raise unknown_request(kind)

    def _run(self, number: Any) -> Run:
        """Return a run by its number on the page."""
        runs = list(self.runs.values())
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(runs):
            raise ConfigError(f"run {number!r} is not one of the {len(runs)} runs of this page")
        return runs[number]

    def _start_measurement(self, at: str | None) -> None:
        """Measure the cosines on a separate thread, one measurement at a time.

        Args:
            at: Label of the run whose weights to use; None: before training.

        Raises:
            ConfigError: If a measurement is in progress.
        """
        if not self._measure_lock.acquire(blocking=False):
            raise ConfigError("cosines are being measured; wait for them")
        previous: CosineMatrix = self.cosines or _cosine_matrix(Cosines([], [], [], None, 0, 0))
        self.cosines = _with_status(previous, busy=True)
        PackageThread(functools.partial(self._measure, at, previous), "mint_lab cosines").start()

    def _measure(self, at: str | None, previous: CosineMatrix) -> None:
        try:
            try:
                cosines = _cosine_matrix(self._comparison.measure_cosines(at))
            except Exception as error:  # also an error of a loss: the page shows it, and the runs continue
                problem = as_utf8(str(error)[:MAX_CHARACTERS]) or type(error).__name__
                cosines = _with_status(previous, problem=problem)
            self.cosines = cosines
        finally:  # only after the trait is set; otherwise it could replace the "busy" of the next measurement
            self._measure_lock.release()


def _result(run: Run) -> Result:
    last = next((record for record in reversed(run.records) if record.held_out), None)
    before, final = (finite(compared_metrics(m)) for m in (run.baseline, last.held_out if last else {}))
    return Result(step=last.step if last else 0, before=before, final=final)


def _with_status(matrix: CosineMatrix, *, busy: bool = False, problem: str = "") -> CosineMatrix:
    changed = matrix.copy()
    changed["busy"], changed["problem"] = busy, problem
    return changed


def _cosine_matrix(cosines: Cosines) -> CosineMatrix:
    return CosineMatrix(
        labels=cosines.labels,
        values=[[None if math.isnan(value) else value for value in row] for row in cosines.values],
        norms=cosines.norms,
        at=cosines.at,
        step=cosines.step,
        datums=cosines.datums,
        busy=False,
        problem="",
    )
