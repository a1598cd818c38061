"""A stand-in for a run: the same public members, with made-up numbers, at any speed and without a model."""

from __future__ import annotations

import contextvars
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch

from mint_lab.data import to_datum
from mint_lab.data.rewards import Reward
from mint_lab.errors import ConfigError, RunError
from mint_lab.losses import LOSSES, DataKind, LossSpec, Param
from mint_lab.recipes.record import Edit, Rewind, Status, StepRecord, histogram
from mint_lab.recipes.registry import recipe_named
from mint_lab.runs.token_inspection import HeldOutTokens
from tests.waiting import TIMEOUT

__all__ = ["Failed", "Growing", "ScriptedRun", "record"]

T = TypeVar("T")


class Growing(list[T]):
    """A list of a run that is longer after each read, as if a step had completed meanwhile."""

    def __init__(self, items: Iterable[T], *later: T) -> None:
        super().__init__(items)
        self._later = list(later)

    def __iter__(self) -> Iterator[T]:
        yield from super().__iter__()
        self._grow()

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self._grow()
        return found

    def _grow(self) -> None:
        if self._later:
            self.append(self._later.pop(0))


@dataclass
class Failed:
    message: str
    line: int | None = None
    index: int | None = None
    traceback: str = ""
    loss: str | None = None
    reward: Reward | None = None


def record(step: int, total: int = 400, rng: random.Random | None = None, **extra: float) -> StepRecord:
    """Return a record as step ``step`` of a run that learns would leave it."""
    rng = rng or random.Random(step)
    progress = step / total
    margin = 1 + 7 * (1 - math.exp(-4 * progress))
    accuracy = 0.72 + 0.26 * (1 - math.exp(-6 * progress))

    def noisy(value: float, spread: float) -> float:
        return value + rng.gauss(0, spread)

    metrics = {
        "loss": max(0.01, noisy(0.12 + 0.62 * math.exp(-5 * progress), 0.06)),
        "pair_accuracy": min(1.0, round(noisy(accuracy, 0.05) * 32) / 32),
        "mean_margin": noisy(margin, 0.5),
        "logps/chosen": noisy(-9 - 2 * progress, 0.4),
        "logps/rejected": noisy(-9 - 2 * progress - margin, 0.6),
        "grad_norm": abs(noisy(2.4 * math.exp(-3 * progress) + 0.4, 0.2)),
        "tokens_per_s": noisy(9000, 400),
        **extra,
    }
    held_out: dict[str, float] = {}
    if step % 10 == 0 or step == total:
        held_out = {
            "loss": 0.14 + 0.6 * math.exp(-5 * progress),
            "pair_accuracy": accuracy - 0.01,
            "mean_margin": margin - 0.2,
            "displacement_frac": 0.14 * progress,
        }
    count = 400 if held_out else 32
    margins = [rng.gauss(margin, 2 + 1.5 * progress) for _ in range(count)]
    return StepRecord(
        step=step,
        time=step / 18,
        step_time=1 / 18,
        tokens=800,
        loss_name="pairwise_preference",
        loss_version=1,
        metrics=metrics,
        held_out=held_out,
        histograms={"margin": histogram(margins, "margin")},
        settings={"learning_rate": 5e-4, "beta": 1.0},
        warnings=[],
    )


class ScriptedRun:
    """Complete ``rate`` steps per second on a separate thread; fail once at ``fail_at``, as a wrong loss cell does."""

    def __init__(
        self,
        steps: int = 400,
        *,
        rate: float = 60.0,
        fail_at: int | None = None,
        recipe: str = "preference",
        **extra: float,
    ) -> None:
        self.name = "scripted"
        self.base_model = "mint-tiny"
        self.recipe = recipe
        self.status: Status = "ready"
        self.error: Failed | None = None
        self.records: list[StepRecord] = []
        self.rewinds: list[Rewind] = []
        self.parent: dict[str, Any] = {}
        self.reading = threading.RLock()
        self.edits: list[Edit] = []
        self.baseline: dict[str, float] = {}
        self.loss: LossSpec = LOSSES["pairwise_preference"]
        self.steps_total = steps
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._config = self.loss.config()
        self._own = {"learning_rate": 5e-4, "batch_size": 32.0}
        self._pending: list[Edit] = []
        self._rate, self._fail_at, self._extra = rate, fail_at, extra
        self._steps_left: int | None = None
        self._requested_status: Status | None = None
        self._subscribers: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._asked_to_end = threading.Event()  # ends the time that a step takes
        self._at_rest = threading.Event()
        self._at_rest.set()
        self._rng = random.Random(0)
        self.calls: list[str] = []

    @property
    def data_kind(self) -> DataKind:
        return recipe_named(self.recipe).data_kind

    @property
    def options(self) -> dict[str, Any]:
        return recipe_named(self.recipe).option_values()

    @property
    def steps_done(self) -> int:
        return len(self.records)

    @property
    def steps_per_s(self) -> float:
        return 0.0 if len(self.records) < 2 else self._rate

    @property
    def loss_config(self) -> dict[str, float]:
        return dict(self._config)

    @property
    def settings(self) -> dict[str, float]:
        return {**self._own, **self._config}

    @property
    def setting_params(self) -> list[Param]:
        return [Param("learning_rate", 5e-4, 1e-5, 1e-2, "AdamW step size"), *self.loss.params]

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._subscribers.append(callback)

        def dispose() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return dispose

    def notify_all(self) -> None:
        for callback in list(self._subscribers):
            callback()

    def append(self, *records: StepRecord) -> None:
        """Add records at once, without a thread."""
        self.records.extend(records)
        self.notify_all()

    def rewind(self, step: int) -> ScriptedRun:
        """Return to a step, as a run does: new lists, all at once for those who read with ``reading``."""
        with self.reading:
            later = self.records[step:], [edit for edit in self.edits if edit.step > step]
            self.edits = [edit for edit in self.edits if edit.step <= step]
            self.records = self.records[:step]
            self.rewinds.append(Rewind(step, *later))
            self.status = "paused"
        self.notify_all()
        return self

    def held_out_tokens(self) -> Future[HeldOutTokens]:
        """Return two pairs of letters, whose chosen completion becomes more likely with every step."""
        self.calls.append("tokens")
        future: Future[HeldOutTokens] = Future()
        if not self.records:
            raise RunError("the run has not started")
        tokens = [[1, 2, 3, 10], [1, 2, 3, 11, 12], [4, 5, 13], [4, 5, 14]]
        data = [to_datum(row, 2 if row[0] == 4 else 3) for row in tokens]
        certainty = self.steps_done / (self.steps_done + 10)
        logprobs = [torch.full((len(row) - 1,), -3.0 + 2 * certainty * (-1) ** i) for i, row in enumerate(tokens)]
        gradients = [
            d.loss_fn_inputs["weights"].to_torch() * (1 - certainty) * (-1) ** (i + 1) for i, d in enumerate(data)
        ]
        letters = SimpleNamespace(decode=lambda ids: chr(96 + ids[0]))
        future.set_result(HeldOutTokens(self.steps_done, self.loss.label, data, logprobs, gradients, True, letters))
        return future

    def start(self) -> ScriptedRun:
        return self._run("start", None)

    def resume(self) -> ScriptedRun:
        return self._run("resume", None)

    def step(self, n: int = 1) -> ScriptedRun:
        return self._run("step", n)

    def pause(self) -> ScriptedRun:
        self.calls.append("pause")
        self._requested_status = "paused"
        self._asked_to_end.set()
        return self

    def stop(self) -> ScriptedRun:
        self.calls.append("stop")
        if self.status == "running":
            self._requested_status = "stopped"
            self._asked_to_end.set()
        else:
            self.status = "stopped"
            self.notify_all()
        return self

    def set(self, **settings: float) -> ScriptedRun:
        for key, value in settings.items():
            if key not in self.settings:
                raise ConfigError(f"unknown setting {key!r}")
            if value < 0:
                raise ConfigError(f"{key} is {value:g}, expected a number from 0 up")
            (self._own if key in self._own else self._config)[key] = value
            self._edit("setting", f"{key} {value:g}")
        return self

    def set_loss(self, loss: str, **config: float) -> ScriptedRun:
        self.loss = LOSSES[loss]
        self._config = self.loss.config(config)
        self._edit("loss", self.loss.label)
        return self

    def wait(self, timeout: float = TIMEOUT) -> bool:
        return self._at_rest.wait(timeout)

    def _edit(self, kind: str, label: str) -> None:
        with self._lock:
            self._pending.append(Edit(0, "loss" if kind == "loss" else "setting", label))
        self.notify_all()

    def _run(self, call: str, steps: int | None) -> ScriptedRun:
        self.calls.append(call)
        if self.status in ("stopped", "finished"):
            raise RunError(f"this run is {self.status}")
        self._steps_left, self._requested_status, self.error = steps, None, None
        self._asked_to_end.clear()
        if self.status != "running":
            self.status = "running"
            self._at_rest.clear()
            threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True).start()
        self.notify_all()
        return self

    def _work(self) -> None:
        if not self.baseline:
            first = record(10, 10**6)
            self.baseline = dict(first.held_out)
        while self._requested_status is None and self.steps_done < self.steps_total:
            step = self.steps_done + 1
            if step == self._fail_at:
                self._fail_at = None
                self.error = Failed(
                    "my_loss v2, line 5: RuntimeError: The size of tensor a (31) must match the size of tensor b (30)",
                    line=5,
                    index=12,
                    traceback="my_loss v2, line 5:\n      3 chosen = scores[0::2]\n      4 rejected = scores[1::2]\n"
                    "-->   5 margin = chosen - rejected[1:]\n      6 loss = -F.logsigmoid(margin).mean()\n",
                )
                self._requested_status = "paused"
                break
            with self._lock:
                if self.records:
                    self.edits.extend(Edit(step, edit.kind, edit.label) for edit in self._pending)
                self._pending.clear()
            made = record(step, self.steps_total, self._rng, **self._extra)
            made.warnings.extend(self.warnings)
            self.records.append(made)
            self.notify_all()
            if self._steps_left is not None:
                self._steps_left -= 1
                if self._steps_left == 0:
                    self._requested_status = "paused"
            self._asked_to_end.wait(1 / self._rate)
        self.status = self._requested_status or "finished"
        self._at_rest.set()
        self.notify_all()
