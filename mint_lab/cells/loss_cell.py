"""``%%loss NAME``: write a loss in a cell; running the cell checks and registers it.

::

    %%loss my_margin_loss --beta 0.5
    def my_margin_loss(data, logprobs_list, beta=0.1):
        ...
        return loss, {"pair_accuracy": ...}

Options:

--PARAMETER VALUE  replaces a parameter's default
--from LOSS        the new loss inherits what is known of LOSS: whether it takes pairs, its inputs, its clip. Without a
                   body (an empty one, or comments only) the cell registers a copy of LOSS and puts its source into the
                   cell, to edit; in a body the names of that loss's module can be used
--no-preflight     registers without checking, and says so

Running the cell again makes the next version, which every run that uses the loss applies at its next step; a run that
paused because this loss failed resumes. A cell may use the name of a bundled loss (but not of a built-in loss of the
API); ``mint_lab.LOSSES.restore("dpo")`` restores the bundled one. ``%loss NAME --from LOSS`` on one line is the same as
a cell without a body.

Helper functions and constants of the cell belong to that version, other names to the notebook. A refused cell changes
nothing, neither in a run nor in the notebook. Interrupting the kernel cancels a check that does not return.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..charts.palette import VERDICT_GROUNDS
from ..errors import ConfigError, LossError, one_of
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of
from ..preflight import Report, preflight
from ..runs.sample_batch import losses_in_use, made_up_data, sample_data, sample_pace
from ..usercode.cell_source import FUTURE, imports_for, source_from
from ..usercode.compile_cell import CellFunction, cell_source, compile_cell, shown_short
from .cell_status import cell_status, not_registered, publish_refusal

__all__ = ["LossCell", "loss_cell", "run_cell"]

UNCHECKED = "WARNING: it was NOT checked (--no-preflight); a mistake in it shows only when it trains"


@dataclass(frozen=True)
class LossCell:
    """The result of running a ``%%loss`` cell.

    Attributes:
        spec: The registered loss.
        report: The preflight report; None if it was skipped.
        cell: The text that replaces a cell without a body (``--from``); "" otherwise.
        others: Losses that unfinished runs use, if this loss is not among them.
    """

    spec: LossSpec
    report: Report | None
    cell: str = ""
    others: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = UNCHECKED if self.report is None else repr(self.report)
        return "\n".join([self._head(), found, *(["", self.cell.rstrip()] if self.cell else [])])

    def _repr_html_(self) -> str:
        style = f"background:{VERDICT_GROUNDS['fail']};padding:4px 10px"
        warning = f'<div style="{style}"><b>{html.escape(UNCHECKED)}</b></div>'
        found = warning if self.report is None else self.report.to_html()
        return (
            f"<div><b>{html.escape(self._head())}</b>{found}"
            + (f"<pre>{html.escape(self.cell)}</pre>" if self.cell else "")
            + "</div>"
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, cell_status("loss", self.spec.name, self.spec)

    def _head(self) -> str:
        settings = ", ".join(f"{p.name} {p.default:g}" for p in self.spec.params)
        head = f"{self.spec.label} registered" + (f" ({settings})" if settings else "")
        first = LOSSES.first(self.spec.name)
        if self.others:
            head += (
                f"; the run continues with {' and '.join(self.others)} until you choose {self.spec.name} on the page "
            )
            head += f"or call run.set_loss({self.spec.name!r})"
        if first.family == "custom":
            return head
        return (
            f"{head} in place of the bundled {first.label}; mint_lab.LOSSES.restore({first.name!r}) restores that one"
        )


class _Refused(LossError):
    """Preflight failed; the message is its whole report."""

    def __init__(self, name: str, old: LossSpec | None, report: Report) -> None:
        self.report = report
        self.head = not_registered(name, old)
        self.status = cell_status("loss", name, old, refused=True)
        super().__init__(f"{self.head}.\n{report!r}")


@dataclass(frozen=True)
class _Options:
    """The options in the magic's line."""

    name: str
    values: dict[str, float] = field(default_factory=dict)
    checked: bool = True
    origin: str | None = None

    def line(self) -> str:
        """Return the options as text."""
        given = "".join(f" --{key} {value:.12g}" for key, value in self.values.items())
        origin = f" --from {self.origin}" if self.origin else ""
        return f"{self.name}{origin}{given}" + ("" if self.checked else " --no-preflight")


def loss_cell(ipython: Any) -> Callable[[str, str | None], LossCell]:
    """Return the magic for one shell."""

    def loss(line: str, cell: str | None = None) -> LossCell:
        try:
            done = run_cell(line, cell or "", ipython.user_ns)
        except _Refused as error:
            # The report as a table; IPython's red traceback below it need not repeat the report.
            pictures = {"text/plain": repr(error.report), "text/html": error.report.to_html()}
            ipython.display_pub.publish(data=pictures, metadata=error.status)
            raise shown_short(error, "loss", f"{error.head}. The preflight report is above.") from None
        except KeyboardInterrupt:
            publish_refusal(ipython.display_pub, "loss", line, LOSSES)
            raise
        except Exception as error:
            publish_refusal(ipython.display_pub, "loss", line, LOSSES)
            raise shown_short(error, "loss") from None
        if done.cell:
            ipython.set_next_input(done.cell, replace=True)
        return done

    loss.__doc__ = __doc__
    return loss


def run_cell(line: str, cell: str, namespace: dict[str, Any]) -> LossCell:
    """Compile, check and register a loss; if anything fails, nothing is registered and ``namespace`` is unchanged.

    Args:
        line: What follows ``%%loss``.
        cell: The lines below it.
        namespace: The notebook's names: the cell looks names up there, and its own are added once it is registered.

    Raises:
        ConfigError: If the name or an option is not valid, or the cell defines no function.
        LossError: If preflight failed; the message is the report.
        Exception: Whatever running the cell raises.
    """
    options = _options(line)
    name = options.name
    version = LOSSES.next_version(name)
    origin = None if options.origin is None else LOSSES[options.origin]
    written = not _is_empty(cell)
    if not written:
        if origin is None:
            raise ConfigError(
                f"the cell has no body; define {name}(data, logprobs_list) below the first line, or start from a copy: "
                f"%%loss {name} --from dpo"
            )
        line, cell = options.line(), source_from(origin, name)
    imports = [] if origin is None else imports_for(cell, origin, namespace)
    before: list[str] = []
    if FUTURE in cell:  # a __future__ import must come before every other import
        imports, before = before, imports
    compiled = compile_cell(cell_source(line, cell, imports), name, version, namespace, before=before)
    spec = _with_defaults(_described(compiled, name, cell, origin), options.values)
    report = _checked(spec) if options.checked else None
    if report is not None:
        if not report.ok:
            raise _Refused(name, LOSSES.get(name), report)
        spec = replace(spec, reduction=report.reduction or "coupled", unit=spec.unit or report.unit)
    namespace.update(compiled.names)
    used = losses_in_use()
    shown = "" if written else f"%%loss {options.line()}\n{cell}"
    return LossCell(LOSSES.register(spec), report, shown, others=() if name in used else tuple(sorted(used)))


def _is_empty(cell: str) -> bool:
    """Return True if a cell's body has nothing but blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in cell.splitlines())


def _described(compiled: CellFunction, name: str, cell: str, origin: LossSpec | None) -> LossSpec:
    """Return the description of the cell's function; made from ``origin``, it inherits from that."""
    spec = spec_of(compiled.fn, name, source=compiled.source)
    if origin is None:
        return spec
    spec = spec.inherit(origin)
    if not _is_copy(cell, origin, name):
        return spec
    # An unchanged copy also has the formula, and the defaults that the origin was registered with.
    return replace(spec, formula=origin.formula, paper=origin.paper, params=origin.params)


def _is_copy(cell: str, origin: LossSpec, name: str) -> bool:
    try:
        return cell.strip() == source_from(origin, name).strip()
    except ConfigError:  # the source of the origin cannot be copied
        return False


def _checked(spec: LossSpec) -> Report:
    report = preflight(spec.bind(), sample_data(spec))
    if any(line.name == "fields" for line in report.lines):
        # The loss may be meant for another run than the one that was loaded last.
        made_up = preflight(spec.bind(), made_up_data())
        if made_up.ok:
            fix = "the run loaded last has no such data; use this loss in a run that has it"
            missing = replace(next(line for line in report.lines if line.name == "fields"), verdict="warn", fix=fix)
            return replace(made_up, lines=(*made_up.lines, missing))
    pace = sample_pace()
    if pace is None:
        return report
    return replace(report, model_seconds=pace[1], model_work=f"a step of the run loaded last, with {pace[0]} datums")


def _options(line: str) -> _Options:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"%%loss {line}: {error}") from None
    if not words or words[0].startswith("-"):
        raise ConfigError("%%loss needs a name: %%loss my_loss")
    name, rest = words[0], words[1:]
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a loss; use letters, digits and underscores, not a digit first")
    checked, origin, values = True, None, {}
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word == "--no-preflight":
            checked = False
            continue
        if not word.startswith("--") or not (equals or rest):
            raise ConfigError(
                f"%%loss {name}: {word!r} is not an option; the options are --from LOSS, --no-preflight and "
                "--PARAMETER VALUE"
            )
        value = value if equals else rest.pop(0)
        if key == "from":
            origin = value
            continue
        try:
            values[key] = float(value)
        except ValueError:
            raise ConfigError(f"%%loss {name}: --{key} is {value!r}, expected a number") from None
    return _Options(name, values, checked, origin)


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
