"""Text that a message can carry. A Python string can hold half a surrogate pair (half an emoji), UTF-8 cannot."""

from __future__ import annotations

from typing import Any, TypeVar, cast

__all__ = ["as_utf8"]

T = TypeVar("T")


def as_utf8(value: T) -> T:
    r"""Return ``value`` with every text in it, also in dicts and lists, encodable; half a pair becomes ``\ud83d``."""
    given: Any = value
    if isinstance(given, str):
        given = given.encode("utf-8", errors="backslashreplace").decode("utf-8")
    elif isinstance(given, dict):
        given = {as_utf8(key): as_utf8(entry) for key, entry in given.items()}
    elif isinstance(given, list):
        given = [as_utf8(entry) for entry in given]
    return cast(T, given)
