"""The losses as a picker shows them, and why one cannot be used with a recipe."""

from __future__ import annotations

from ..losses import LOSSES, LossSpec, Param
from ..losses.spec import REFERENCE
from .protocol import InputEntry, LossEntry, ParamEntry
from .wire import travels

__all__ = ["catalogue", "param_entry", "unusable_because"]

# What the recipes' data have; a trainer adds the reference log-probabilities when a loss reads them.
_FIELDS = {
    "preference": {"weights", REFERENCE},
    "sft": {"weights", REFERENCE},
    "rl": {"weights", "logprobs", "advantages", REFERENCE},
}
_LOG_FROM = 50.0  # a slider that spans more than this factor is divided logarithmically


def catalogue(recipe: str) -> list[LossEntry]:
    """Every registered loss, those that fit the recipe first."""
    entries = travels([_entry(spec, recipe) for spec in LOSSES.values()])
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def unusable_because(spec: LossSpec, recipe: str) -> str:
    """Why ``spec`` cannot train this recipe's data; empty when it can."""
    missing = [name for name in spec.inputs if name not in _fields(recipe)]
    if missing:
        return f"needs {' and '.join(missing)}, which this data does not have"
    if spec.pairs and recipe != "preference":
        return "needs pairs of chosen and rejected"
    if recipe == "preference" and not spec.pairs and spec.family != "custom":
        return "does not tell chosen from rejected"
    if recipe == "rl" and spec.family not in ("policy", "custom"):
        return "does not read advantages"
    return ""


def param_entry(param: Param) -> ParamEntry:
    """A setting as a slider shows it."""
    log = param.low > 0 and param.high / param.low > _LOG_FROM
    return ParamEntry(
        name=param.name,
        default=param.default,
        low=param.low,
        high=param.high,
        minimum=param.minimum,
        doc=param.doc,
        scale="log" if log else "linear",
    )


def _fields(recipe: str) -> set[str]:
    return _FIELDS.get(recipe, {"weights", REFERENCE})


def _entry(spec: LossSpec, recipe: str) -> LossEntry:
    return LossEntry(
        name=spec.name,
        label=spec.label,
        family=spec.family,
        formula=spec.formula,
        summary=spec.summary,
        paper=spec.paper,
        inputs=[InputEntry(name=name, here=name in _fields(recipe)) for name in spec.inputs],
        params=[param_entry(param) for param in spec.params],
        reason=unusable_because(spec, recipe),
    )
