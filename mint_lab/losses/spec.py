"""What a loss is: the two call forms, and the description that every other part of the package reads.

There are two call forms:

*built-in* (every server of the API knows it by name), one call for the whole batch, its sequences concatenated::

    fn(target_logprobs, *, weights, sampling_logprobs=None, advantages=None, **config) -> per-token loss, (tokens,)

*custom*, MinT's contract::

    fn(data: list[Datum], logprobs_list: list[Tensor], **config) -> (loss: scalar Tensor, metrics: dict[str, float])

``logprobs_list[i]`` has shape ``(N_i,)``, float32, and requires grad. Everything in ``data[i].loss_fn_inputs`` reaches
the function unchanged.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from ..errors import ConfigError, one_of
from .clip import RatioClip

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["CustomLoss", "DataKind", "Family", "LossSpec", "Param", "Reduction", "Unit"]

CustomLoss: TypeAlias = "Callable[[list[Datum], list[torch.Tensor]], tuple[torch.Tensor, dict[str, float]]]"
Family: TypeAlias = Literal["supervised", "policy", "preference", "custom"]

Unit: TypeAlias = Literal["datum", "pair", "group", ""]
"""What a loss needs whole: a datum, a consecutive (chosen, rejected) pair, all samples of a prompt; "" if unknown."""

Reduction: TypeAlias = Literal["sum", "mean", "coupled"]
"""How a batch's loss follows from the losses of its units: their sum, their mean, or neither."""

# loss_fn_inputs key -> keyword of the built-in call form. "logprobs" there means the sampler's log-probabilities, which
# are easily mistaken for the trainer's; inside the functions the two have different names.
BUILTIN_KEYWORDS = {"weights": "weights", "logprobs": "sampling_logprobs", "advantages": "advantages"}

# The loss_fn_inputs key of the reference model's log-probabilities. A trainer fills it for a loss that lists it.
REFERENCE = "reference_logprobs"

# The loss_fn_inputs key that says whether a completion is desirable: one number of shape (1,), 1 or 0.
LABEL = "label"


@dataclass(frozen=True)
class Param:
    """One setting of a loss: what a slider shows, and what a given value is checked against.

    Attributes:
        name: Keyword of the loss function.
        default: Value if a config does not name the setting.
        low, high: Range of the slider. A value outside can still be set in code.
        doc: One line, with the unit.
        minimum, maximum: Bounds of valid values; others are refused.
    """

    name: str
    default: float
    low: float
    high: float
    doc: str = ""
    minimum: float = 0.0
    maximum: float = math.inf

    def check(self, value: Any, loss: str) -> float:
        """Return ``value`` as a float.

        Raises:
            ConfigError: If the value is not a number or lies outside the valid range.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{loss}: {self.name} is {value!r}, expected a number") from None
        if not self.minimum <= number <= self.maximum:  # also true of nan
            end = "up" if self.maximum == math.inf else f"to {self.maximum:g}"
            raise ConfigError(f"{loss}: {self.name} is {number:g}, expected a number from {self.minimum:g} {end}")
        return number


@dataclass(frozen=True)
class DataKind:
    """What the datums of a recipe, or of a person, consist of: what :meth:`LossSpec.unfit` compares a loss with.

    Attributes:
        fields: ``loss_fn_inputs`` that every datum has, or that the trainer adds when a loss reads them.
        unit: What a batch consists of; "" if unknown.
        signal: The field that carries what is to be learned, ``advantages`` or ``label``; "" if it is in the tokens.
    """

    fields: frozenset[str]
    unit: Unit = ""
    signal: str = ""


@dataclass(frozen=True, repr=False)
class LossSpec:
    """A loss and everything that a picker, a check, a chart or a trainer asks about it.

    A loss made from another one (``%%loss --from``, "Edit as a cell", ``@loss(like=...)``, :meth:`bind`) inherits this
    description with :meth:`inherit`.

    Attributes:
        name: Registry key.
        family: Group of the loss in the picker.
        fn: The function, in one of the two call forms of this module.
        formula: LaTeX, without dollar signs.
        summary: One sentence.
        inputs: ``loss_fn_inputs`` that must be present (besides ``target_tokens``, which always must).
        optional: ``loss_fn_inputs`` that are used if present.
        params: The settings.
        builtin: True for the built-in call form.
        unit: What the loss needs whole; a batch is split only between units. "" for a custom loss that was not checked.
        reduction: How a batch's loss follows from its units' losses. A batch that exceeds the token budget takes one
            pass for "sum" and "mean", two for "coupled".
        clip: Which tokens the loss clips; None if it clips none, or clips whole samples.
        paper: URL of the source.
        version: Increases each time the name is registered again.
        source: Source text of ``fn``.
        origin: Name of the loss that this one was made from; "" if none.
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
    unit: Unit = ""
    reduction: Reduction = "coupled"
    clip: RatioClip | None = None
    paper: str = ""
    version: int = 1
    source: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        # A clip without the settings that bound it says nothing: a copy may have dropped them.
        if self.clip is not None and not self.clip.settings <= {param.name for param in self.params}:
            object.__setattr__(self, "clip", None)

    def __repr__(self) -> str:
        return f"LossSpec({self.name!r}, v{self.version}, {self.family})"

    @property
    def label(self) -> str:
        """Name and version as charts show them, for example ``my_loss v3``."""
        return f"{self.name} v{self.version}"

    def unfit(self, kind: DataKind) -> str | None:
        """Return why this loss cannot train on data of ``kind``, as a phrase that follows its name; None if it can.

        This is the one rule: a run, the page, a comparison, the command line and preflight all ask here. A loss whose
        unit is unknown is not refused for its unit. A loss on pairs that reads ``label`` also takes single datums that
        have it.
        """
        missing = [name for name in self.inputs if name not in kind.fields]
        if missing:
            return f"needs {' and '.join(missing)}, which this data does not have"
        takes_labels = LABEL in (*self.inputs, *self.optional)
        if self.unit == "pair" and kind.unit in ("datum", "group") and not (takes_labels and LABEL in kind.fields):
            return f"needs pairs of chosen and rejected{', or a label for each completion' if takes_labels else ''}"
        if self.unit == "group" and kind.unit in ("datum", "pair"):
            return "needs groups of samples of one prompt"
        if self.unit == "datum" and kind.unit == "pair":
            return "does not tell chosen from rejected"
        # What a custom function reads cannot be told from its signature, so only described losses are held to it.
        if kind.signal and self.family != "custom" and kind.signal not in (*self.inputs, *self.optional):
            return f"does not read {kind.signal}"
        return None

    def inherit(self, origin: LossSpec) -> LossSpec:
        """Return this loss with what its own function does not say taken from ``origin``, which it was made from.

        Inherited are the unit, the reduction, the inputs, the ranges of settings of the same name, and the clip if the
        settings that bound it are still there. The formula, summary and paper are this loss's own, if it has any.
        """
        known = {p.name: p for p in origin.params}
        params = tuple(replace(known[p.name], default=p.default) if p.name in known else p for p in self.params)
        return replace(
            self,
            inputs=tuple(dict.fromkeys((*origin.inputs, *self.inputs))),
            optional=tuple(dict.fromkeys((*origin.optional, *self.optional))),
            params=params,
            unit=origin.unit,
            reduction=origin.reduction,
            clip=origin.clip,
            summary=self.summary or origin.summary,
            origin=origin.name,
        )

    def config(self, given: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Return the defaults overlaid with ``given``, checked.

        Raises:
            ConfigError: If a key is unknown, a value is not a valid number, or the clip bounds cross.
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
        """Return the loss in the custom call form with fixed settings, ready for ``forward_backward_custom``.

        ``bind(beta=0.5)`` is ``bind({"beta": 0.5})``. The function carries its description as the attribute ``spec``,
        with the fixed settings as defaults: a trainer reads the reduction there, and a run that is given the function
        inherits the rest.

        Raises:
            ConfigError: As :meth:`config`.
        """
        checked = self.config({**self.config(config), **settings})
        bound: Any = functools.partial(self.fn, **checked)
        if self.builtin:
            bound = functools.partial(_builtin_as_custom, self, checked)
        bound.spec = replace(self, params=tuple(replace(p, default=checked[p.name]) for p in self.params))
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
