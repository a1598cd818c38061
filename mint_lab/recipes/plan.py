"""What the next step will be made with: loss, its settings, learning rate, batch size, number of steps.

A plan never changes; an edit makes a new one. The worker takes whatever plan is current when a step begins and keeps
it to the step's end, which is why no edit can reach into the middle of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, one_of
from ..losses import LOSSES, LossSpec, Param
from ..losses.decorator import RUN_SETTINGS, spec_of
from .record import Edit

if TYPE_CHECKING:
    from ..types import AdamParams

__all__ = ["StepPlan", "resolve_loss"]


def resolve_loss(loss: str | LossSpec | Callable[..., Any]) -> LossSpec:
    """The spec meant by a name, a spec, or a plain function, which is registered as a custom loss of its own.

    A function that is registered already keeps its name and version; one whose name another function has gets the
    next free name, so that it takes the place of none.

    Raises:
        ConfigError: an unknown name, or a function that cannot be a loss.
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
        loss: the loss in use.
        config: its settings, complete and checked.
        learning_rate: of AdamW.
        batch_size: items a step (pairs, or prompt-completion examples).
        steps: optimizer steps in all.
        warmup_steps: steps over which the learning rate rises evenly to its value; 0 for none.
        grad_clip_norm: longest gradient that is applied as it is, a longer one is scaled to it; 0 for no limit.
    """

    loss: LossSpec
    config: Mapping[str, float]
    learning_rate: float
    batch_size: int
    steps: int
    warmup_steps: int = 0
    grad_clip_norm: float = 0.0

    @classmethod
    def first(cls, spec: LossSpec, config: Mapping[str, Any], **settings: Any) -> StepPlan:
        """The plan that a run begins with. Raises as :meth:`with_loss` and :meth:`with_settings`."""
        return cls(spec, {}, 0.0, 1, 1).with_loss(spec, config).with_settings(settings)

    def adam(self, number: int) -> AdamParams:
        """How the optimizer makes step ``number``, from 1; an edited learning rate is warmed up by the same share."""
        from ..types import AdamParams

        rising = number < self.warmup_steps
        rate = self.learning_rate * number / self.warmup_steps if rising else self.learning_rate
        return AdamParams(learning_rate=rate, grad_clip_norm=self.grad_clip_norm)

    def settings(self) -> dict[str, float]:
        """What shapes a step, by name: those of the optimizer, ``batch_size`` and the loss's own settings."""
        names = ("learning_rate", "warmup_steps", "grad_clip_norm", "batch_size")
        return {name: getattr(self, name) for name in names} | dict(self.config)

    def params(self) -> list[Param]:
        """The settings a slider may show: the learning rate and the loss's own."""
        rate = Param("learning_rate", self.learning_rate, 1e-5, 1e-2, "AdamW step size")
        return [rate, *self.loss.params]

    def with_loss(self, spec: LossSpec, config: Mapping[str, Any]) -> StepPlan:
        """This plan with another loss.

        A new version of the same loss keeps what was set by hand, as far as it still has such a setting; what stood at
        the old version's default goes to the new one's.

        Raises:
            ConfigError: a setting that ``spec`` does not know or refuses, or a setting named like the run's own.
        """
        clash = [p.name for p in spec.params if p.name in RUN_SETTINGS]
        if clash:
            raise ConfigError(f"{spec.name}: {clash[0]!r} is a setting of the run itself; rename the parameter")
        kept: dict[str, Any] = {}
        if spec.name == self.loss.name:
            defaults = {p.name: p.default for p in self.loss.params}
            chosen = {k: v for k, v in self.config.items() if v != defaults.get(k)}
            kept = {
                p.name: chosen[p.name] for p in spec.params if p.minimum <= chosen.get(p.name, math.nan) <= p.maximum
            }
        return replace(self, loss=spec, config=checked_config(spec, {**kept, **config}))

    def with_settings(self, changes: Mapping[str, Any]) -> StepPlan:
        """This plan with other settings.

        Raises:
            ConfigError: an unknown setting, or a value that makes no sense for it.
        """
        own: dict[str, Any] = {}
        config: dict[str, Any] = dict(self.config)
        for key, value in changes.items():
            if key in ("learning_rate", "grad_clip_norm"):
                own[key] = _number(key, value)
            elif key in ("batch_size", "steps", "warmup_steps"):
                own[key] = _count(key, value, least=0 if key == "warmup_steps" else 1)
            elif key in self.config:
                config[key] = value
            else:
                raise ConfigError(f"unknown setting {key!r}; {one_of([*RUN_SETTINGS, *self.config], key)}")
        return replace(self, config=checked_config(self.loss, config), **own)

    def edits_since(self, earlier: StepPlan, step: int) -> list[Edit]:
        """The marks a chart sets before ``step``, when the step before it ran with ``earlier``."""
        edits = []
        if (self.loss.name, self.loss.version) != (earlier.loss.name, earlier.loss.version):
            edits.append(Edit(step, "loss", self.loss.label))
            # Settings that came with another loss are part of that change, not changes of their own.
            if self.loss.name != earlier.loss.name:
                earlier = replace(earlier, config=self.config)
        before = earlier.settings()
        edits += [
            Edit(step, "setting", f"{key} {value:g}")
            for key, value in self.settings().items()
            if key in before and before[key] != value
        ]
        return edits


def checked_config(spec: LossSpec, given: Mapping[str, Any]) -> dict[str, float]:
    """``spec.config(given)``, which also refuses infinity.

    Raises:
        ConfigError: as :meth:`LossSpec.config`, or a value that is not finite.
    """
    config = spec.config(given)
    for key, value in config.items():
        if not math.isfinite(value):
            raise ConfigError(f"{spec.name}: {key} is {value:g}, expected a finite number")
    return config


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"{key} is {value!r}, expected a finite number from 0 up")
    return number


def _count(key: str, value: Any, least: int) -> int:
    # nan and infinity leave a remainder that is nan, which is not 0 either.
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0 or value < least:
        raise ConfigError(f"{key} is {value!r}, expected a whole number from {least} up")
    return int(value)
