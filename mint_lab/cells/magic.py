"""``%%loss NAME``: write a loss in a cell; running the cell checks and registers it.

::

    %%loss my_margin_loss --beta 0.5
    def my_margin_loss(data, logprobs_list, beta=0.1):
        ...
        return loss, {"pair_accuracy": ...}

Options: ``--no-preflight`` registers without checking; ``--PARAMETER VALUE`` replaces a parameter's default. Running
the cell again makes the next version, which every run that uses the loss takes at its next step.
"""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, LossError, MintLabError, one_of
from ..losses import LOSSES, LossSpec
from ..losses.custom import spec_of
from ..losses.preflight import Report, preflight
from ..runs.samples import sample_data
from .source import cell_source, compile_cell

__all__ = ["LossCell", "loss_cell", "run_cell"]


@dataclass(frozen=True)
class LossCell:
    """What running a ``%%loss`` cell gives: the registered loss and what preflight found (None: it was skipped)."""

    spec: LossSpec
    report: Report | None

    def __repr__(self) -> str:
        settings = ", ".join(f"{p.name} {p.default:g}" for p in self.spec.params)
        head = f"{self.spec.label} registered" + (f" ({settings})" if settings else "")
        if self.report is None:
            return f"{head}, NOT checked: preflight was skipped"
        return f"{head}\n{self.report!r}"


def loss_cell(ipython: Any) -> Callable[[str, str], LossCell]:
    """The magic for one shell."""

    def loss(line: str, cell: str) -> LossCell:
        try:
            return run_cell(line, cell, ipython.user_ns)
        except SyntaxError as error:
            raise _shown_short(_as_loss_error(error)) from None
        except Exception as error:
            raise _shown_short(error) from None

    loss.__doc__ = __doc__
    return loss


def run_cell(line: str, cell: str, namespace: dict[str, Any]) -> LossCell:
    """Compile, check and register; nothing is registered when anything fails.

    Args:
        line: what follows ``%%loss``.
        cell: the lines below.
        namespace: where the cell runs.

    Raises:
        ConfigError: a bad name or option, or no function in the cell.
        LossError: preflight failed; the message is its report.
        Exception: whatever running the cell raises.
    """
    name, options, checked = _options(line)
    old = LOSSES.get(name)
    if old is not None and old.builtin:
        raise ConfigError(f"{name!r} is a built-in loss of the API, whose meaning is fixed; choose another name")
    found = compile_cell(cell_source(line, cell), name, old.version + 1 if old else 1, namespace)
    spec = _with_defaults(spec_of(found.fn, name, source=found.source), options)
    report = preflight(spec.bind(), sample_data()) if checked else None
    if report is not None and not report.ok:
        raise LossError(f"{name} is not registered.\n{report!r}")
    return LossCell(LOSSES.register(spec), report)


def _options(line: str) -> tuple[str, dict[str, float], bool]:
    """(name, parameter defaults, whether to run preflight)."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"%%loss {line}: {error}") from None
    if not words or words[0].startswith("-"):
        raise ConfigError("%%loss needs a name: %%loss my_loss")
    name, rest = words[0], words[1:]
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a loss; use letters, digits and underscores, not a digit first")
    checked, values = True, {}
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word == "--no-preflight":
            checked = False
            continue
        if not word.startswith("--") or not (equals or rest):
            raise ConfigError(
                f"%%loss {name}: {word!r} is not understood; options are --no-preflight and --PARAMETER VALUE"
            )
        value = value if equals else rest.pop(0)
        try:
            values[key] = float(value)
        except ValueError:
            raise ConfigError(f"%%loss {name}: --{key} is {value!r}, expected a number") from None
    return name, values, checked


def _with_defaults(spec: LossSpec, values: Mapping[str, float]) -> LossSpec:
    names = [p.name for p in spec.params]
    for key in values:
        if key not in names:
            choice = one_of(names, key) if names else "the function has no parameters besides data and logprobs_list"
            raise ConfigError(f"{spec.name}: unknown parameter --{key}; {choice}")
    return replace(
        spec,
        params=tuple(
            replace(p, default=p.check(values[p.name], spec.name), high=max(p.high, values[p.name]))
            if p.name in values
            else p
            for p in spec.params
        ),
    )


def _as_loss_error(error: SyntaxError) -> LossError:
    """A SyntaxError that IPython shows like any other error: by itself it would show the stack above the cell too."""
    where = f"line {error.lineno}: {(error.text or '').strip()}\n" if error.lineno else ""
    return LossError(f"the cell is no Python, {where}{error.msg}", line=error.lineno)


def _shown_short(error: Exception) -> Exception:
    """``error``, which IPython will show by the cell's own lines instead of the whole stack below them."""
    if isinstance(error, MintLabError):
        lines = [f"{type(error).__name__}: {error}"]
    else:
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<loss ")]
        lines = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    text = "".join(lines).rstrip().split("\n")
    error._render_traceback_ = lambda: text  # pyright: ignore[reportAttributeAccessIssue]  # IPython's own hook
    return error
