"""From the text of a cell to a function whose tracebacks show the cell's own lines.

The magic line stays in the source as a comment. So line n of the source is line n of the cell as the editor numbers it,
and the source is a Python file that runs by itself.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from ..errors import ConfigError

__all__ = ["CellFunction", "cell_source", "compile_cell"]


@dataclass(frozen=True)
class CellFunction:
    """A function a cell defined, the whole cell as source, and the file name its code goes by in tracebacks."""

    fn: Callable[..., Any]
    source: str
    filename: str


def cell_source(line: str, body: str) -> str:
    """The cell as a Python file: ``line`` is what follows ``%%loss``, ``body`` all lines after it."""
    return f"# %%loss {line.strip()}\n{body}" + ("" if body.endswith("\n") else "\n")


def compile_cell(source: str, name: str, version: int, namespace: dict[str, Any]) -> CellFunction:
    """Run a cell's source in ``namespace`` and pick the function it is about.

    That is the one called ``name``, or else the last one the cell defines that can be called with two arguments.

    Args:
        source: as :func:`cell_source` makes it.
        version: that the loss will have; each version has a file name of its own, so that a traceback from a run that
            still uses the older one shows the older text.
        namespace: the user's; what the cell defines is there afterwards, as with any cell.

    Raises:
        SyntaxError: and whatever the cell raises when it is run.
        ConfigError: it defines no function that can be a loss.
    """
    filename = f"<loss {name} v{version}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    code = compile(source, filename, "exec", dont_inherit=True)
    exec(code, namespace)
    defined = [
        value
        for value in namespace.values()
        if isinstance(value, FunctionType) and value.__code__.co_filename == filename and _takes_two(value)
    ]
    if not defined:
        raise ConfigError(
            f"the cell defines no function for the loss {name!r}; expected\n"
            f"def {name}(data, logprobs_list):\n    ...\n    return loss, {{}}"
        )
    named = [f for f in defined if f.__name__ == name]
    fn = named[-1] if named else max(defined, key=lambda f: f.__code__.co_firstlineno)
    return CellFunction(fn, source, filename)


def _takes_two(fn: FunctionType) -> bool:
    parameters = list(inspect.signature(fn).parameters.values())
    return len(parameters) >= 2 and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:2])
