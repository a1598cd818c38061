"""What the entries of a run's files say, checked: a person may have edited them, and a disk may have spoilt them.

Every function raises ValueError with what was found, and what was expected, in words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ..recipes.record import Edit, LossVersion, StepRecord

__all__ = ["LARGEST_FLOAT", "an_object", "edit_of", "loss_of", "numbers", "record_of", "typed"]

LARGEST_FLOAT = sys.float_info.max  # JSON holds larger numbers
_KINDS: dict[type, str] = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}


def record_of(entry: Mapping[str, Any]) -> StepRecord:
    """A line of ``records.jsonl``."""
    histograms = typed(entry, "histograms", dict, {})
    return StepRecord(
        step=typed(entry, "step", int),
        time=_number(entry.get("time"), "time"),
        step_time=_number(entry.get("step_time"), "step_time"),
        tokens=typed(entry, "tokens", int),
        loss_name=typed(entry, "loss_name", str),
        loss_version=typed(entry, "loss_version", int),
        metrics=numbers(entry, "metrics"),
        held_out=numbers(entry, "held_out"),
        histograms={
            name: [_check(n, int, f"histograms/{name}") for n in typed(histograms, name, list)] for name in histograms
        },
        settings=numbers(entry, "settings"),
        warnings=[_check(text, str, "warnings") for text in typed(entry, "warnings", list, [])],
        samples=[_check(sample, dict, "samples") for sample in typed(entry, "samples", list, [])],
    )


def edit_of(entry: Mapping[str, Any]) -> Edit:
    """A line of ``edits.jsonl``."""
    return Edit(typed(entry, "step", int), typed(entry, "kind", str), typed(entry, "label", str))


def loss_of(entry: Mapping[str, Any]) -> LossVersion:
    """A line of ``losses.jsonl``, without the source, which has a file of its own."""
    step, name, version = typed(entry, "step", int), typed(entry, "name", str), typed(entry, "version", int)
    return LossVersion(step, name, version, "", numbers(entry, "config"))


def typed(entry: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """``entry[key]``, which has to be a ``kind``; ``default`` where it is missing."""
    return _check(entry.get(key, default), kind, key)


def an_object(value: Any) -> dict[str, Any]:
    """``value``, which has to be an object."""
    return _check(value, dict, "it")


def numbers(entry: Mapping[str, Any], key: str) -> dict[str, float]:
    """Numbers by name under ``key``, the texts "nan", "inf" and "-inf" among them; none where it is missing."""
    return {name: _number(value, f"{key}/{name}") for name, value in typed(entry, key, dict, {}).items()}


def _check(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{what} is {_shown(value)}, expected {_KINDS[kind]}")
    return value


def _number(value: Any, what: str) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    too_large = isinstance(value, int) and abs(value) > LARGEST_FLOAT
    if not isinstance(value, int | float) or isinstance(value, bool) or too_large:
        raise ValueError(f"{what} is {_shown(value)}, expected a number")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
