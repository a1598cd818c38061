"""``compare(["dpo", "simpo"])``: same batches, same seed, several losses, and their curves on top of each other."""

from __future__ import annotations

import contextvars
import functools
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from ..charts.overlay import compared_metrics
from ..errors import ConfigError
from ..recipes.registry import recipe_of
from ..runs.comparison.comparison import Comparison
from ..runs.comparison.gradient_cosines import Cosines
from .display import Outputs
from .pictures import picture_of_runs
from .protocol import Message, Reply
from .protocol_runs import Compared, ComparedRun, CosineMatrix, OfRun, Result
from .publisher import Publisher
from .requests import reply_to
from .widget import WIDGET_MIME, bundle
from .wire import travels
from .workbench import describe_data

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from ..runs.comparison.variants import Losses
    from ..runs.run import Run
    from ..types import Datum

__all__ = ["Compare", "compare"]

_BUTTONS = ("start", "pause", "resume", "stop")


def compare(
    losses: Losses,
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
    >>> both.start().wait()                                     # or without it          # doctest: +SKIP
    >>> both.table(), both.gradient_cosines()                                            # doctest: +SKIP

    Args:
        losses: names of registered losses, functions in the custom contract, or ``(loss, settings)``; as a list, or as
            a mapping of labels to them.
        recipe: "preference", "sft" or "rl".
        seed: of the adapters' start, the order of the data, and the held-out split.
        steps: optimizer steps of each run; None for the recipe's default.
        data, held_out: as the recipe takes them; loaded once.
        folder: where the runs are recorded, each in a new folder of its own below; None for ``./runs``.
        run_options: as of :class:`~mint_lab.runs.comparison.comparison.Comparison`: ``clients``, and what every
            :class:`~mint_lab.runs.run.Run` takes, such as ``batch_size`` and ``base_model``.

    Raises:
        ConfigError: as :class:`~mint_lab.runs.comparison.comparison.Comparison`.
    """
    comparison = Comparison(
        losses, recipe=recipe, seed=seed, steps=steps, data=data, held_out=held_out, folder=folder, **run_options
    )
    return Compare(comparison, data=describe_data(data, recipe))


class Compare(anywidget.AnyWidget):
    """Shows a comparison, with its controls. :meth:`close` ends its threads and subscriptions; the runs go on.

    Attributes:
        part: which widget of the bundle this is; fixed by the class.
        compared: see :class:`~mint_lab.ui.protocol_runs.Compared`; made anew whenever it is sent.
        cosines: see :class:`~mint_lab.ui.protocol_runs.CosineMatrix`; None before anything was measured.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    part = traitlets.Unicode("compare", read_only=True).tag(sync=True)
    compared = traitlets.Any(None).tag(sync=True, to_json=lambda _, widget: widget._compared())
    cosines = traitlets.Any(None).tag(sync=True)

    _publishers: Sequence[Publisher] = ()  # also when the constructor raised half-way

    def __init__(self, comparison: Comparison, *, data: str = "") -> None:
        self._outputs = Outputs()
        self._pictured = 0  # steps that the picture for static readers shows, of all runs
        self._comparison = comparison
        self._results: list[Result | None] = [None] * len(comparison.runs)
        self._measuring = threading.Lock()
        self._settling = threading.Lock()
        # Before the page hears of the widget, for their snapshots are in the first thing that it hears.
        runs: list[Any] = list(comparison.runs.values())
        self._publishers = [
            Publisher(run, functools.partial(self._send_of, number), data=data, settled=self._on_settled)
            for number, run in enumerate(runs)
        ]
        super().__init__()
        self.on_msg(self._on_message)

    # -- the comparison itself -----------------------------------------------------------------------------------------

    @property
    def comparison(self) -> Comparison:
        """What is on show."""
        return self._comparison

    @property
    def runs(self) -> dict[str, Run]:
        """The runs by label."""
        return self._comparison.runs

    def start(self) -> Compare:
        """As ``Comparison.start``; also measures cosines at the start."""
        self._comparison.start()
        if self.cosines is None and recipe_of(self._comparison.recipe).batch_before_training:
            self._measure(None)
        return self

    def pause(self) -> Compare:
        """Pause every run after its current step."""
        self._comparison.pause()
        return self

    def stop(self) -> Compare:
        """End every run after its current step, for good."""
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

    def close(self) -> None:
        """Take the widget out of the page and end its threads."""
        for publisher in self._publishers:
            publisher.close()
        self._publishers = ()
        super().close()

    def __repr__(self) -> str:
        return f"Compare({list(self.runs)!r}, recipe={self._comparison.recipe!r})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, a fixed text, and once there are curves a picture of them for readers without a kernel."""
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            WIDGET_MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
        }
        if any(run.records for run in self.runs.values()):
            bundle["image/png"] = picture_of_runs(self._comparison, self.cosines)
        return bundle, {}

    def _ipython_display_(self, **_: Any) -> None:
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

    def _on_settled(self) -> None:
        """A run rests: once all do, keep what a saved notebook needs to show them without a kernel.

        Told by each run's own thread: two that end together must not display the output anew twice.
        """
        with self._settling:
            status = self._comparison.status
            if status == "running" or not self._publishers:
                return
            self.send_state("compared")
            steps = sum(len(run.records) for run in self.runs.values())
            if status in ("stopped", "finished") and steps != self._pictured:
                self._outputs.update(self._repr_mimebundle_()[0])
                self._pictured = steps

    def _send_of(self, number: int, message: Message, buffers: Sequence[bytes]) -> None:
        result: Result | None = _result(list(self.runs.values())[number])
        if result == self._results[number]:
            result = None
        else:
            self._results[number] = result
        self._send_content(OfRun(type="of_run", run=number, result=result, message=message), buffers)

    def _send_content(self, content: OfRun | Reply, buffers: Sequence[bytes] = ()) -> None:
        if self.comm is not None:
            self.send(content, list(buffers))

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict) or not self._publishers:
            return
        if content.get("type") == "sync":
            run, since = content.get("run"), content.get("since")
            if isinstance(run, int) and 0 <= run < len(self._publishers):
                self._results[run] = None  # the page that asks may hold an old one
                self._publishers[run].sync(since if isinstance(since, int) else -1, str(content.get("epoch")))
            return
        self._send_content(reply_to(content, self._perform))

    def _perform(self, request: Mapping[str, Any]) -> None:
        kind, at = request.get("type"), request.get("at")
        if kind == "start":
            self.start()
        elif kind in _BUTTONS:
            getattr(self._comparison, str(kind))()
        elif kind == "cosines":
            self._measure(None if at is None else self._comparison[at].name)
        else:
            raise ConfigError(f"unknown request {str(kind)[:60]!r}")

    def _measure(self, at: str | None) -> None:
        """Have the cosines measured, on a thread of its own; one at a time."""
        if not self._measuring.acquire(blocking=False):
            raise ConfigError("cosines are being measured; wait for them")
        known: CosineMatrix = self.cosines or _matrix(Cosines([], [], [], None, 0, 0))
        self.cosines = _with(known, busy=True)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._look, at, known), daemon=True, name="mint_lab cosines").start()

    def _look(self, at: str | None, known: CosineMatrix) -> None:
        try:
            try:
                found = _matrix(self._comparison.measure_cosines(at))
            except Exception as error:  # the loss's own, too: the page says it, and the runs go on
                found = _with(known, problem=travels(str(error)[:4000]) or type(error).__name__)
            self.cosines = found
        finally:  # not before it is told, or it might replace what the next measurement says of itself
            self._measuring.release()

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()


def _result(run: Run) -> Result:
    last = next((record for record in reversed(run.records) if record.held_out), None)
    before, final = _finite(run.baseline), _finite(last.held_out if last else {})
    return Result(step=last.step if last else 0, before=before, final=final)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(v) for name, v in compared_metrics(metrics).items() if math.isfinite(v)}


def _with(known: CosineMatrix, *, busy: bool = False, problem: str = "") -> CosineMatrix:
    changed = known.copy()
    changed["busy"], changed["problem"] = busy, problem
    return changed


def _matrix(found: Cosines) -> CosineMatrix:
    return CosineMatrix(
        labels=found.labels,
        values=[[None if math.isnan(value) else value for value in row] for row in found.values],
        norms=found.norms,
        at=found.at,
        step=found.step,
        datums=found.datums,
        busy=False,
        problem="",
    )
