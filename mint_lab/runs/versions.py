"""The versions that a result depends on, for run folders and reports."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


@cache
def versions() -> dict[str, str]:
    """Version by distribution name; without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in ("mint_lab", "torch", "transformers", "peft", "tinker"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
