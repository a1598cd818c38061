"""Versions of Python and the libraries that the result of a run depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

DISTRIBUTIONS = ("mint_lab", "torch", "transformers", "peft", "tinker")


@cache
def versions() -> dict[str, str]:
    """Return the version of Python and of each distribution that is installed, by name."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
