"""The losses as the page's picker shows them, with the reason why a loss cannot be used."""

from __future__ import annotations

from ..losses import LOSSES, DataKind, LossSpec, Param
from .messages import InputEntry, LossEntry, ParamEntry
from .utf8 import as_utf8

__all__ = ["loss_catalogue", "param_entry"]

LOG_SCALE_FACTOR = 50.0  # a slider is logarithmic if its ends differ by more than this factor


def loss_catalogue(kind: DataKind) -> list[LossEntry]:
    """Return all registered losses; those that fit data of this kind come first."""
    entries = as_utf8([_entry(spec, kind) for spec in LOSSES.values()])
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def param_entry(param: Param) -> ParamEntry:
    """Return a setting as a slider shows it."""
    is_log = param.low > 0 and param.high / param.low > LOG_SCALE_FACTOR
    return ParamEntry(
        name=param.name,
        default=param.default,
        low=param.low,
        high=param.high,
        minimum=param.minimum,
        doc=param.doc,
        scale="log" if is_log else "linear",
    )


def _entry(spec: LossSpec, kind: DataKind) -> LossEntry:
    return LossEntry(
        name=spec.name,
        label=spec.label,
        family=spec.family,
        formula=spec.formula,
        summary=spec.summary,
        paper=spec.paper,
        inputs=[InputEntry(name=name, here=name in kind.fields) for name in spec.inputs],
        params=[param_entry(param) for param in spec.params],
        reason=spec.unfit(kind) or "",
    )
