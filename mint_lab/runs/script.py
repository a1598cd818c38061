"""A run as a Python script that makes the same run again: its arguments, and every edit at its step.

On a CPU, with the same versions of the libraries, the script gives the records and weights of the run to the last bit.
What was in memory has no name in a script: rows become a file beside the script, and anything else a call that ends the
script with a text that says what to put there.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.pairs import Pair
from ..data.rewards import REWARDS
from ..data.sources import Rows, rows
from ..errors import RunError
from ..losses import LOSSES
from ..losses.decorator import RUN_SETTINGS
from ..recipes.record import Edit, LossVersion, StepRecord
from ..usercode.cell_source import FUTURE, imports_for
from .store import reward_versions

if TYPE_CHECKING:
    from ..losses import LossSpec
    from ..recipes.plan import StepPlan
    from .entries import RunInfo

__all__ = ["RunScript"]

BETAS = ("beta1", "beta2")
_ROWS = """

def rows(name):
    with Path(__file__).with_name(name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
""".splitlines()
_PLACEHOLDER = """

def missing(what):
    sys.exit(what)
""".splitlines()


@dataclass(frozen=True)
class RunScript:
    """What a script of a run is made of.

    Attributes:
        info: The content of ``run.json``.
        records, edits, losses: Of the run.
        plan: Plan of the next step.
        folder: The run's folder; None if it has none yet.
        data: The training data and the held-out data, as given.
        has_client: Whether the run was given a training client.
    """

    info: RunInfo
    records: Sequence[StepRecord]
    edits: Sequence[Edit]
    losses: Sequence[LossVersion]
    plan: StepPlan
    folder: Path | None
    data: tuple[Any, Any]
    has_client: bool

    def text(self, path: Path | None = None) -> str:
        """Return the script; with ``path``, write it there, and rows that were in memory beside it.

        Raises:
            RunError: If a file cannot be written.
        """
        lines, loss = self._beginning()
        lines.append(_call("run = ml.Run", [repr(self.info.recipe), loss, *self._arguments(path)]))
        body = "\n".join([*lines, *self._steps(), "print(run)"]) + "\n"
        text = self._head(body) + body
        if path is not None:
            _write(path, text)
        return text

    def _head(self, body: str) -> str:
        info = self.info
        made_with = ", ".join(f"{name} {version}" for name, version in info.versions.items())
        uses_rows = "=rows(" in body
        lines = [
            f'"""Makes the run {_plain(info.name)} again: recipe {info.recipe}, {len(self.records)} steps recorded.',
            "",
            "On a CPU, with the versions below, its records and weights are those of the run, to the last bit, unless",
            "a loss or a reward draws from a global random generator.",
            "",
            _plain(made_with),
            "",
            "    python SCRIPT [FOLDER]    FOLDER: where the run is recorded; by default a new folder in ./runs",
            '"""',
            "",
            *(["import json"] if uses_rows else []),
            "import sys",
            *(["from pathlib import Path"] if uses_rows else []),
            "",
            "import mint_lab as ml",
        ]
        names = [name for name in ("loss_from_source", "reward_from_source") if f"{name}(" in body]
        lines += [f"from mint_lab.runs.from_source import {', '.join(names)}"] if names else []
        lines += _ROWS if uses_rows else []
        lines += _PLACEHOLDER if "missing(" in body else []
        return "\n".join([*lines, "", "", ""])

    def _beginning(self) -> tuple[list[str], str]:
        """Return what comes before the run, and an expression of its first loss."""
        lines, loss = _named("loss", self._loss(self.losses[0] if self.losses else self.plan.loss_version(1)))
        reward = self.info.options.get("reward")
        if reward is not None and not (reward in REWARDS and REWARDS[reward].builtin):
            found = self._rewards(str(reward))
            later = {edit.label for edit in self.edits if edit.kind == "reward"}
            first = next((number for number in sorted(found) if f"{reward} v{number}" not in later), None)
            lines.append(_reward_of(str(reward), first, found))
        return lines, loss

    # -- losses and rewards --------------------------------------------------------------------------------------------

    def _loss(self, version: LossVersion) -> str:
        """Return an expression of the loss: the name of a bundled one, or its source."""
        known = LOSSES.first(version.name) if version.name in LOSSES else None
        is_bundled = known is not None and str(known.fn.__module__).startswith("mint_lab.")
        if known is not None and is_bundled and known.version == version.version:
            return repr(version.name)
        spec = self._spec(version)
        source = _standalone(version.source, spec)
        if source is None:
            return _missing(f"the source of the loss {version.name} v{version.version} is not known: put the loss here")
        described = [f"{key}={_literal(value)}" for key, value in version.described.items() if value]
        return _call("loss_from_source", [_text(source), repr(version.name), repr(version.version), *described])

    def _spec(self, version: LossVersion) -> LossSpec | None:
        for spec in (self.plan.loss, LOSSES.get(version.name)):
            if spec is not None and (spec.name, spec.source) == (version.name, version.source):
                return spec
        return None

    def _rewards(self, name: str) -> dict[int, str]:
        """Return the sources of a reward by version: those that graded, or the registered one before the start."""
        found = {} if self.folder is None else reward_versions(self.folder, name)
        if not found and name in REWARDS:
            found = {REWARDS[name].version: REWARDS[name].source}
        return found

    # -- arguments -----------------------------------------------------------------------------------------------------

    def _arguments(self, path: Path | None) -> list[str]:
        info = self.info
        given: dict[str, str] = {"base_model": _literal(_absolute(info.base_model))}
        for name, argument, source in zip(("train", "held_out"), ("data", "held_out"), self.data, strict=True):
            if source is not None:
                given[argument] = self._data(argument, info.data.get(name), source, path)
        if self.has_client:
            given["client"] = _missing("this run was given a training client: create one here")
        given |= {name: _literal(value) for name, value in self._first_settings().items()}
        if info.lora and not self.has_client:
            given["lora"] = _call("ml.LoraOptions", [f"{key}={_literal(value)}" for key, value in info.lora.items()])
        own = {"seed": info.seed or 0, **info.limits, "eval_every": info.eval_every, "name": info.name}
        own |= {"keep_snapshots": info.keep_snapshots, **info.options}
        own |= {name: getattr(info, name) for name in ("tags", "description") if getattr(info, name)}
        own |= {"reference": info.reference} if info.reference != "start" else {}
        given |= {name: _literal(value) for name, value in own.items()}
        if info.early_stopping:
            stopping = [f"{name}={_literal(value)}" for name, value in info.early_stopping.items()]
            given["early_stopping"] = _call("ml.EarlyStopping", stopping)
        given["folder"] = "sys.argv[1] if len(sys.argv) > 1 else None"
        return [f"{name}={value}" for name, value in given.items()]

    def _data(self, argument: str, place: Any, source: Any, path: Path | None) -> str:
        if isinstance(place, str):
            return repr(place)
        found = _json_rows(source)
        kind = type(source.source if isinstance(source, Rows) else source).__name__
        if found is None:
            return _missing(f"{argument} was an object in memory ({kind}) that is no list of rows: put it here")
        if path is None:
            return _missing(
                f"{argument} was in memory ({kind} of {len(found)} rows): put it here, or write the script with "
                "run.script(path), which writes the rows beside it"
            )
        file = path.with_name(f"{path.stem}-{argument}.jsonl")
        _write(file, "".join(line + "\n" for line in found))
        return f"rows({file.name!r})"

    def _first_settings(self) -> dict[str, Any]:
        if not self.records:
            return self.plan.arguments()
        first = self.records[0]
        settings = _settings(first)
        config = {name: value for name, value in settings.items() if name in self.losses[0].config}
        given = {name: value for name, value in settings.items() if name in RUN_SETTINGS and name not in BETAS}
        betas = tuple(settings[name] for name in BETAS if name in settings)
        return given | ({"betas": betas} if len(betas) == len(BETAS) else {}) | {"loss_config": config}

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _steps(self) -> list[str]:
        lines: list[str] = []
        done = 0
        for before, record in itertools.pairwise(self.records):
            changes = self._changes(before, record)
            if changes:
                lines += [f"run.step({before.step - done}).wait()", *changes]
                done = before.step
        ending = len(self.records) - done
        if self.info.status == "stopped":
            return [*lines, *([f"run.step({ending}).wait()"] if ending else []), "run.stop()"]
        pending = self._pending()
        if pending:
            lines += [*([f"run.step({ending}).wait()"] if ending else []), *pending]
        return lines if self.info.status == "finished" and not ending else [*lines, "run.start().wait()"]

    def _changes(self, before: StepRecord, record: StepRecord) -> list[str]:
        """Return the statements that change the plan of one step into that of the next."""
        old, new = _settings(before), _settings(record)
        lines = self._reward_changes(record.step)
        changed = {name: value for name, value in new.items() if name in RUN_SETTINGS and old.get(name) != value}
        version = next((loss for loss in self.losses if loss.step == record.step), None)
        if version is not None:
            lines += self._set_loss(version, {name: new[name] for name in version.config if name in new})
        else:
            config_names = new.keys() - set(RUN_SETTINGS)
            changed |= {name: new[name] for name in new if name in config_names and old.get(name) != new[name]}
        return lines + ([_set(changed)] if changed else [])

    def _set_loss(self, version: LossVersion, config: Mapping[str, float]) -> list[str]:
        lines, loss = _named("loss", self._loss(version))
        return [*lines, _call("run.set_loss", [loss, *(f"{name}={value!r}" for name, value in config.items())])]

    def _reward_changes(self, step: int) -> list[str]:
        lines: list[str] = []
        for edit in self.edits:
            if edit.kind == "reward" and edit.step == step:
                name, _, number = edit.label.rpartition(" v")
                lines.append(_reward_of(name, int(number), self._rewards(name)))
        return lines

    def _pending(self) -> list[str]:
        """Return the statements of edits that no step has used yet."""
        if not self.records:
            return []
        last, plan = self.records[-1], self.plan
        old = _settings(last)
        new = plan.settings() | {"steps": plan.steps, "schedule": plan.schedule}
        if (plan.loss.name, plan.loss.version) != (last.loss_name, last.loss_version):
            lines = self._set_loss(plan.loss_version(0), plan.config)
            changed = {name: new[name] for name in RUN_SETTINGS if old.get(name) != new[name]}
        else:
            lines, changed = [], {name: value for name, value in new.items() if old.get(name) != value}
        return lines + ([_set(changed)] if changed else [])


def _settings(record: StepRecord) -> dict[str, Any]:
    """Return everything that ``run.set`` could have changed, as the step used it."""
    own = {name: value for name, value in record.settings.items() if "/" not in name}
    whole = {name: int(own[name]) for name in ("batch_size", "accumulate", "warmup_steps") if name in own}
    return own | whole | {"schedule": record.schedule} | ({"steps": record.steps_total} if record.steps_total else {})


def _set(changed: Mapping[str, Any]) -> str:
    return _call("run.set", [f"{name}={value!r}" for name, value in changed.items()])


def _reward_of(name: str, version: int | None, found: Mapping[int, str]) -> str:
    source = _standalone(found.get(version or 0, ""), REWARDS.get(name))
    if source is None:
        return _missing(f"the source of the reward {name} is not known: register the reward instead of this line")
    return _call("reward_from_source", [_text(source), repr(name), repr(version)])


def _standalone(source: str, entry: Any) -> str | None:
    """Return a source with the imports that it needs from its notebook or module; None if it cannot stand alone."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    if not any(isinstance(node, ast.FunctionDef) for node in tree.body):
        return None
    if entry is not None and getattr(entry.fn, "__closure__", None):
        return None  # it reads variables of a function around it
    lines = [] if entry is None else [line for line in imports_for(source, entry, ()) if line]
    if not lines:
        return source
    head, future, rest = source.partition(FUTURE + "\n")
    if not future:
        return "\n".join([*lines, "", "", source])
    return "\n".join([f"{head}{future}{lines[0]}", *lines[1:], "", "", rest])


def _json_rows(source: Any) -> list[str] | None:
    """Return rows in memory as lines of JSON that give the same rows back; None if they are something else."""
    limited = Rows.of(source)
    if isinstance(limited.source, Iterator):
        return None  # it has been read
    lines: list[str] = []
    try:
        for row in itertools.islice(rows(limited.source), limited.max_rows):
            plain = asdict(row) if isinstance(row, Pair) else dict(row) if isinstance(row, Mapping) else None
            line = json.dumps(plain, allow_nan=False)
            if plain is None or json.loads(line) != plain:
                return None
            lines.append(line)
    except Exception:  # whatever an object in memory raises when it is read
        return None
    return lines


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def _literal(value: Any) -> str:
    """Return a value as Python writes it, or a call that ends the script if it has no such form."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        same = False
    return text if same else _missing(f"an object of type {type(value).__name__} was given here: put it here")


def _missing(what: str) -> str:
    return f"missing({what!r})"


def _text(source: str) -> str:
    """Return a source as a literal that a person can read."""
    plain = "'''" not in source and not source.endswith(("\\", "'")) and "\r" not in source
    raw = f"r'''\n{source}'''" if "\\" in source else f"'''\n{source}'''"
    return f"{raw}[1:]" if plain and ast.literal_eval(raw) == "\n" + source else repr(source)


def _call(name: str, arguments: Sequence[str]) -> str:
    inside = ", ".join(arguments)
    if "\n" not in inside and len(name) + len(inside) < 110:
        return f"{name}({inside})"
    return "\n".join([f"{name}(", *(_indented(argument) + "," for argument in arguments), ")"])


def _indented(argument: str) -> str:
    return f"    {argument}" if "'''" in argument else textwrap.indent(argument, "    ")


def _named(name: str, expression: str) -> tuple[list[str], str]:
    """Return a statement that gives an expression of several lines a name, and the name; or the expression itself."""
    return ([f"{name} = {expression}"], name) if "\n" in expression else ([], expression)


def _plain(text: str) -> str:
    """Return a text that cannot end a docstring."""
    return re.sub(r'[\\"\n\r]', " ", text)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error
