"""Runs that differ in their loss or in some settings: same base model, same data, same seed.

Each is an ordinary :class:`~mint_lab.runs.run.Run`, with its own LoRA adapter and optimizer on the base model that all
share, and gives the same numbers, bit for bit, as that run alone would. They train at the same time: the base model
serves one request after the other in the order of arrival, and every run waits for its own. So they take turns step by
step, the model is never idle, and each pass uses all cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...charts.chart_spec import charts_of
from ...charts.run_data import run_data
from ...data.reference_logprobs import with_reference
from ...errors import ConfigError, RunError, one_of
from ...losses.decorator import RUN_SETTINGS
from ...recipes.reference_cache import reads_reference
from ...recipes.registry import RECIPES, recipe_of
from ..loading import ONE_AT_A_TIME, AdapterRequest, SharedData
from ..run import Run
from ..store import fresh_folder
from .gradient_cosines import Cosines, Objective, cosines_of, measure
from .variants import Losses, Variant, file_name, variants_of

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from ...client.protocol import TrainingClientProtocol
    from ...losses import LossSpec
    from ...recipes.record import Status
    from ...types import Datum

__all__ = ["Comparison"]

# Arguments of a Run that differ between the runs, and follow from the losses.
_PER_RUN = ("client", "loss", "loss_config", "name")
# Arguments that have no influence on how data are prepared.
_NOT_OF_DATA = {*RUN_SETTINGS, "betas", "eval_every", "keep_snapshots", "lora", "rank"}


class Comparison:
    """Runs side by side that share recipe, data, held-out data, seed, base weights and the order of batches.

    Args:
        losses: A list of losses (names, specs, functions in the custom call form) or of ``(loss, settings)``; or a
            mapping of labels to either, such as ``{"soft": ("dpo", {"beta": 0.05}), "hard": ("dpo", {"beta": 1})}``.
        recipe: Name of a recipe: "preference", "sft", "rl", "unpaired", or a registered one.
        seed: Of the adapters' initial weights, the order of the data, and the held-out split.
        data, held_out: As the recipe takes them; loaded once.
        clients: Returns a new training client at each call, all at the weights that the runs start from; None for new
            local ones.
        folder: Where the runs are recorded, each in a new folder inside it; None for ``./runs``.
        run_options: Further arguments of :class:`~mint_lab.runs.run.Run`, the same for every run, such as ``steps``.

    Attributes:
        runs: The runs by label, in the order given.

    Raises:
        ConfigError: If a name or a setting is unknown, the recipe's data do not fit a loss, there are fewer than two
            losses, or two have the same label.
    """

    def __init__(
        self,
        losses: Losses | list[Variant],
        *,
        recipe: str = "preference",
        seed: int = 0,
        data: Any = None,
        held_out: Any = None,
        clients: Callable[[], TrainingClientProtocol] | None = None,
        folder: str | os.PathLike[str] | None = None,
        **run_options: Any,
    ) -> None:
        for name in _PER_RUN:
            if name in run_options:
                raise ConfigError(
                    f"{name!r} cannot be the same for all runs: give labels, losses and settings in losses=, and "
                    "clients in clients="
                )
        named = run_options.get("report_to")
        if any(not isinstance(each, str) for each in (named if isinstance(named, list | tuple) else [named or ""])):
            raise ConfigError(f"report_to is {named!r}, expected names: each run gets its own trackers")
        self.recipe = recipe
        self.seed = seed
        self._clients = clients
        self._adapter = AdapterRequest(
            run_options.get("base_model", "mint-tiny"), run_options.get("rank"), run_options.get("lora"), seed
        )
        self._folder = None if folder is None else Path(folder)
        self._cancel = threading.Event()
        self._untrained: TrainingClientProtocol | None = None
        variants = variants_of(losses)
        if any(isinstance(source, Iterator) for source in (data, held_out)) and len(set(map(_data_of, variants))) > 1:
            raise ConfigError("the data are an iterator, which can be read once; give a list, because settings differ")
        common: dict[str, Any] = {"seed": seed, **run_options}
        shared = {key: SharedData(data, held_out) for key in map(_data_of, variants)}
        self.runs: dict[str, Run] = {
            variant.label: Run(
                recipe,
                variant.loss,
                loss_config=variant.config,
                data=shared[_data_of(variant)],
                client=None if clients is None else clients(),
                name=variant.label,
                **(common | variant.settings),
            )
            for variant in variants
        }

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.runs))}: {self.status})"

    def __getitem__(self, label: str) -> Run:
        if label not in self.runs:
            raise ConfigError(f"no run has the label {label!r}; {one_of(list(self.runs), str(label))}")
        return self.runs[label]

    @property
    def status(self) -> Status:
        """The status of all runs together: the first of these that one of them has.

        "running", "paused", "ready", "stopped", "finished".
        """
        statuses = {run.status for run in self.runs.values()}
        order: tuple[Status, ...] = ("running", "paused", "ready", "stopped", "finished")
        return next(status for status in order if status in statuses)

    # -- control: for any thread, returns at once ----------------------------------------------------------------------

    def start(self) -> Comparison:
        """Start or resume every run that is neither stopped nor finished.

        Raises:
            RunError: If all of them are stopped or finished.
        """
        startable = [run for run in self.runs.values() if run.status not in ("stopped", "finished")]
        if not startable:
            raise RunError("every run of this comparison has ended; create a new comparison to start over")
        self._name_folders()
        for run in startable:
            run.start()
        return self

    def resume(self) -> Comparison:
        """Resume after a pause. Raises as :meth:`start`."""
        return self.start()

    def pause(self) -> Comparison:
        """Pause every run after its current step."""
        self._cancel.set()
        for run in self.runs.values():
            run.pause()
        return self

    def stop(self) -> Comparison:
        """End every run after its current step, for good."""
        self._cancel.set()
        for run in self.runs.values():
            run.stop()
        return self

    def wait(self, timeout: float | None = None, *, check: bool = True) -> bool:
        """Wait until no run is running.

        Args:
            timeout: Seconds for all of them; None for no limit.
            check: Raise if one failed or none was ever started.

        Returns:
            False if one is still running after ``timeout`` seconds.

        Raises:
            RunError: With ``check``, if a run failed (the message says which, and why) or none was ever started.
        """
        if check and all(run.status == "ready" for run in self.runs.values()):
            raise RunError("this comparison was never started, so there is nothing to wait for; call start().wait()")
        deadline = None if timeout is None else time.monotonic() + timeout
        for run in self.runs.values():
            if not run.wait(None if deadline is None else max(0.0, deadline - time.monotonic()), check=False):
                return False
        failed = [f"{run.name}: {run.error.message}" for run in self.runs.values() if run.error is not None]
        if check and failed:
            raise RunError("\n".join(failed))
        return True

    # -- results -------------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return one row per run: ``loss``, ``status``, ``steps``, held-out metrics ``before/NAME`` and ``final/NAME``.

        ``final`` is the last evaluation so far; of a finished run, that is one on all held-out data. ``mean_margin`` is
        chosen minus rejected score in nats for every run, whatever a loss reports under that name. The values of
        ``loss`` belong to different losses and do not compare.
        """
        from .metric_table import metric_table

        return metric_table({label: _row(run) for label, run in self.runs.items()})

    def figure(self) -> go.Figure:
        """Draw all curves so far, one colour and line style per run: held-out data strong, training batches faint."""
        from ...charts.plotly_figure import comparison_figure

        runs = [run_data(label, list(run.records), run.baseline) for label, run in self.runs.items()]
        return comparison_figure(runs, charts_of(recipe_of(self.recipe).charts))

    def gradient_cosines(self, at: str | None = None, data: Sequence[Datum] | None = None) -> pd.DataFrame:
        """Compute the cosines between the gradients of all losses, on one batch at the same LoRA weights.

        What a cosine says is explained in :mod:`mint_lab.runs.comparison.gradient_cosines`.

        Args:
            at: Label of a run, for its current weights, between two of its steps; None for the weights before training,
                which every run starts from. (There B is 0 and A is random, so only B has a gradient.)
            data: The batch. None for the first training batch; of a recipe that samples its batches ("rl"), the last
                rollout of the run ``at``.

        Returns:
            A square frame, by label; nan where a gradient is 0. Its ``attrs`` are ``at``, ``step``, ``datums`` and
            ``norms``.

        Raises:
            ConfigError: If there is no run with this label, or the client returns no gradients; for "rl", if neither
                ``at`` nor ``data`` is given.
            RunError: For "rl", before the first rollout.
            DataError: If the batch does not fit a loss.
            LossError: If a loss fails on the batch.
        """
        return self.measure_cosines(at, data).to_frame()

    def measure_cosines(self, at: str | None = None, data: Sequence[Datum] | None = None) -> Cosines:
        """As :meth:`gradient_cosines`, in plain types."""
        self._cancel.clear()
        if at is None:
            return self._cosines(self._untrained_client(), next(iter(self.runs.values())), None, data)
        run = self[at].prepare()
        return run.call(lambda: self._cosines(run.client, run, at, data)).result()

    def _cosines(self, client: Any, run: Run, at: str | None, data: Sequence[Datum] | None) -> Cosines:
        started = at is not None
        objectives = {
            label: Objective(other.loss, other.loss_config, self._batch(client, run, data, other.loss, started=started))
            for label, other in self.runs.items()
        }
        gradients = measure(client, objectives, self._cancel.is_set)
        datums = len(next(iter(objectives.values())).data)
        return cosines_of(gradients, at=at, step=run.steps_done if started else 0, datums=datums)

    def _batch(
        self, client: Any, run: Run, data: Sequence[Datum] | None, loss: LossSpec, *, started: bool
    ) -> Sequence[Datum]:
        """Return the batch as ``loss`` reads it: ``data`` or one of ``run``, with reference log-probabilities."""
        if data is None:
            if not started and not RECIPES[self.recipe].batch_before_training:
                raise ConfigError(
                    "before training there is no rollout to compute gradients on; give at= (a run's label), or data="
                )
            trainer = run.prepare().trainer
            assert trainer is not None
            return trainer.gradient_batch(int(run.settings["batch_size"] * run.settings["accumulate"]), loss)
        is_complete = all("reference_logprobs" in datum.loss_fn_inputs for datum in data)
        return data if is_complete or not reads_reference(loss) else with_reference(data, client)

    def _untrained_client(self) -> TrainingClientProtocol:
        """Return a client that nobody trains, at the weights that all runs start from."""
        with ONE_AT_A_TIME:
            if self._untrained is None:
                self._untrained = self._adapter.new_client() if self._clients is None else self._clients()
            return self._untrained

    def _name_folders(self) -> None:
        taken = {run.folder for run in self.runs.values()}
        for label, run in self.runs.items():
            if run.folder is not None:
                continue
            name = file_name(label)
            if self._folder is None:
                run.folder = fresh_folder(f"compare-{name}")
                continue
            base = self._folder / name
            number, run.folder = 2, base
            while run.folder in taken or run.folder.exists():
                run.folder, number = base.with_name(f"{base.name}-{number}"), number + 1
            taken.add(run.folder)


def _data_of(variant: Variant) -> str:
    """Return what of a variant decides how its data are prepared: variants with the same text share them."""
    settings = variant.settings.items()
    return repr(sorted((name, value) for name, value in settings if name not in _NOT_OF_DATA))


def _row(run: Run) -> dict[str, Any]:
    return {
        "loss": run.loss.label,
        "status": run.status,
        "steps": run.steps_done,
        "before": run.baseline,
        "final": next((record.held_out for record in reversed(run.records) if record.held_out), {}),
    }
