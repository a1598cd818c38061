"""``Workbench()``: pick a loss, press Start, watch the model learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import traitlets

from ..errors import ConfigError, RunError
from ..recipes.registry import recipe_of
from ..runs.run import Run
from .page_widget import pause_run
from .requests import requested_step
from .run_messages import Earlier, RunTab, RunTabs
from .state import MAX_LABEL_CHARACTERS
from .utf8 import as_utf8
from .widget import RunWidget

__all__ = ["Workbench", "describe_data"]


class _Page(NamedTuple):
    """What a workbench shows: a run, it and its forks, and the names of its model and its data."""

    run: Run
    runs: list[Run]
    base_model: str
    data: str


class Workbench(RunWidget):
    """A training run with its controls and charts on one page.

    Args:
        recipe: Name of a recipe: ``"preference"``, ``"sft"``, ``"rl"``, ``"unpaired"``, or a registered one; None for
            "preference".
        loss: Name of a registered loss, or a function in the custom call form; None for the default of the recipe
            (``pairwise_preference`` of "preference", ``cross_entropy`` of "sft", ``ppo`` of "rl", ``kto`` of
            "unpaired").
        base_model: ``"mint-tiny"``, a local directory, or a hub name; or the folder of a LoRA adapter to continue.
        data: As the recipe takes it; None for the recipe's default data.
        seed: Of the adapter's initial weights and dropout, the order of the data, and the held-out split.
        run: A run to show instead, for example one that :meth:`Run.open <mint_lab.runs.run.Run.open>` returns; all
            other arguments are then its own, and must not be given.
        run_options: Further arguments of :class:`~mint_lab.runs.run.Run`, for example ``steps``, ``batch_size`` or
            ``lora``, and options of the recipe, for example ``reward`` and ``group_size`` of "rl".

    A click on a step of a chart offers to return to that step, and to fork the run there; as ``run.rewind(step)`` and
    ``run.fork(step)`` do.

    The run is paused if its cell is run again, its output is removed, or the workbench is closed; ``run.start()``
    continues it. The page that the cell then makes offers to continue it, as :meth:`continue_earlier` does.

    Attributes:
        run: The :class:`~mint_lab.runs.run.Run` that the page shows. "New run" and forks replace it.
        forks: The forks of the run, and their forks, that the page can show; empty again after "New run".
        earlier: See :class:`~mint_lab.ui.run_messages.Earlier`: the run of an earlier execution of the cell; or None.

    Raises:
        ConfigError: If a name or a setting is unknown, the data do not fit the loss, or ``run`` is none.
    """

    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)
    runs = traitlets.Any(None).tag(sync=True)
    earlier = traitlets.Any(None).tag(sync=True)
    _has_loss_picker = True
    _earlier: _Page | None = None

    def __init__(
        self,
        recipe: str | None = None,
        loss: Any = None,
        *,
        base_model: str = "mint-tiny",
        data: Any = None,
        seed: int = 0,
        run: Run | None = None,
        **run_options: Any,
    ) -> None:
        given = {"recipe": recipe, "loss": loss, "data": data, **run_options}
        if base_model != "mint-tiny" or seed:
            given |= {"base_model": base_model, "seed": seed}
        if run is None:
            options: dict[str, Any] = run_options | {"base_model": base_model, "data": data, "seed": seed}
            run = Run(recipe or "preference", loss, **options)
        else:
            _check_shown(run, [name for name, value in given.items() if value is not None])
            base_model, data = run.base_model, run.data
        self._run_count = 1
        self._folder = run.folder
        self._runs: list[Run] = []  # the run and its forks
        self._about = f"recipe={run.recipe!r}, loss={run.loss.name!r}, base_model={base_model!r}"
        super().__init__(run, base_model=base_model, data=describe_data(data, run.recipe))
        pages = [page for page in self.replace_earlier() if isinstance(page, Workbench)]
        self._offer(pages[0]._page() if pages else None)

    def __repr__(self) -> str:
        return f"Workbench({self._about})"

    @property
    def forks(self) -> list[Run]:
        """The forks that the page can show, in the order in which they were made."""
        return self._runs[1:]

    def show(self, run: Any) -> None:
        """Show ``run`` in all views. The page keeps a list of it and the runs that it was forked from, or were forked
        from it.

        Raises:
            ConfigError: If ``run`` is not a run that can be trained; the widget keeps showing the present one.
        """
        self._check_run(run)
        with self._show_lock:
            super().show(run)
            if not any(known is run for known in self._runs):
                is_fork = any(_is_fork_of(run, known) for known in self._runs)
                self._runs = [*self._runs, run] if is_fork else [run]
            self.runs = RunTabs(
                runs=[_tab(known) for known in self._runs],
                shown=next(i for i, known in enumerate(self._runs) if known is run),
            )

    def new_run(self) -> Run:
        """Start again from the base model with the current loss and settings; the old run stays in its folder.

        Raises:
            RunError: If the present run has not ended, or trains a client that was given, whose weights are changed.
        """
        old = self.run
        if old.status not in ("stopped", "finished"):
            raise RunError(f"the run is {old.status}; stop it before starting a new one")
        self._run_count += 1
        run = old.again(None if self._folder is None else f"{self._folder}-{self._run_count}")
        self.show(run)
        return run

    def continue_earlier(self) -> Run:
        """Show the run that an earlier execution of the cell left, and continue it; the present run is paused.

        Raises:
            RunError: If there is none.
        """
        if self._earlier is None:
            raise RunError("no earlier run of this cell can be continued")
        present, earlier = self._page(), self._earlier
        self.pause_unseen("an earlier run of its cell was continued")
        run, self._runs, self._base_model, self._data = earlier
        self.show(run)
        self._offer(present)
        if run.status not in ("stopped", "finished"):
            run.start()
        return run

    def pause_unseen(self, why: str) -> None:
        """Pause the run and its forks."""
        for run in self._runs:
            pause_run(run, why)

    def _page(self) -> _Page:
        return _Page(self.run, self._runs, self._base_model, self._data)

    def _offer(self, page: _Page | None) -> None:
        """Offer to continue the run of a page, if it has begun and is not over."""
        if page is None or page.run.status not in ("running", "paused"):
            self._earlier = self.earlier = None
            return
        self._earlier, run = page, page.run
        label = as_utf8(run.loss.label[:MAX_LABEL_CHARACTERS])
        self.earlier = Earlier(loss_label=label, steps_done=run.steps_done, steps_total=run.steps_total)

    def _perform(self, request: Mapping[str, Any]) -> None:
        kind = request.get("type")
        if kind == "new_run":
            self.new_run()
        elif kind == "continue_earlier":
            self.continue_earlier()
        elif kind == "fork":
            loss, name = request.get("loss"), request.get("name")
            self._fork(requested_step(request), str(loss or "") or None, str(name or "").strip() or None)
        elif kind == "show_run":
            number, runs = request.get("run"), self._runs
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(runs):
                raise ConfigError(f"run {number!r} is not one of the {len(runs)} runs of this page")
            self.show(runs[number])
        else:
            super()._perform(request)

    def _fork(self, step: int, loss: str | None, name: str | None) -> None:
        """Pause the run, fork it after ``step`` and show the fork; without waiting for it."""
        run = self.run

        def fork() -> None:
            if run.status == "running":
                run.pause()
            forked = run.fork(step, loss=loss, name=name)
            if self._publisher is not None:  # not closed meanwhile
                self.show(forked)

        self._background.start(f"Forking {run.name} after step {step}…", fork)


def _check_shown(run: Any, others: Sequence[str]) -> None:
    """Check the argument ``run`` of a workbench."""
    if not isinstance(run, Run):
        raise ConfigError(f"run is {type(run).__name__}, expected a Run; to read a folder, call Run.open(folder) first")
    if others:
        raise ConfigError(
            f"run and {', '.join(others)} are given: a run has a recipe, a loss, data and settings already; give the "
            "run alone, or the others alone"
        )


def _is_fork_of(run: Any, other: Run) -> bool:
    folder = getattr(run, "parent", {}).get("folder")
    return folder is not None and other.folder is not None and folder == str(other.folder.absolute())


def _tab(run: Any) -> RunTab:
    parent = run.parent
    about = f"fork of {parent['name']} after step {parent['step']}" if parent else ""
    return as_utf8(RunTab(name=run.name, about=about))


def describe_data(data: Any, recipe: str) -> str:
    """Return a few words about the data, for the page."""
    if data is None:
        return recipe_of(recipe).default_data
    if isinstance(data, str | Path):
        return Path(data).name
    return type(data).__name__ if not isinstance(data, list) else "your data"
