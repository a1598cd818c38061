"""A model of a run for tests of sequences: what a person may do, and what every step then uses and leaves.

The model has no thread and no trainer. It repeats the rules of :mod:`mint_lab.runs.loop` and
:mod:`mint_lab.recipes.guarded_trainer` in the plainest form, and trains a client of its own by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mint_lab.types import AdamParams

from .bigram import BigramClient

__all__ = ["Model", "ModelPlan", "ModelRecord"]


@dataclass(frozen=True)
class ModelPlan:
    """What a step uses: the loss with its version, its settings, those of the run, and the number of steps."""

    name: str
    version: int
    fn: Callable[..., Any] | None  # None: the loss raises
    config: dict[str, float]
    own: dict[str, float]
    steps: int

    @property
    def label(self) -> str:
        return f"{self.name} v{self.version}"

    @property
    def settings(self) -> dict[str, float]:
        return self.own | self.config

    def edits_since(self, earlier: ModelPlan) -> list[tuple[str, str]]:
        """Return kind and label of every mark between the two plans."""
        loss = [("loss", self.label)] if self.label != earlier.label else []
        before = earlier.own | (earlier.config if self.name == earlier.name else {})
        changed = [key for key, value in self.settings.items() if key in before and before[key] != value]
        return loss + [("setting", f"{key} {self.settings[key]:g}") for key in changed]


@dataclass(frozen=True)
class ModelRecord:
    step: int
    label: str
    settings: dict[str, float]
    is_evaluated: bool
    warnings: list[str]
    seconds: float


@dataclass
class Model:
    """The state of a run.

    Attributes:
        data: Training datums, two per item.
        plan: Of the next step.
        eval_every: Steps between evaluations.
        status: Of the run.
        at_gate: Whether the worker waits inside a gradient call.
        armed: The request of the client that fails next; "" for none.
        phase: What is complete of the step: "" (nothing), "gradient" or "updated".
    """

    data: list[Any]
    plan: ModelPlan
    eval_every: int
    status: str = "ready"
    at_gate: bool = False
    armed: str = ""
    phase: str = ""
    current: ModelPlan | None = None
    newest: ModelPlan | None = None  # the plan of the next step when this attempt at the step began
    previous: ModelPlan | None = None
    kept: ModelPlan | None = None  # the plan that computed a gradient or an update of a step that failed
    requested: str | None = None
    steps_left: int | None = None
    waiting: tuple[str, int | None] | None = None
    error: str | None = None  # a part of the message
    error_loss: str | None = None
    position: int = 0
    begun: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    step_notes: list[str] = field(default_factory=list)
    noted: set[str] = field(default_factory=set)
    records: list[ModelRecord] = field(default_factory=list)
    edits: list[tuple[int, str, str]] = field(default_factory=list)
    losses: list[tuple[int, str, dict[str, float]]] = field(default_factory=list)
    batches: list[list[Any]] = field(default_factory=list)
    client: BigramClient = field(default_factory=BigramClient)

    # -- what a person does --------------------------------------------------------------------------------------------

    def start(self, max_steps: int | None) -> None:
        was_running = self.status == "running"
        if was_running:
            self.requested = None if self.requested == "paused" else self.requested
        self.steps_left = max_steps
        if not was_running:
            self._resume()

    def pause(self) -> None:
        if self.status == "running":
            self.requested = self.requested or "paused"
        else:
            self.waiting = self.error_loss = None

    def stop(self) -> None:
        if self.status == "running":
            self.requested = "stopped"
        elif self.status in ("ready", "paused"):
            self._leave("stopped")

    def allows(self, steps: int) -> bool:
        """Return whether the run may end at that step."""
        begun = max(len(self.records), self.begun)
        return steps == self.plan.steps or steps > begun

    def set_steps(self, steps: int) -> None:
        self.plan = replace(self.plan, steps=steps)
        if self.status == "finished" and steps > len(self.records):
            self.status = "paused"

    def register(self, version: ModelPlan) -> None:
        """A new version of the loss of that name; it keeps the settings."""
        if self.plan.name != version.name:
            return
        self.plan = replace(self.plan, version=version.version, fn=version.fn)
        if self.status == "paused" and self.waiting is not None:
            self.steps_left = self.waiting[1]
            self._resume()

    def open_gate(self) -> None:
        """The gradient call continues and takes one second."""
        assert self.current is not None
        self.at_gate = False
        self.seconds += 1
        if self.current.fn is not None:
            self.phase, self.kept = "gradient", self.current
            self._go_on()
        elif self.requested is None and self.plan.label != self.current.label:
            self.current = self.newest = self.plan
            self._enter_gate()
        else:
            self._fail("a planted bug", self.current.name)

    @property
    def cancels(self) -> bool:
        """Whether a call of a loss that takes long would be cancelled now."""
        is_outdated = self.current is not None and self.current.label != self.plan.label
        return self.requested is not None or is_outdated

    # -- what the run does ---------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        self.status, self.error, self.error_loss = "running", None, None
        self.requested = self.waiting = None
        self._begin()

    def _begin(self) -> None:
        if len(self.records) >= self.plan.steps:
            self.current = self.plan
            self._leave("finished")
        elif self.requested is not None or self.steps_left == 0:
            self.current = self.plan
            self._leave(self.requested or "paused")
        else:
            self.begun, self.newest = len(self.records) + 1, self.plan
            if self.kept is None:
                self.current = self.plan
                self._enter_gate()
            else:
                self.current = replace(self.kept, steps=self.plan.steps)
                self._go_on()

    def _enter_gate(self) -> None:
        self.at_gate = True
        self.batches.append(self._batch())

    def _batch(self) -> list[Any]:
        assert self.current is not None
        size, batch = len(self.data) // 2, []
        for place in range(
            self.position, self.position + int(self.current.own["batch_size"] * self.current.own["accumulate"])
        ):
            order = np.random.default_rng([0, place // size]).permutation(size)
            item = int(order[place % size])
            batch += self.data[2 * item : 2 * item + 2]
        return batch

    def _go_on(self) -> None:
        """Complete what remains of the step after its gradient."""
        assert self.current is not None
        assert self.newest is not None
        number = len(self.records) + 1
        if self.phase == "gradient":
            if self.armed in ("optim_step", "dropped gradient"):
                if self.armed == "dropped gradient":
                    self.phase, self.kept = "", None
                self._fail(self._disarm())
                return
            self._update(number)
        is_due = number % self.eval_every == 0 or number >= self.current.steps
        if is_due and self.armed == "forward":
            self._fail(self._disarm())
            return
        delayed = [
            f"Step {number} ends with the loss and settings that it began with, because its gradient had been computed "
            f"with them: {label} takes effect at step {number + 1}"
            for _, label in self.newest.edits_since(self.current)
        ]
        self._record(number, is_due, [*self._take_notes(), *delayed])
        if self.steps_left is not None:
            self.steps_left -= 1
        self._begin()

    def _disarm(self) -> str:
        armed, self.armed = self.armed, ""
        return f"planted failure of {armed}"

    def _update(self, number: int) -> None:
        plan = self.current
        assert plan is not None
        assert plan.fn is not None
        self.client.forward_backward_custom(self._batch(), functools.partial(plan.fn, **plan.config)).result()
        rate, warmup = plan.own["learning_rate"], plan.own["warmup_steps"]
        rate = rate * number / warmup if number < warmup else rate
        decay, clip = plan.own["weight_decay"], plan.own["grad_clip_norm"]
        self.client.optim_step(AdamParams(learning_rate=rate, weight_decay=decay, grad_clip_norm=clip)).result()
        self.position += int(plan.own["batch_size"] * plan.own["accumulate"])
        self.phase = "updated"
        if plan.name == "mine" and plan.label not in self.noted:
            self.noted.add(plan.label)
            self.step_notes.append(
                f"{plan.label} reports 'grad_norm', which is a metric of the run: recorded as 'loss/grad_norm'"
            )

    def _take_notes(self) -> list[str]:
        notes, self.step_notes = self.step_notes, []
        return notes

    def _record(self, number: int, is_evaluated: bool, warnings: list[str]) -> None:
        plan = self.current
        assert plan is not None
        marks = [] if self.previous is None else plan.edits_since(self.previous)
        self.edits += [(number, *mark) for mark in marks]
        if self.previous is None or any(kind == "loss" for kind, _ in marks):
            self.losses.append((number, plan.label, plan.config))
        all_warnings = [*self.notes, *warnings] if number == 1 else warnings
        self.records.append(ModelRecord(number, plan.label, plan.settings, is_evaluated, all_warnings, self.seconds))
        self.previous, self.kept, self.phase = plan, None, ""

    def _fail(self, message: str, loss: str | None = None) -> None:
        requested, steps_left = self.requested, self.steps_left
        self.error = message
        self._leave(requested or "paused")
        if loss is not None and requested is None:
            self.waiting, self.error_loss = (loss, steps_left), loss

    def _leave(self, status: str) -> None:
        if status == "stopped" and self.phase == "updated":
            begun_with, self.current = self.current, self.kept
            note = "The run was stopped before this step could be evaluated"
            self._record(len(self.records) + 1, False, [*self._take_notes(), note])
            self.current = begun_with
        self.status, self.requested, self.steps_left = status, None, None
        self.begun = len(self.records)
