"""Text on its way to a page. Python can hold half a surrogate pair (half an emoji, say); UTF-8 cannot."""

from __future__ import annotations

from typing import Any, TypeVar, cast

__all__ = ["travels"]

T = TypeVar("T")


def travels(value: T) -> T:
    r"""``value`` with every text in it, dicts and lists too, as a message can carry it, half a pair as ``\ud83d``."""
    found: Any = value
    if isinstance(found, str):
        found = found.encode("utf-8", errors="backslashreplace").decode("utf-8")
    elif isinstance(found, dict):
        found = {travels(key): travels(entry) for key, entry in found.items()}
    elif isinstance(found, list):
        found = [travels(entry) for entry in found]
    return cast(T, found)
