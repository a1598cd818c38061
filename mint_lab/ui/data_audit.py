"""``audit(data, model)``: see what a run would train on, before it trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..charts.audit_html import AuditHtml, AuditLine, LengthBars, audit_html
from ..charts.token_strips import strips_html
from ..data.audit import (
    DataItem,
    DataView,
    LengthHistogram,
    SequenceTable,
    TokenMarks,
    count_lengths,
    noteworthy,
    repeats_of,
)
from ..data.faults import Finding, find_faults
from ..errors import ConfigError, DataError
from ..recipes.registry import recipe_for
from ..runs.loading import DataLimits, PreparedData
from ..runs.run import Run
from .pictures import strips_of
from .token_text import token_text, visible
from .tokens import weights_message

if TYPE_CHECKING:
    import pandas

    from ..client.protocol import TrainingClientProtocol
    from ..data.sources import OnBadRow
    from .messages import Tokens
    from .token_view import TokenView

__all__ = ["Audit", "audit", "audit_of"]

UNITS = {"pair": "pairs", "completion": "examples", "prompt": "prompts"}
PRINTED_ENDS = 5


def audit(
    data: Any,
    base_model: str = "mint-tiny",
    *,
    recipe: str | None = None,
    held_out: Any = None,
    client: TrainingClientProtocol | None = None,
    max_length: int | None = None,
    max_rows: int | None = None,
    on_bad_row: OnBadRow = "raise",
    seed: int = 0,
    **options: Any,
) -> Audit:
    """Tokenize data exactly as a run with these arguments would, and describe the result. No weights are loaded.

    >>> ml.audit("rows.jsonl", "Qwen/Qwen3-0.6B")                                                   # doctest: +SKIP

    Args:
        data, held_out: As the recipe takes them; ``held_out`` as in :class:`~mint_lab.runs.run.Run`.
        base_model: "mint-tiny", a local directory, or a hub name. Only its tokenizer and configurations are read.
        recipe: Name of a recipe; None for the one that the first rows look made for: pairs are for "preference",
            completions for "sft", completions with a label for "unpaired", prompts alone for "rl".
        client: A training client, whose tokenizer is used instead.
        max_length, max_rows, on_bad_row: As in :class:`~mint_lab.runs.run.Run`.
        seed: Of the held-out split.
        options: Options of the recipe, such as ``train_on`` of "sft".

    Raises:
        ConfigError: If the recipe, an option or a limit is unknown or not valid.
        DataError: If the data cannot be read, a row cannot be used, or no recipe takes such rows.
        ModelError: If the tokenizer cannot be found or loaded.
    """
    reason = ""
    if recipe is None:
        DataLimits(max_length, max_rows, on_bad_row)  # refuse limits before data are read
        recipe, reason, data = recipe_for(data)
    others = [name for name in options if name in inspect.signature(Run).parameters]
    if others:
        raise ConfigError(f"{others[0]!r} does not change how data are prepared; leave it out")
    run = Run(
        recipe,
        base_model=base_model,
        data=data,
        held_out=held_out,
        client=client,
        seed=seed,
        max_length=max_length,
        max_rows=max_rows,
        on_bad_row=on_bad_row,
        **options,
    )
    return audit_of(run, reason)


def audit_of(run: Run, recipe_reason: str = "") -> Audit:
    """Return the audit of the data of ``run``, which are prepared now if they are not yet.

    Raises:
        ConfigError: If the recipe of the run prepares something else than datums or prompts.
        DataError: As :meth:`mint_lab.Run.prepare_data`.
        ModelError: As :meth:`mint_lab.Run.prepare_data`.
    """
    prepared = run.prepare_data()
    view_of = getattr(prepared.job, "view", None)
    if view_of is None:
        raise ConfigError(
            f"the recipe {run.recipe!r} prepares a {type(prepared.job).__name__}, expected a BatchJob: its data cannot "
            "be audited"
        )
    view: DataView = view_of()
    base_model = run.base_model if run.client is None else str(getattr(run.client, "model_id", run.base_model))
    return _measured(prepared, view, run.recipe, recipe_reason, base_model)


@dataclass(frozen=True)
class Audit:
    """What data consist of once they are tokenized; :func:`mint_lab.audit` returns one.

    All numbers are about training and held-out data together. Row numbers are those of the data, from 0.

    Attributes:
        recipe: Name of the recipe.
        recipe_reason: Why this recipe was chosen; empty if it was given.
        base_model: The model.
        unit: What an item is: "pairs", "examples" or "prompts".
        items: Items to train on.
        held_out_items: Items held out.
        rows_read: Rows read.
        sequences: Sequences; a pair has two.
        tokens: Tokens of all sequences.
        trained_tokens: Tokens whose weight is not 0.
        truncated: Sequences that lost the beginning of their prompt or the end of their completion.
        skipped: Why rows of the data were left out, by number.
        held_out_skipped: Why rows of ``held_out=`` were left out, by number.
        duplicates: Training items with the tokens of an earlier one.
        max_length: Longest sequence, tokens; None for no limit.
        ends: Sequences whose last trained token, apart from white space, is an end token of the model.
        end_tokens: Texts of these end tokens.
        findings: What a person should know, the most serious first.
        lengths: Histograms of lengths, tokens.
        rows: One row per sequence: ``row``, ``held_out``, ``side``, ``tokens``, ``prompt_tokens``,
            ``completion_tokens``, ``trained_tokens``, ``ends``, ``lost_beginning``, ``lost_end``, and ``repeats``, the
            row of the first item with the same tokens.
        notes: What the run would note about the data.
    """

    recipe: str
    recipe_reason: str
    base_model: str
    unit: str
    items: int
    held_out_items: int
    rows_read: int
    sequences: int
    tokens: int
    trained_tokens: int
    truncated: int
    skipped: Mapping[int, str]
    held_out_skipped: Mapping[int, str]
    duplicates: int
    max_length: int | None
    ends: int
    end_tokens: tuple[str, ...]
    findings: tuple[Finding, ...]
    lengths: tuple[LengthHistogram, ...]
    rows: pandas.DataFrame = field(repr=False, compare=False)
    notes: tuple[str, ...] = field(repr=False, default=())
    view: DataView = field(repr=False, compare=False, kw_only=True)
    chosen: Sequence[tuple[int, str]] = field(repr=False, compare=False, kw_only=True)
    tokenizer: Any = field(repr=False, compare=False, kw_only=True)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that spoil most trainings."""
        return tuple(one for one in self.findings if one.severity == "warning")

    @property
    def trained_share(self) -> float:
        """Share of the tokens whose weight is not 0."""
        return self.trained_tokens / self.tokens

    @property
    def end_share(self) -> float:
        """Share of the sequences that end with an end token of the model; of those with a trained token."""
        trained = sum(self.rows["trained_tokens"] > 0)
        return self.ends / trained if trained else 0.0

    def show(self, *rows: int, held_out: bool = False) -> TokenView:
        """Return the tokens of rows with their weights; without arguments, of a few noteworthy rows.

        Args:
            rows: Numbers of rows.
            held_out: Whether they are rows of ``held_out=``, if those are other data.

        Raises:
            DataError: If a row was not read, or was left out.
        """
        from .token_view import TokenView

        chosen = [(self.position(row, held_out=held_out), "") for row in rows] or list(self.chosen)
        return TokenView(self.message(chosen))

    def position(self, row: int, *, held_out: bool = False) -> int:
        """Return the position of a row among the items of :attr:`view`. Arguments and errors as :meth:`show`."""
        has_two_sources = self.view.has_two_sources
        for number, item in enumerate(self.view.items):
            if item.facts.row == row and (not has_two_sources or item.held_out is held_out):
                return number
        skipped = self.held_out_skipped if held_out else self.skipped
        if row in skipped:
            raise DataError(f"the row was left out: {skipped[row]}", index=row)
        numbers = [i.facts.row for i in self.view.items if not has_two_sources or i.held_out is held_out]
        raise DataError(f"there is no such row, expected one from {min(numbers)} to {max(numbers)}", index=row)

    def message(self, chosen: Sequence[tuple[int, str]]) -> Tokens:
        """Return items with the weights of their tokens as a message.

        Args:
            chosen: Positions of items, each with what it is.
        """
        items = [self.view.items[number] for number, _ in chosen]
        titles = [self._title(item, what) for item, (_, what) in zip(items, chosen, strict=True)]
        return weights_message(items, self.tokenizer, titles)

    def _title(self, item: DataItem, what: str) -> str:
        name = "row" if self.view.has_rows else "item"
        label = item.sides[0] if item.sides[0] in {"desirable", "undesirable"} else ""
        parts = [f"{name} {item.facts.row}", label, "held out" if item.held_out else "", what]
        return " · ".join(part for part in parts if part)

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Names and values of the main numbers, for a person."""
        has_completions = self.view.kind != "prompt"
        given: list[tuple[str, str]] = [
            ("rows read", f"{self.rows_read:,}"),
            (f"training {self.unit}", f"{self.items:,}"),
            (f"held-out {self.unit}", f"{self.held_out_items:,}"),
            ("sequences", f"{self.sequences:,}"),
            ("tokens", f"{self.tokens:,}"),
        ]
        if has_completions:
            given += [
                ("of the tokens are trained", f"{self.trained_share:.1%}"),
                ("end with an end token", f"{self.end_share:.1%}"),
                ("truncated", f"{self.truncated:,}"),
            ]
        left_out = len(self.skipped) + len(self.held_out_skipped)
        return [*given, ("rows left out", f"{left_out:,}"), ("duplicates", f"{self.duplicates:,}")]

    @property
    def about(self) -> str:
        """What was audited, and how sequences end, in a sentence."""
        ends = ", ".join(map(visible, self.end_tokens)) or "none"
        limit = "no limit of length" if self.max_length is None else f"limit {self.max_length:,} tokens"
        recipe = ": ".join(part for part in (self.recipe, self.recipe_reason) if part)
        return f"recipe {recipe}; model {self.base_model}; {limit}; end tokens {ends}"

    def __repr__(self) -> str:
        lines = [f"audit: {self.summary}", f"  {self.about}"]
        lines += [f"  {value:>10}  {name}" for name, value in self.numbers]
        lines += [f"  {finding}" for finding in self.findings]
        if not self.view.has_rows:
            lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        bars = [LengthBars(one.name, one.start, one.width, one.counts, one.longest, one.limit) for one in self.lengths]
        lines = [AuditLine(one.severity, one.message, one.meaning, one.advice) for one in self.findings]
        tokens = strips_html(strips_of(self.message(self.chosen)))
        return audit_html(AuditHtml(f"audit: {self.summary}", self.about, self.numbers, lines, bars, tokens))

    @property
    def summary(self) -> str:
        """How many items and findings there are, in a sentence."""
        warnings, notes = len(self.warnings), len(self.findings) - len(self.warnings)
        parts = [_counted(warnings, "warning"), _counted(notes, "note")]
        told = ", ".join(part for part in parts if part) or "nothing to report"
        return f"{self.items:,} {self.unit} to train on, {self.held_out_items:,} held out; {told}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}" if count else ""


def _measured(prepared: PreparedData, view: DataView, recipe: str, reason: str, base_model: str) -> Audit:
    tokenizer = prepared.tokenizer
    table = SequenceTable(view, TokenMarks.of(tokenizer, prepared.end_tokens))
    ends = tuple(token_text(tokenizer, token) for token in sorted(prepared.end_tokens)[:PRINTED_ENDS])
    training = [item for item in view.items if not item.held_out]
    read = [count or len(training) if number == 0 else count for number, count in enumerate(view.read)]
    lengths = [count_lengths("tokens per sequence", table.length, prepared.max_length)]
    if view.kind != "prompt":
        lengths += [count_lengths("prompt", table.prompt), count_lengths("completion", table.completion)]
    cut = [view.items[number].facts.lost_beginning > 0 for number in table.item] | (table.lost_end > 0)
    return Audit(
        recipe=recipe,
        recipe_reason=reason,
        base_model=base_model,
        unit=UNITS[view.kind],
        items=len(training),
        held_out_items=len(view.items) - len(training),
        rows_read=sum(read),
        sequences=len(table),
        tokens=int(table.length.sum()),
        trained_tokens=int(table.trained.sum()),
        truncated=int(cut.sum()),
        skipped=dict(view.skipped[0]),
        held_out_skipped=dict(view.skipped[1]),
        duplicates=len(repeats_of(training)),
        max_length=prepared.max_length,
        ends=int(table.ends.sum()),
        end_tokens=ends,
        findings=tuple(find_faults(table, limit=prepared.max_length, ends=ends)),
        lengths=tuple(lengths),
        rows=table.frame(),
        notes=tuple(prepared.notes),
        view=view,
        chosen=noteworthy(table),
        tokenizer=tokenizer,
    )
