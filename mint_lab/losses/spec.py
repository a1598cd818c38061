"""What a loss is: the two call forms, and its description.

There are two call forms and no third:

*built-in* (known by name to every server of the API), one call for the whole batch laid end to end::

    fn(target_logprobs, *, weights, sampling_logprobs=None, advantages=None, **config) -> per-token loss, (tokens,)

*custom*, MinT's own contract::

    fn(data: list[Datum], logprobs_list: list[Tensor], **config) -> (loss: scalar Tensor, metrics: dict[str, float])

``logprobs_list[i]`` has shape ``(N_i,)``, float32, and requires grad. Everything in ``data[i].loss_fn_inputs`` reaches
the function untouched.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from ..errors import ConfigError, one_of

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["CustomLoss", "Family", "LossSpec", "Param"]

CustomLoss: TypeAlias = "Callable[[list[Datum], list[torch.Tensor]], tuple[torch.Tensor, dict[str, float]]]"
Family: TypeAlias = Literal["supervised", "policy", "preference", "custom"]

# loss_fn_inputs key -> keyword of the built-in call form. "logprobs" there means the sampler's, which is easily
# mistaken for the trainer's own; inside the functions the two have different names.
BUILTIN_KEYWORDS = {"weights": "weights", "logprobs": "sampling_logprobs", "advantages": "advantages"}

# The loss_fn_inputs key of the base model's log-probabilities. A trainer fills it for a loss that lists it.
REFERENCE = "reference_logprobs"


@dataclass(frozen=True)
class Param:
    """One setting of a loss: what a slider shows and what a config is checked against.

    Attributes:
        default: used when the config does not name it.
        low, high: what a slider spans; a value outside may still be given by hand.
        doc: one line, with its unit.
        minimum, maximum: the values that make sense lie between; others are refused.
    """

    name: str
    default: float
    low: float
    high: float
    doc: str = ""
    minimum: float = 0.0
    maximum: float = math.inf

    def check(self, value: Any, loss: str) -> float:
        """``value`` as a float; raises :class:`ConfigError` when it is no number or makes no sense."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{loss}: {self.name} is {value!r}, expected a number") from None
        if not self.minimum <= number <= self.maximum:  # also true of nan
            end = "up" if self.maximum == math.inf else f"to {self.maximum:g}"
            raise ConfigError(f"{loss}: {self.name} is {number:g}, expected a number from {self.minimum:g} {end}")
        return number


@dataclass(frozen=True, repr=False)
class LossSpec:
    """A loss with all that a picker, a checker and a trainer need to know of it.

    Attributes:
        name: registry key.
        family: which shelf of the picker it stands on.
        fn: the function, in one of the two call forms of this module.
        formula: LaTeX, without dollar signs.
        summary: one sentence.
        inputs: ``loss_fn_inputs`` that must be present (``target_tokens`` aside, which always must).
        optional: ``loss_fn_inputs`` that are used when present.
        params: its settings.
        builtin: True for the built-in call form.
        separable: the batch's loss is the sum of its datums' losses, so a batch may be split freely.
        parts: of a custom loss: a batch's loss is the "sum", or the "mean" by number of datums, of the losses of its
            parts (whole pairs, where it takes pairs), or neither (""). A batch too large for memory is then computed
            part by part in one pass instead of two.
        pairs: datums come in consecutive (chosen, rejected) pairs.
        paper: where it comes from.
        version: counts up each time the name is registered again.
        source: source text of ``fn``.
    """

    name: str
    family: Family
    fn: Callable[..., Any]
    formula: str = ""
    summary: str = ""
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()
    builtin: bool = False
    separable: bool = False
    parts: str = ""
    pairs: bool = False
    paper: str = ""
    version: int = 1
    source: str = ""

    def __repr__(self) -> str:
        return f"LossSpec({self.name!r}, v{self.version}, {self.family})"

    @property
    def label(self) -> str:
        """Name and version as charts show it, for example ``my_loss v3``."""
        return f"{self.name} v{self.version}"

    def config(self, given: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Defaults overlaid with ``given``, checked.

        Raises:
            ConfigError: an unknown key, a value that is no number or makes no sense, or clip bounds that cross.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{self.name}: the settings are {given!r}, expected a dict of names to numbers")
        known = {p.name: p for p in self.params}
        config = {p.name: p.default for p in self.params}
        for key, value in (given or {}).items():
            if key not in known:
                choice = one_of(list(known), key) if known else "it takes no settings"
                raise ConfigError(f"{self.name}: unknown setting {key!r}; {choice}")
            config[key] = known[key].check(value, self.name)
        low, high = config.get("clip_low_threshold"), config.get("clip_high_threshold")
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"{self.name}: clip_low_threshold {low:g} lies above clip_high_threshold {high:g}; "
                "the ratio is clamped to [low, high]"
            )
        return config

    def bind(self, config: Mapping[str, Any] | None = None, **settings: float) -> CustomLoss:
        """The loss in the custom call form with its settings fixed, ready for ``forward_backward_custom``.

        ``bind(beta=0.5)`` is ``bind({"beta": 0.5})``.

        Raises:
            ConfigError: as :meth:`config`.
        """
        checked = {**self.config(config), **settings} if settings else config
        checked = self.config(checked)
        if self.builtin:
            return functools.partial(_builtin_as_custom, self, checked)
        if not checked and not self.parts:
            return self.fn
        bound = functools.partial(self.fn, **checked)
        bound.parts = self.parts  # pyright: ignore[reportAttributeAccessIssue], read by the trainer
        return bound


def _builtin_as_custom(
    spec: LossSpec, config: Mapping[str, float], data: list[Datum], logprobs_list: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """A built-in loss through the custom contract: the sum over all tokens of the batch."""
    total = torch.zeros((), dtype=torch.float32)
    for datum, logprobs in zip(data, logprobs_list, strict=True):
        fields = {
            word: datum.loss_fn_inputs[key].to_torch().to(logprobs)
            for key, word in BUILTIN_KEYWORDS.items()
            if key in (*spec.inputs, *spec.optional) and key in datum.loss_fn_inputs
        }
        fields.setdefault("weights", torch.ones_like(logprobs))
        total = total.to(logprobs) + spec.fn(logprobs, **fields, **config).sum()
    return total, {"loss": float(total.detach())}
