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
from .record import Edit

if TYPE_CHECKING:
    from ..types import AdamParams

__all__ = ["StepPlan", "resolve_loss"]


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
        batch_size: Items per step (pairs, examples) or per rollout (prompts).
        steps: Optimizer steps of the run in total.
        warmup_steps: Steps over which the learning rate rises linearly to its value; 0 for none.
        grad_clip_norm: A gradient with a larger norm is scaled down to this norm; 0 for no limit.
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
        """Return the plan that a run begins with. Raises as :meth:`with_loss` and :meth:`with_settings`."""
        return cls(spec, {}, 0.0, 1, 1).with_loss(spec, config).with_settings(settings)

    def adam(self, number: int) -> AdamParams:
        """Return the optimizer's settings at step ``number``, from 1; warm-up scales an edited learning rate too."""
        from ..types import AdamParams

        is_warming_up = number < self.warmup_steps
        rate = self.learning_rate * number / self.warmup_steps if is_warming_up else self.learning_rate
        return AdamParams(learning_rate=rate, grad_clip_norm=self.grad_clip_norm)

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """Lowest and highest ratio that the loss lets through with these settings; None if it clips no tokens."""
        return None if self.loss.clip is None else self.loss.clip.range(self.config)

    def settings(self) -> dict[str, float]:
        """Return the settings by name: those of the optimizer, ``batch_size``, and those of the loss."""
        names = ("learning_rate", "warmup_steps", "grad_clip_norm", "batch_size")
        return {name: getattr(self, name) for name in names} | dict(self.config)

    def entries(self) -> dict[str, Any]:
        """Return everything about the plan in plain types; the loss by its name and version."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("loss", "config")}
        described = {name: getattr(self.loss, name) for name in ("unit", "reduction", "inputs", "optional")}
        loss = {"loss": self.loss.name, "loss_version": self.loss.version, "loss_described": described}
        return own | loss | {"config": dict(self.config)}

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
            if key in ("learning_rate", "grad_clip_norm"):
                run_settings[key] = _number(key, value)
            elif key in ("batch_size", "steps", "warmup_steps"):
                run_settings[key] = _count(key, value, least=0 if key == "warmup_steps" else 1)
            elif key in self.config:
                config[key] = value
            else:
                raise ConfigError(f"unknown setting {key!r}; {one_of([*RUN_SETTINGS, *self.config], key)}")
        return replace(self, config=checked_config(self.loss, config), **run_settings)

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


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"{key} is {value!r}, expected a finite number from 0 up")
    return number


def _count(key: str, value: Any, least: int) -> int:
    # The remainder of nan and of infinity is nan, which is not 0 either.
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0 or value < least:
        raise ConfigError(f"{key} is {value!r}, expected a whole number from {least} up")
    return int(value)
