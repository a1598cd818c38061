"""Turn a plain function into a loss of the registry: the ``@loss`` decorator, and what it reads off the signature.

Parameters after ``(data, logprobs_list)`` are the loss's settings: each needs a number as its default, and may declare
what a slider spans::

    @loss
    def my_loss(data, logprobs_list, beta: Annotated[float, Range(0, 1)] = 0.1): ...
"""

from __future__ import annotations

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
from .spec import REFERENCE, LossSpec, Param

__all__ = ["RUN_SETTINGS", "Range", "loss", "params_of", "spec_of"]

F = TypeVar("F", bound=Callable[..., Any])

_MATH = re.compile(r":math:`([^`]*)`")
# Settings of every run. A loss with a setting of that name could not be told apart from them.
RUN_SETTINGS = ("learning_rate", "warmup_steps", "grad_clip_norm", "batch_size", "steps")


@dataclass(frozen=True)
class Range:
    """What a parameter's slider spans, from ``low`` to ``high``, for ``Annotated[float, Range(0, 1)]``.

    Raises:
        ConfigError: the two are no finite numbers, or ``low`` does not lie below ``high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(isinstance(end, int | float) and math.isfinite(end) for end in ends) or self.low >= self.high:
            raise ConfigError(f"Range({self.low!r}, {self.high!r}): expected two numbers, the lower one first")


def params_of(fn: Callable[..., Any], name: str) -> tuple[Param, ...]:
    """The settings of a custom loss, read off its signature.

    Args:
        fn: a function of ``(data, logprobs_list)`` and, after these, parameters with numbers as defaults.
        name: of the loss, for messages.

    Returns:
        One :class:`Param` each. Without a declared :class:`Range` the slider spans 0 to ten times the default (0 to 1
        where that is 0); a lower end below 0, declared or because the default is negative, allows negative values.

    Raises:
        ConfigError: fewer than two parameters to call it with, or a further one whose default is missing or no number.
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
    # A cell may annotate with names it never imported (``data: list[Datum]``): then no annotation resolves, and none
    # is needed.
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
    """A :class:`LossSpec` of family "custom" for ``fn``, not registered yet.

    A function that names ``"reference_logprobs"``, or one that reads it such as
    :func:`~mint_lab.losses.dpo.log_ratios`, has it among its inputs, so that a run fills it.

    Args:
        fn: ``(data, logprobs_list, **settings) -> (loss, metrics)``.
        name: registry key; by default the function's own name.
        source: source text, where it cannot be read off the function.

    Raises:
        ConfigError: ``fn`` is not callable, its name is no identifier, or as :func:`params_of`.
    """
    if not callable(fn):
        raise ConfigError(f"a loss is {fn!r}, expected a name, a LossSpec or a function (data, logprobs_list)")
    name = name or re.sub(r"\W", "", getattr(fn, "__name__", "")) or "custom_loss"
    name = "custom_loss" if name == "lambda" else name
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a loss; use letters, digits and underscores, not a digit first")
    summary, formula = _described(inspect.getdoc(fn) or "") if hasattr(fn, "__name__") else ("", "")
    params = params_of(fn, name)
    inputs = (REFERENCE,) if _names_reference(getattr(inspect.unwrap(fn), "__code__", None)) else ()
    return LossSpec(
        name=name, family="custom", fn=fn, summary=summary, formula=formula, inputs=inputs, params=params, source=source
    )


def _described(docstring: str) -> tuple[str, str]:
    """A docstring's first paragraph without its mathematics, and the first formula in it."""
    text = " ".join(docstring.strip().split("\n\n", 1)[0].split())
    found = _MATH.search(text)
    if found is None:
        return docstring.strip().split("\n", 1)[0], ""
    rest = _MATH.sub("", f"{text[: found.start()].rstrip(' ,:')} {text[found.end() :]}")
    return re.sub(r"\s+([.,;]|$)", r"\1", " ".join(rest.split())), found[1]


def _names_reference(code: CodeType | None) -> bool:
    """Whether code, or a function inside it, names the reference log-probabilities or a function that reads them."""
    if code is None:
        return False
    readers = {
        spec.fn.__name__ for spec in LOSSES.values() if REFERENCE in spec.inputs and hasattr(spec.fn, "__name__")
    }
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    named = REFERENCE in code.co_consts or not readers.isdisjoint(code.co_names) or "log_ratios" in code.co_names
    return named or any(map(_names_reference, inner))


@overload
def loss(fn: F, /) -> F: ...
@overload
def loss(
    *, name: str | None = None, formula: str = "", summary: str = "", inputs: tuple[str, ...] = ()
) -> Callable[[F], F]: ...
def loss(
    fn: Any = None, /, *, name: str | None = None, formula: str = "", summary: str = "", inputs: tuple[str, ...] = ()
) -> Any:
    """Register a function as a loss: ``@loss`` or ``@loss(name=..., formula=...)``.

    The function itself comes back unchanged, so that it can still be passed to any client's
    ``forward_backward_custom``. Registering a name again makes the next version, which every run that uses it takes
    at its next step.

    Args:
        name: registry key; by default the function's own name.
        formula: LaTeX without dollar signs.
        summary: one sentence; by default the docstring's first line.
        inputs: ``loss_fn_inputs`` that must be present; by default what :func:`spec_of` finds.

    Raises:
        ConfigError: as :func:`spec_of`, or the name is built in.
    """

    def register(function: F) -> F:
        spec = spec_of(function, name)
        LOSSES.register(
            replace(
                spec, formula=formula or spec.formula, summary=summary or spec.summary, inputs=inputs or spec.inputs
            )
        )
        return function

    return register if fn is None else register(fn)
