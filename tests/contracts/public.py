"""Writes down every public name: ``python -m tests.contracts.public > tests/contracts/public.txt``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import mint_lab
from mint_lab.cli import app
from mint_lab.client.sampling import SamplingClient
from mint_lab.client.training import TrainingClient

MODULES = ("losses", "metrics", "data", "ui", "errors")
# Classes whose methods are promised as well.
WITH_METHODS = ("Run", "SamplingClient", "ServiceClient", "TrainingClient")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe() -> str:
    """The public face as text, one name a line."""
    lines = ["mint_lab"]
    lines += [f"  {line}" for name in sorted(mint_lab.__all__) for line in entry(name, getattr(mint_lab, name))]
    lines += ["", "what a ServiceClient makes"]
    lines += [f"  {line}" for made in (SamplingClient, TrainingClient) for line in entry(made.__name__, made)]
    for module in MODULES:
        members = getattr(mint_lab, module)
        lines += ["", f"mint_lab.{module}"]
        lines += [f"  {line}" for name in sorted(members.__all__) for line in entry(name, getattr(members, name))]
    lines += ["", "mint-lab"]
    lines += [
        f"  {command.name or command.callback.__name__}" for command in app.registered_commands if command.callback
    ]
    return "\n".join(lines) + "\n"


def entry(name: str, value: Any) -> Iterator[str]:
    """One name with its signature, and the methods of those classes that have them pinned."""
    if isinstance(value, type) and issubclass(value, Exception):
        kinds = ", ".join(base.__name__ for base in value.__mro__[1:] if base not in (object, BaseException, Exception))
        yield f"{name}: {kinds or 'Exception'}"
    elif callable(value):
        yield f"{name}{signature(value)}"
    elif isinstance(value, ModuleType) or name == "__version__":
        yield name
    else:
        yield f"{name}: {type(value).__name__}"
    if name in WITH_METHODS:
        for member, method in sorted(inspect.getmembers(value)):
            if not member.startswith("_") and not callable(method):
                yield f"  .{member}"
            elif not member.startswith("_"):
                yield f"  .{member}{signature(method)}"


def signature(value: Any) -> str:
    """Parameters with their defaults, annotations left out: those are the type checker's."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    shown = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name != "self"])
    return ADDRESS.sub("", str(shown))


if __name__ == "__main__":
    print(describe(), end="")
