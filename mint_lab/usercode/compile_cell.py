"""Compile a cell to a function whose tracebacks show the cell's lines.

The magic line stays in the source as a comment. So line n of the source is line n of the cell in the editor, and the
source is a Python file that runs without the notebook.

What a cell defines (helper functions, constants, imports) belongs to its version only, so that a later cell, refused or
not, cannot change a loss that is training. Any other name is looked up in the notebook each time it is used, as in any
cell. Once a version is registered, its names are added to the notebook.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from ..errors import ConfigError, LossError, MintLabError

__all__ = ["CellFunction", "cell_source", "compile_cell", "shown_short"]

_SHAPE: dict[str, Callable[[str], str]] = {
    "loss": "def {}(data, logprobs_list):\n    ...\n    return loss, {{}}".format,
    "reward": "def {}(response_text, example):\n    ...\n    return 1.0".format,
}

_ALWAYS = frozenset({"__builtins__", "__name__"})  # what Python itself looks up in a module


@dataclass(frozen=True)
class CellFunction:
    """A compiled cell.

    Attributes:
        fn: The function that the cell is about.
        source: The whole cell.
        filename: File name of its code in tracebacks.
        names: What the cell defines; added to the notebook once the function is registered.
    """

    fn: Callable[..., Any]
    source: str
    filename: str
    names: dict[str, Any]


class _Scope(dict[str, Any]):
    """Global names of one version: its own first, then the notebook's."""

    def __init__(self, notebook: dict[str, Any]) -> None:
        super().__init__()
        self._notebook = notebook
        self._assigned: set[str] = set()

    def __missing__(self, name: str) -> Any:
        return self._notebook[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._notebook

    def __setitem__(self, name: str, value: Any) -> None:
        self._assigned.add(name)
        super().__setitem__(name, value)

    def run(self, code: CodeType) -> dict[str, Any]:
        """Run a cell's code and return the names that it assigned."""
        given = {name: value for name, value in self._notebook.items() if name not in self.keys()}
        self.update(given)  # the body of a class looks names up here directly, without __missing__
        exec(code, self)
        own = {
            name: value
            for name, value in self.items()
            if name in self._assigned or (name not in _ALWAYS and value is not given.get(name, self))
        }
        for name in given.keys() - own.keys() - _ALWAYS:
            self.pop(name, None)
        return own


def cell_source(line: str, body: str, imports: Sequence[str] = (), kind: str = "loss") -> str:
    """Return the cell as a Python file.

    Args:
        line: What follows ``%%loss`` (or another ``kind``).
        body: The lines below.
        imports: Import statements that the body needs; they share the first line, so that line numbers stay.
        kind: "loss" or "reward".
    """
    before = "; ".join(imports) + "  " if imports else ""
    return f"{before}# %%{kind} {line.strip()}\n{body}" + ("" if body.endswith("\n") else "\n")


def compile_cell(  # noqa: PLR0917
    source: str, name: str, version: int, namespace: dict[str, Any], kind: str = "loss", before: Sequence[str] = ()
) -> CellFunction:
    """Run a cell's source in a separate scope and pick the function that the cell is about.

    That is the function called ``name``, or else the last one that takes two arguments and is not a helper of another.

    Args:
        source: What :func:`cell_source` returned.
        name: Name of the loss or reward.
        version: The version to be registered. Each version has its own file name, so that a traceback from a run that
            still uses an older version shows the older text.
        namespace: The notebook's names, to look names up in; it is not written to.
        kind: "loss" or "reward".
        before: Statements to run first in the same scope.

    Raises:
        SyntaxError: If the cell is not Python; also whatever the cell raises when it runs.
        ConfigError: If the cell defines no function of two arguments.
    """
    filename = f"<{kind} {name} v{version}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    code = compile(source, filename, "exec", dont_inherit=True)
    scope = _Scope(namespace)
    names = scope.run(compile("\n".join(before), filename, "exec", dont_inherit=True)) if before else {}
    names |= scope.run(code)
    functions = [
        value for value in names.values() if isinstance(value, FunctionType) and value.__code__.co_filename == filename
    ]
    # A function of the loss's name is meant even if it takes other parameters, and is then refused for these.
    defined = [f for f in functions if _takes_two(f) or f.__name__ == name]
    if not defined:
        raise ConfigError(f"the cell defines no function for the {kind} {name!r}; expected\n{_SHAPE[kind](name)}")
    named = [f for f in defined if f.__name__ == name]
    helpers = {name for f in functions for name in _named_in(f.__code__) - {f.__name__}}
    heads = [f for f in defined if f.__name__ not in helpers] or defined
    fn = named[-1] if named else max(heads, key=lambda f: f.__code__.co_firstlineno)
    return CellFunction(fn, source, filename, names)


def _named_in(code: CodeType) -> set[str]:
    """Return the names that code looks up, functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_named_in, inner))


def _takes_two(fn: FunctionType) -> bool:
    parameters = list(inspect.signature(fn).parameters.values())
    return len(parameters) >= 2 and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:2])


def shown_short(error: Exception, kind: str, message: str = "") -> Exception:
    """Return ``error`` so that IPython shows only the lines of the cell instead of the whole stack.

    Args:
        error: What a ``kind`` cell raised.
        kind: "loss" or "reward".
        message: Shown instead of the error's message.
    """
    if isinstance(error, SyntaxError):  # IPython would show the stack above the cell as well
        where = f"line {error.lineno}: {(error.text or '').strip()}\n" if error.lineno else ""
        error = LossError(f"the cell is not valid Python, {where}{error.msg}", line=error.lineno)
    if message:
        lines = [f"LossError: {message}"]
    elif isinstance(error, MintLabError):
        lines = [f"{type(error).__name__}: {error}"]
    else:
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(f"<{kind} ")]
        lines = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    text = "".join(lines).rstrip().split("\n")
    error._render_traceback_ = lambda: text  # pyright: ignore[reportAttributeAccessIssue]  # IPython's own hook
    return error
