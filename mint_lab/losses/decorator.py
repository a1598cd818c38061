"""Turn a plain function into a loss of the registry: the ``@loss`` decorator, and what it reads from the signature.

Parameters after ``(data, logprobs_list)`` are the loss's settings: each needs a number as its default, and may declare
the range of its slider::

    @loss
    def my_loss(data, logprobs_list, beta: Annotated[float, Range(0, 1)] = 0.1): ...
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, TypeVar, overload

from ..errors import ConfigError
from . import LOSSES
from .clip import clip_by_names
from .spec import LABEL, REFERENCE, LossSpec, Param, Reduction, Unit

__all__ = ["RUN_SETTINGS", "Range", "loss", "params_of", "spec_of"]

F = TypeVar("F", bound=Callable[..., Any])

_MATH = re.compile(r":math:`([^`]*)`")
# Functions of this package, besides the losses, that read the reference log-probabilities.
_REFERENCE_READERS = {"judged_batch", "log_ratios", "reference_scores"}
# Settings of every run. A loss setting of the same name would be ambiguous.
RUN_SETTINGS = (
    *("learning_rate", "warmup_steps", "schedule", "weight_decay", "beta1", "beta2", "adam_eps", "grad_clip_norm"),
    *("batch_size", "accumulate", "steps"),
)


@dataclass(frozen=True)
class Range:
    """The range of a parameter's slider, for ``Annotated[float, Range(0, 1)]``.

    Raises:
        ConfigError: If the two are not finite numbers, or ``low`` is not below ``high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(isinstance(end, int | float) and math.isfinite(end) for end in ends) or self.low >= self.high:
            raise ConfigError(f"Range({self.low!r}, {self.high!r}): expected two numbers, the lower one first")


def params_of(fn: Callable[..., Any], name: str) -> tuple[Param, ...]:
    """Return the settings of a custom loss, read from its signature.

    Args:
        fn: A function of ``(data, logprobs_list)``, followed by parameters with numbers as defaults.
        name: Name of the loss, for messages.

    Returns:
        One :class:`Param` per setting. Without a declared :class:`Range` the slider spans 0 to ten times the default
        (0 to 1 if the default is 0). A lower end below 0, declared or from a negative default, allows negative values.

    Raises:
        ConfigError: If there are fewer than two positional parameters, or a further one has no number as its default.
    """
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: cannot read the signature of {fn!r}: {error}") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) < 2 or any(p.kind not in positional for p in parameters[:2]):
        found = ", ".join(p.name for p in parameters) or "nothing"
        raise ConfigError(f"{name}: takes ({found}), expected (data, logprobs_list, ...settings with defaults)")
    hints = _hints(fn)
    return tuple(
        _param(p, hints.get(p.name), name)
        for p in parameters[2:]
        if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    )


def _hints(fn: Callable[..., Any]) -> Mapping[str, Any]:
    # A cell may annotate with names that it never imported (``data: list[Datum]``). Then no annotation resolves, and
    # none is needed.
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception:
        return {k: v for k, v in getattr(fn, "__annotations__", {}).items() if not isinstance(v, str)}


def _param(parameter: inspect.Parameter, hint: Any, loss_name: str) -> Param:
    if parameter.name in RUN_SETTINGS:
        raise ConfigError(f"{loss_name}: {parameter.name!r} is a setting of the run itself; rename the parameter")
    default = parameter.default
    if isinstance(default, bool) or not isinstance(default, int | float) or not math.isfinite(default):
        found = "no default" if default is inspect.Parameter.empty else f"the default {default!r}"
        raise ConfigError(
            f"{loss_name}: parameter {parameter.name!r} has {found}, expected a number "
            "(settings become sliders; anything else belongs in the function's body)"
        )
    declared = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Range)), None)
    low, high = (declared.low, declared.high) if declared else (10 * min(default, 0.0), 10 * abs(default) or 1.0)
    return Param(parameter.name, float(default), float(low), float(high), minimum=0.0 if low >= 0 else -math.inf)


def spec_of(fn: Callable[..., Any], name: str | None = None, *, source: str = "") -> LossSpec:
    """Return an unregistered :class:`LossSpec` for ``fn``.

    A function made from a described one inherits the description: one that :meth:`LossSpec.bind` returned, a
    ``functools.partial`` of a bundled loss's function, or a wrapper that names it as ``__wrapped__``. Of any other
    function nobody knows the unit and the reduction; :func:`~mint_lab.preflight.preflight` finds them. A function that
    names ``"reference_logprobs"``, or one that reads it such as :func:`~mint_lab.losses.dpo.log_ratios`, has it among
    its inputs, so that a run fills it. A function that names both ``loss_fn_inputs`` and ``"label"`` has the label
    among its inputs, and its unit is a datum. Settings called ``epsilon`` or ``clip_low_threshold`` describe a clip.

    Args:
        fn: ``(data, logprobs_list, **settings) -> (loss, metrics)``.
        name: Registry key; by default the function's name.
        source: Source text, if it cannot be read from the function.

    Raises:
        ConfigError: If ``fn`` is not callable or its name is not an identifier; also as :func:`params_of`.
    """
    if not callable(fn):
        raise ConfigError(f"a loss is {fn!r}, expected a name, a LossSpec or a function (data, logprobs_list)")
    origin = _made_from(fn)
    own = getattr(fn, "__name__", "") or ("" if origin is None else origin.name)
    name = name or re.sub(r"\W", "", own) or "custom_loss"
    name = "custom_loss" if name == "lambda" else name
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a loss; use letters, digits and underscores, not a digit first")
    summary, formula = _described(inspect.getdoc(fn) or "") if hasattr(fn, "__name__") else ("", "")
    params = params_of(fn, name)
    code = getattr(inspect.unwrap(fn), "__code__", None)
    reads_label = _names_label(code)
    inputs = ((REFERENCE,) if _names_reference(code) else ()) + ((LABEL,) if reads_label else ())
    spec = LossSpec(
        name=name,
        family="custom",
        fn=fn,
        summary=summary,
        formula=formula,
        inputs=inputs,
        params=params,
        unit="datum" if reads_label else "",
        clip=clip_by_names(param.name for param in params),
        source=source,
    )
    return spec if origin is None else spec.inherit(origin)


def _made_from(fn: Callable[..., Any]) -> LossSpec | None:
    """Return the description of the loss that ``fn`` was made from; None for a function of its own."""
    seen: Any = fn
    while True:
        described = getattr(seen, "spec", None)
        if isinstance(described, LossSpec):
            return described
        known = next((spec for spec in LOSSES.values() if spec.fn is seen and not spec.builtin), None)
        if known is not None:
            return known
        inner = seen.func if isinstance(seen, functools.partial) else getattr(seen, "__wrapped__", None)
        if inner is None:
            return None
        seen = inner


def _described(docstring: str) -> tuple[str, str]:
    """Return a docstring's first paragraph without its mathematics, and the first formula in it."""
    text = " ".join(docstring.strip().split("\n\n", 1)[0].split())
    found = _MATH.search(text)
    if found is None:
        return docstring.strip().split("\n", 1)[0], ""
    rest = _MATH.sub("", f"{text[: found.start()].rstrip(' ,:')} {text[found.end() :]}")
    return re.sub(r"\s+([.,;]|$)", r"\1", " ".join(rest.split())), found[1]


def _names_reference(code: CodeType | None) -> bool:
    """Return True if code, or a function inside it, names the reference log-probabilities or one of their readers."""
    if code is None:
        return False
    readers = {
        spec.fn.__name__ for spec in LOSSES.values() if REFERENCE in spec.inputs and hasattr(spec.fn, "__name__")
    }
    readers |= _REFERENCE_READERS
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    named = REFERENCE in code.co_consts or not readers.isdisjoint(code.co_names)
    return named or any(map(_names_reference, inner))


def _names_label(code: CodeType | None) -> bool:
    """Return True if code, or a function inside it, names the label and the fields of a datum."""
    if code is None:
        return False
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return (LABEL in code.co_consts and "loss_fn_inputs" in code.co_names) or any(map(_names_label, inner))


@overload
def loss(fn: F, /) -> F: ...
@overload
def loss(
    *,
    name: str | None = None,
    like: str | LossSpec | None = None,
    formula: str = "",
    summary: str = "",
    inputs: tuple[str, ...] = (),
    unit: Unit = "",
    reduction: Reduction | None = None,
) -> Callable[[F], F]: ...
def loss(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    like: str | LossSpec | None = None,
    formula: str = "",
    summary: str = "",
    inputs: tuple[str, ...] = (),
    unit: Unit = "",
    reduction: Reduction | None = None,
) -> Any:
    """Register a function as a loss: ``@loss`` or ``@loss(name=..., formula=...)``.

    The function is returned unchanged, so that it can still be passed to any client's ``forward_backward_custom``.
    Registering a name again makes the next version, which every run that uses the loss applies at its next step.

    Args:
        fn: The function; None for the form with arguments.
        name: Registry key; by default the function's name.
        like: Name or spec of a loss that this one was made from: its unit, reduction, inputs and clip are inherited.
        formula: LaTeX without dollar signs.
        summary: One sentence; by default the docstring's first line.
        inputs: ``loss_fn_inputs`` that must be present; by default what :func:`spec_of` finds.
        unit: "datum", "pair" or "group": what the loss needs whole. "" if not known, which runs warn about.
        reduction: "sum", "mean" or "coupled": how a batch's loss follows from its units' losses.

    Raises:
        ConfigError: If ``like`` is unknown or the name is built in; also as :func:`spec_of`.
    """

    def register(function: F) -> F:
        spec = spec_of(function, name)
        if like is not None:
            spec = spec.inherit(LOSSES[like] if isinstance(like, str) else like)
        given = {"formula": formula, "summary": summary, "inputs": inputs, "unit": unit, "reduction": reduction}
        LOSSES.register(replace(spec, **{key: value for key, value in given.items() if value}))
        return function

    return register if fn is None else register(fn)
