"""The losses as a picker shows them, with the reason why one cannot be used here."""

from __future__ import annotations

from ..losses import LOSSES, DataKind, LossSpec, Param
from .protocol import InputEntry, LossEntry, ParamEntry
from .wire import travels

__all__ = ["loss_catalogue", "param_entry"]

_LOG_SPAN = 50.0  # a slider whose ends differ by more than this factor is logarithmic


def loss_catalogue(kind: DataKind) -> list[LossEntry]:
    """Return every registered loss, those that fit data of this kind first."""
    entries = travels([_entry(spec, kind) for spec in LOSSES.values()])
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def param_entry(param: Param) -> ParamEntry:
    """Return a setting as a slider shows it."""
    log = param.low > 0 and param.high / param.low > _LOG_SPAN
    return ParamEntry(
        name=param.name,
        default=param.default,
        low=param.low,
        high=param.high,
        minimum=param.minimum,
        doc=param.doc,
        scale="log" if log else "linear",
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
