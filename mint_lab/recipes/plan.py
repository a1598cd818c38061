"""The plan of the next step: loss, its settings, learning rate, batch size, number of steps.

A plan is immutable; an edit creates a new one. The worker thread reads the current plan when a step begins and uses it
to the step's end, so that no edit takes effect inside a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, one_of
from ..losses import LOSSES, LossSpec, Param
from ..losses.decorator import RUN_SETTINGS, spec_of
from .record import Edit, LossVersion
from .schedules import SCHEDULES

if TYPE_CHECKING:
    from ..types import AdamParams

__all__ = ["StepPlan", "resolve_loss"]

NUMBERS = ("learning_rate", "weight_decay", "grad_clip_norm")
COUNTS = {"batch_size": 1, "accumulate": 1, "steps": 1, "warmup_steps": 0}  # with the least value of each
BETAS = ("beta1", "beta2")
SMALLEST_FLOAT32 = 2.0**-126  # normal; about 1.2e-38


def resolve_loss(loss: str | LossSpec | Callable[..., Any]) -> LossSpec:
    """Return the spec of a loss: a name, a spec, or a plain function, which is registered as a new custom loss.

    A function that is registered already keeps its name and version. If another function has its name, it gets the next
    free name, so that it replaces no registered loss.

    Raises:
        ConfigError: If the name is unknown, or the function cannot be a loss.
    """
    if isinstance(loss, LossSpec):
        return loss
    if isinstance(loss, str):
        return LOSSES[loss]
    return LOSSES.add(spec_of(loss))


@dataclass(frozen=True)
class StepPlan:
    """Everything about a step that a person may edit.

    Attributes:
        loss: The loss.
        config: Its settings, complete and checked.
        learning_rate: Of AdamW.
        batch_size: Items per batch (pairs, examples, prompts of a rollout).
        steps: Optimizer steps of the run in total.
        warmup_steps: Steps over which the learning rate rises linearly to its value; 0 for none.
        grad_clip_norm: A gradient with a larger norm is scaled down to this norm; 0 for no limit.
        schedule: How the learning rate falls after the warm-up, a name of
            :data:`~mint_lab.recipes.schedules.SCHEDULES`.
        weight_decay: Of AdamW, decoupled: each step subtracts ``learning_rate * weight_decay * weight``.
        beta1, beta2: Of AdamW: decay of the mean of the gradients, and of their squares.
        adam_eps: Of AdamW: added to the square root of the second mean.
        accumulate: Batches per optimizer step.
    """

    loss: LossSpec
    config: Mapping[str, float]
    learning_rate: float
    batch_size: int
    steps: int
    warmup_steps: int = 0
    grad_clip_norm: float = 0.0
    schedule: str = "constant"
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-12
    accumulate: int = 1

    @classmethod
    def first(cls, spec: LossSpec, config: Mapping[str, Any], **settings: Any) -> StepPlan:
        """Return the plan that a run begins with. Raises as :meth:`with_loss` and :meth:`with_settings`."""
        return cls(spec, {}, 0.0, 1, 1).with_loss(spec, config).with_settings(settings)

    @property
    def items_per_step(self) -> int:
        """Items per optimizer step: those of ``accumulate`` batches."""
        return self.batch_size * self.accumulate

    @property
    def has_constant_rate(self) -> bool:
        """Whether every step uses ``learning_rate`` itself."""
        return self.schedule == "constant" and self.warmup_steps == 0

    def adam(self, number: int) -> AdamParams:
        """Return the optimizer's settings at step ``number``, from 1; the schedule scales an edited rate too."""
        from ..types import AdamParams

        if number < self.warmup_steps:
            rate = self.learning_rate * number / self.warmup_steps
        else:
            rate = self.learning_rate * SCHEDULES[self.schedule](number, self.warmup_steps, self.steps)
        return AdamParams(
            learning_rate=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.adam_eps,
            weight_decay=self.weight_decay,
            grad_clip_norm=self.grad_clip_norm,
        )

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """Lowest and highest ratio that the loss lets through with these settings; None if it clips no tokens."""
        return None if self.loss.clip is None else self.loss.clip.range(self.config)

    def settings(self) -> dict[str, float]:
        """Return the numbers among the settings by name: of the optimizer, of a step's size, and of the loss."""
        names = [name for name in RUN_SETTINGS if name not in ("steps", "schedule")]
        return {name: getattr(self, name) for name in names} | dict(self.config)

    @property
    def loss_described(self) -> dict[str, Any]:
        """What the source of a loss does not tell of it."""
        return {name: getattr(self.loss, name) for name in ("unit", "reduction", "inputs", "optional")}

    def loss_version(self, step: int) -> LossVersion:
        """Return the loss with its settings, as used from ``step`` on."""
        loss = self.loss
        return LossVersion(step, loss.name, loss.version, loss.source, dict(self.config), self.loss_described)

    def entries(self) -> dict[str, Any]:
        """Return everything about the plan in plain types; the loss by its name and version."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("loss", "config")}
        loss = {"loss": self.loss.name, "loss_version": self.loss.version, "loss_described": self.loss_described}
        return own | loss | {"config": dict(self.config)}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of :class:`~mint_lab.runs.run.Run`, without ``loss``, that give this plan."""
        names = [name for name in RUN_SETTINGS if name not in BETAS]
        own = {name: getattr(self, name) for name in names}
        return own | {"betas": (self.beta1, self.beta2), "loss_config": dict(self.config)}

    @classmethod
    def of_entries(cls, entries: Mapping[str, Any], loss: LossSpec) -> StepPlan:
        """Return the plan that :meth:`entries` describes.

        Args:
            entries: The entries.
            loss: The loss that they name.

        Raises:
            ConfigError: If a value is not valid.
        """
        names = {each.name for each in fields(cls)} - {"loss", "config"}
        return cls.first(loss, entries["config"], **{name: entries[name] for name in names if name in entries})

    def params(self) -> list[Param]:
        """Return the settings that a page may offer as sliders: the learning rate and those of the loss."""
        rate = Param("learning_rate", self.learning_rate, 1e-5, 1e-2, "AdamW step size")
        return [rate, *self.loss.params]

    def with_loss(self, spec: LossSpec, config: Mapping[str, Any]) -> StepPlan:
        """Return this plan with another loss.

        A new version of the same loss keeps the settings that differ from the old version's defaults, if the new
        version has them and allows the value. All others get the new version's defaults.

        Raises:
            ConfigError: If ``spec`` does not know a setting or refuses its value, or has a parameter that is named like
                a setting of the run.
        """
        clash = [p.name for p in spec.params if p.name in RUN_SETTINGS]
        if clash:
            raise ConfigError(f"{spec.name}: {clash[0]!r} is a setting of the run; rename the loss's parameter")
        kept: dict[str, Any] = {}
        if spec.name == self.loss.name:
            defaults = {p.name: p.default for p in self.loss.params}
            chosen = {k: v for k, v in self.config.items() if v != defaults.get(k)}
            kept = {
                p.name: chosen[p.name] for p in spec.params if p.minimum <= chosen.get(p.name, math.nan) <= p.maximum
            }
        return replace(self, loss=spec, config=checked_config(spec, {**kept, **config}))

    def with_settings(self, changes: Mapping[str, Any]) -> StepPlan:
        """Return this plan with other settings.

        Raises:
            ConfigError: If a setting is unknown, or a value is not valid for it.
        """
        run_settings: dict[str, Any] = {}
        config: dict[str, Any] = dict(self.config)
        for key, value in changes.items():
            if key == "betas":
                run_settings |= _betas(value)
            elif key in RUN_SETTINGS:
                run_settings[key] = _checked(key, value)
            elif key in self.config:
                config[key] = value
            else:
                raise ConfigError(f"unknown setting {key!r}; {one_of([*RUN_SETTINGS, 'betas', *self.config], key)}")
        plan = replace(self, config=checked_config(self.loss, config), **run_settings)
        if plan.schedule != "constant" and plan.steps == 1:
            raise ConfigError(
                f"schedule is {plan.schedule!r} and steps is 1, expected 2 steps or more: the last step has the rate 0"
            )
        return plan

    def edits_since(self, earlier: StepPlan, step: int) -> list[Edit]:
        """Return the edits between ``earlier``, the plan of the previous step, and this plan of ``step``."""
        edits = []
        if (self.loss.name, self.loss.version) != (earlier.loss.name, earlier.loss.version):
            edits.append(Edit(step, "loss", self.loss.label))
            # Settings that came with another loss belong to the edit of the loss.
            if self.loss.name != earlier.loss.name:
                earlier = replace(earlier, config=self.config)
        before = earlier.settings()
        edits += [
            Edit(step, "setting", f"{key} {value:g}")
            for key, value in self.settings().items()
            if key in before and before[key] != value
        ]
        if self.schedule != earlier.schedule:
            edits.append(Edit(step, "setting", f"schedule {self.schedule}"))
        return edits


def checked_config(spec: LossSpec, given: Mapping[str, Any]) -> dict[str, float]:
    """Return ``spec.config(given)``, all of it finite.

    Raises:
        ConfigError: As :meth:`LossSpec.config`, and if a value is not finite.
    """
    config = spec.config(given)
    for key, value in config.items():
        if not math.isfinite(value):
            raise ConfigError(f"{spec.name}: {key} is {value:g}, expected a finite number")
    return config


def _checked(key: str, value: Any) -> Any:
    """Return the value of a setting of the run, checked."""
    if key in COUNTS:
        return _count(key, value, COUNTS[key])
    if key in NUMBERS:
        return _number(key, value, "from 0 up", lambda number: number >= 0)
    if key in BETAS:
        return _number(key, value, "from 0 up and below 1", lambda number: 0 <= number < 1)
    if key == "adam_eps":
        # Below that, a float32 is 0, and Adam would divide 0 by 0 at LoRA's A, whose first gradient is exactly 0.
        return _number(key, value, "of at least 1.2e-38", lambda number: number >= SMALLEST_FLOAT32)
    if not isinstance(value, str) or value not in SCHEDULES:
        raise ConfigError(f"{key} is {value!r}; {one_of(list(SCHEDULES), str(value))}")
    return value


def _betas(value: Any) -> dict[str, float]:
    if not isinstance(value, tuple | list) or len(value) != len(BETAS):
        raise ConfigError(f"betas is {value!r}, expected two numbers, for example (0.9, 0.95)")
    return {key: _checked(key, beta) for key, beta in zip(BETAS, value, strict=True)}


def _number(key: str, value: Any, expected: str, allows: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and allows(number)):
        raise ConfigError(f"{key} is {value!r}, expected a finite number {expected}")
    return number


def _count(key: str, value: Any, least: int) -> int:
    # The remainder of nan and of infinity is nan, which is not 0 either.
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0 or value < least:
        raise ConfigError(f"{key} is {value!r}, expected a whole number from {least} up")
    return int(value)
