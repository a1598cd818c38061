"""Same base model, same batches, same seed, several losses: runs that differ in their loss and in nothing else.

Each is an ordinary :class:`~mint_lab.runs.run.Run`, with a LoRA adapter and an optimizer of its own on the base model
that all share, and ends with the same numbers, bit for bit, as that run would alone. They train at the same time: the
base model carries out one request after the other in the order they come, and every run waits for its own, so that they
take turns step by step while the model is never idle and its passes have all cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...client import connect
from ...data.reference_logprobs import with_reference
from ...errors import ConfigError, RunError, one_of
from ...recipes.reference_cache import reads_reference
from ...recipes.registry import Order
from ...recipes.rl.rl_trainer import RlTrainer
from ..loading import ONE_AT_A_TIME, SharedData
from ..run import Run
from ..store import fresh_folder
from .gradient_cosines import Cosines, Objective, cosines_of, measure
from .variants import Losses, entrants_of, file_name

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from ...client.protocol import TrainingClient
    from ...losses import LossSpec
    from ...recipes.record import Status
    from ...types import Datum

__all__ = ["Comparison"]

_OWN = ("client", "loss", "loss_config", "name")  # of a Run, and given here by other means


class Comparison:
    """Runs side by side that share recipe, data, held-out data, seed, base weights and the order of batches.

    Args:
        losses: a list of losses (names, specs, functions in the custom contract) or of ``(loss, settings)``; or a
            mapping of labels to either, such as ``{"soft": ("dpo", {"beta": 0.05}), "hard": ("dpo", {"beta": 1})}``.
        recipe: "preference", "sft" or "rl".
        seed: of the adapters' start, the order of the data, and the held-out split.
        data, held_out: as the recipe takes them; loaded once.
        clients: makes a training client on the weights that all runs start from, one a call; None for new local ones.
        folder: where the runs are recorded, each in a new folder of its own below; None for ``./runs``.
        run_options: further arguments of :class:`~mint_lab.runs.run.Run`, the same for every run, such as ``steps``.

    Attributes:
        runs: the runs by label, in the order given.

    Raises:
        ConfigError: an unknown name or setting, a loss the recipe has no data for, fewer than two losses, or two with
            the same label.
    """

    def __init__(
        self,
        losses: Losses,
        *,
        recipe: str = "preference",
        seed: int = 0,
        data: Any = None,
        held_out: Any = None,
        clients: Callable[[], TrainingClient] | None = None,
        folder: str | os.PathLike[str] | None = None,
        **run_options: Any,
    ) -> None:
        for name in _OWN:
            if name in run_options:
                raise ConfigError(f"{name!r} is given to no run alone: losses= has labels, losses and settings")
        self.recipe = recipe
        self.seed = seed
        self._clients = clients
        self._base = (run_options.get("base_model", "mint-tiny"), run_options.get("rank", 16))
        self._folder = None if folder is None else Path(folder)
        self._halted = threading.Event()
        self._untrained: TrainingClient | None = None
        shared = SharedData(data, held_out)
        self.runs: dict[str, Run] = {
            entrant.label: Run(
                recipe,
                entrant.loss,
                loss_config=entrant.config,
                data=shared,
                seed=seed,
                client=None if clients is None else clients(),
                name=entrant.label,
                **run_options,
            )
            for entrant in entrants_of(losses)
        }

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.runs))}: {self.status})"

    def __getitem__(self, label: str) -> Run:
        if label not in self.runs:
            raise ConfigError(f"no run is called {label!r}; {one_of(list(self.runs), str(label))}")
        return self.runs[label]

    @property
    def status(self) -> Status:
        """Of all together: "running" while one is, "paused" or "ready" while one can go on, else how they ended."""
        found = {run.status for run in self.runs.values()}
        order: tuple[Status, ...] = ("running", "paused", "ready", "stopped", "finished")
        return next(status for status in order if status in found)

    # -- control: any thread, returns at once --------------------------------------------------------------------------

    def start(self) -> Comparison:
        """Begin, or go on after a pause, with every run that can.

        Raises:
            RunError: all of them are stopped or finished.
        """
        able = [run for run in self.runs.values() if run.status not in ("stopped", "finished")]
        if not able:
            raise RunError("every run of this comparison has ended; make a new one to start over")
        self._name_folders()
        for run in able:
            run.start()
        return self

    def resume(self) -> Comparison:
        """Go on after a pause. Raises as :meth:`start`."""
        return self.start()

    def pause(self) -> Comparison:
        """Pause every run after its current step."""
        self._halted.set()
        for run in self.runs.values():
            run.pause()
        return self

    def stop(self) -> Comparison:
        """End every run after its current step, for good."""
        self._halted.set()
        for run in self.runs.values():
            run.stop()
        return self

    def wait(self, timeout: float | None = None, *, check: bool = True) -> bool:
        """Wait until no run is running.

        Args:
            timeout: seconds for all of them; None to wait as long as it takes.
            check: raise where one failed, or all were never started.

        Returns:
            False when the time was up first.

        Raises:
            RunError: with ``check``, which runs failed, and why; or that none was ever started.
        """
        if check and all(run.status == "ready" for run in self.runs.values()):
            raise RunError("this comparison was never started, so there is nothing to wait for; call start().wait()")
        until = None if timeout is None else time.monotonic() + timeout
        for run in self.runs.values():
            if not run.wait(None if until is None else max(0.0, until - time.monotonic()), check=False):
                return False
        failed = [f"{run.name}: {run.error.message}" for run in self.runs.values() if run.error is not None]
        if check and failed:
            raise RunError("\n".join(failed))
        return True

    # -- what came out -------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """One row a run: ``loss``, ``status``, ``steps``, and held-out metrics as ``before/NAME`` and ``final/NAME``.

        ``final`` is the last evaluation so far, on all held-out data once the run is finished. ``mean_margin`` is the
        plain one (chosen minus rejected, nats) for every run, whatever a loss reports under that name; ``loss`` is each
        run's own and does not compare.
        """
        from .overlay import table

        return table({label: _row(run) for label, run in self.runs.items()})

    def figure(self) -> go.Figure:
        """All curves so far, one colour and line style a run: held-out data strong, training batches faint."""
        from .overlay import curves_of, draw

        return draw([curves_of(label, list(run.records), run.baseline) for label, run in self.runs.items()])

    def gradient_cosines(self, at: str | None = None, data: Sequence[Datum] | None = None) -> pd.DataFrame:
        """Cosines between the gradients of all losses by the LoRA weights, on the same batch at the same weights.

        Args:
            at: label of a run, for its present weights, between two of its steps; None for the weights before
                training, which every run starts from (LoRA's A as seeded and B at 0, so only B has a gradient there).
            data: the batch; None for the first training batch, or for "rl" the last rollout of the run ``at``.

        Returns:
            A square frame, by label; ``attrs`` says ``at``, ``step``, ``datums`` and ``norms``. nan where a gradient is
            0. What a cosine says: :mod:`mint_lab.runs.comparison.gradient_cosines`.

        Raises:
            ConfigError: no such run, a client that gives no gradients, or "rl" without ``at`` and ``data``.
            RunError: "rl" before the first rollout.
            DataError, LossError: a loss cannot take the batch.
        """
        return self.measure_cosines(at, data).to_frame()

    def measure_cosines(self, at: str | None = None, data: Sequence[Datum] | None = None) -> Cosines:
        """As :meth:`gradient_cosines`, in plain types."""
        self._halted.clear()
        if at is None:
            client = self._at_the_start()
            objectives = self._objectives(client, next(iter(self.runs.values())), data, started=False)
            return _judged(measure(client, objectives, self._halted.is_set), objectives, None, 0)
        run = self[at].prepare()

        def look() -> Cosines:
            objectives = self._objectives(run.client, run, data, started=True)
            return _judged(measure(run.client, objectives, self._halted.is_set), objectives, at, run.steps_done)

        return run.call(look).result()

    def _objectives(
        self, client: Any, run: Run, data: Sequence[Datum] | None, *, started: bool
    ) -> dict[str, Objective]:
        return {
            label: Objective(one.loss, one.loss_config, self._batch(client, run, data, one.loss, started=started))
            for label, one in self.runs.items()
        }

    def _batch(
        self, client: Any, run: Run, data: Sequence[Datum] | None, loss: LossSpec, *, started: bool
    ) -> Sequence[Datum]:
        """The batch as ``loss`` takes it."""
        if data is None:
            trainer = run.prepare().trainer
            if isinstance(trainer, RlTrainer):
                if not started:
                    raise ConfigError(
                        "before training there is no rollout to take gradients of; give at= (a run's label), or data="
                    )
                sampled = trainer.sample(trainer.job.size * trainer.job.options.group_size, loss)
                if not sampled:
                    raise RunError(f"{run.name} has drawn no rollout yet to take gradients of; start it first")
                return sampled
            assert trainer is not None
            data = trainer.job.batch(Order(trainer.job.size, self.seed).items(0, int(run.settings["batch_size"])))
        known = all("reference_logprobs" in datum.loss_fn_inputs for datum in data)
        return data if known or not reads_reference(loss) else with_reference(data, client)

    def _at_the_start(self) -> TrainingClient:
        """A client that nobody trains, at the weights of the others before their first step."""
        with ONE_AT_A_TIME:
            if self._untrained is None:
                model, rank = self._base
                self._untrained = (
                    connect().create_lora_training_client(base_model=model, rank=rank, seed=self.seed)
                    if self._clients is None
                    else self._clients()
                )
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


def _judged(gradients: Mapping[str, Any], objectives: Mapping[str, Objective], at: str | None, step: int) -> Cosines:
    datums = len(next(iter(objectives.values())).data)
    return cosines_of(gradients, at=at, step=step, datums=datums)


def _row(run: Run) -> dict[str, Any]:
    return {
        "loss": run.loss.label,
        "status": run.status,
        "steps": run.steps_done,
        "before": run.baseline,
        "final": next((record.held_out for record in reversed(run.records) if record.held_out), {}),
    }
