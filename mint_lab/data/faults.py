"""Faults of prepared data that training does not show, each with its number, its rows, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from .audit import DataItem, SequenceTable, repeats_of, token_key
from .sources import named_rows

__all__ = ["FAULTS", "Finding", "find_faults"]

Severity: TypeAlias = Literal["warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know.

    Attributes:
        name: One of :data:`FAULTS`.
        severity: "warning" for what spoils most trainings, "note" for what may be meant.
        count: How often it was found.
        total: Among how many.
        rows: The rows with it, by number.
        held_out_rows: The rows of ``held_out=`` with it, if those are other data.
        message: What was found, with the number and the first rows.
        meaning: What follows for the training.
        advice: What to do.
    """

    name: str
    severity: Severity
    count: int
    total: int
    rows: tuple[int, ...]
    held_out_rows: tuple[int, ...]
    message: str
    meaning: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}: {self.meaning}; {self.advice}"


@dataclass(frozen=True)
class _Fault:
    """Texts of a finding; numbers are filled in by name."""

    severity: Severity
    what: str
    meaning: str
    advice: str


FAULTS: dict[str, _Fault] = {
    "left_out": _Fault(
        "warning", "{part}rows were left out", "{reason}", "repair these rows, or remove them from the data"
    ),
    "no_weight": _Fault(
        "warning",
        "sequences have no trained token",
        "every weight is 0, so they have no gradient",
        "raise max_length if they were truncated, or correct what the chat template marks with {{% generation %}}",
    ),
    "no_end": _Fault(
        "warning",
        "whole completions do not end with an end token of the model",
        "the model does not learn from them to stop",
        "let the chat template close the assistant's turn with {ends}, and mark it as a part of the turn",
    ),
    "lost_end": _Fault(
        "warning",
        "completions lost their end to the limit of {limit} tokens",
        "up to {largest} tokens are missing, the end token among them",
        "raise max_length up to what the model takes, or shorten the rows",
    ),
    "leak": _Fault(
        "warning",
        "held-out items are also training items",
        "held-out metrics are better than on new data",
        "remove duplicates before the data are split, or give other rows as held_out",
    ),
    "equal_sides": _Fault(
        "warning",
        "pairs have equal tokens on both sides",
        "they have no gradient",
        "remove them, or raise max_length if truncation removed the difference",
    ),
    "tools_unwritten": _Fault(
        "warning",
        "rows have tools that the chat template does not write",
        "the model does not see the tools",
        "set a tokenizer.chat_template that writes them",
    ),
    "reasoning_unwritten": _Fault(
        "warning",
        "rows have reasoning before </think> that the chat template does not write",
        "the model learns the answer without the reasoning",
        "set a tokenizer.chat_template that writes it",
    ),
    "doubled_begin": _Fault(
        "warning",
        "sequences begin with two beginning-of-text tokens",
        "models are trained with one",
        "remove this token from the text: the tokenizer adds it",
    ),
    "unknown_tokens": _Fault(
        "warning",
        "sequences have unknown tokens, {tokens} in all",
        "the tokenizer has no token for these characters, so the model does not see them",
        "replace the characters, or use a model whose tokenizer knows them",
    ),
    "lost_beginning": _Fault(
        "note",
        "prompts lost their beginning to the limit of {limit} tokens",
        "up to {largest} tokens are missing, among them a system message if there is one",
        "raise max_length up to what the model takes, or shorten the prompts",
    ),
    "sampled_further": _Fault(
        "note",
        "prompts end with further tokens when the model is sampled",
        "the generation prompt ends with tokens that the completion does not begin with",
        "write completions that begin as the generation prompt ends, for example with the thought that it opens",
    ),
    "tight": _Fault(
        "note",
        "prompts leave fewer than max_tokens={room} of {limit} tokens for a response",
        "their responses are shorter",
        "shorten the prompts, or lower max_tokens",
    ),
    "duplicates": _Fault(
        "note", "training items repeat an earlier one", "they count several times", "remove them, unless that is meant"
    ),
    "repeated_prompts": _Fault(
        "note",
        "training items have the prompt of an earlier one and another completion",
        "usual for several answers to one question",
        "check that the answers do not contradict each other",
    ),
}
"""What :func:`find_faults` looks for, the most serious first."""


def find_faults(table: SequenceTable, *, limit: int | None = None, ends: Sequence[str] = ()) -> list[Finding]:
    """Return what a person should know about the data, in the order of :data:`FAULTS`.

    Args:
        table: Numbers about the sequences.
        limit: Longest sequence, tokens; None for no limit.
        ends: Texts of the tokens that end a sample.
    """
    finder = _Finder(table, limit, ends)
    found = [*finder.left_out(), *finder.sequences(), *finder.items(), *finder.repeats()]
    order = list(FAULTS)
    return sorted((one for one in found if one.count), key=lambda one: order.index(one.name))


class _Finder:
    """Looks for each fault in one data set."""

    def __init__(self, table: SequenceTable, limit: int | None, ends: Sequence[str]) -> None:
        self._table = table
        self._view = table.view
        self._limit = limit
        self._ends = " or ".join(ends) or "an end token, of which this model states none"

    def left_out(self) -> Iterator[Finding]:
        """Yield rows that cannot be used, by reason."""
        for number, (read, skipped) in enumerate(zip(self._view.read, self._view.skipped, strict=True)):
            by_reason: dict[str, list[int]] = {}
            for row, reason in skipped.items():
                by_reason.setdefault(reason, []).append(row)
            for reason, rows in sorted(by_reason.items(), key=lambda each: -len(each[1])):
                both = ([], rows) if number else (rows, [])
                part = "held-out " if number else ""
                yield self._finding("left_out", len(rows), read, *both, part=part, reason=reason)

    def sequences(self) -> Iterator[Finding]:
        """Yield what is counted by sequence."""
        table, room = self._table, self._view.room
        yield self._of_sequences("doubled_begin", table.doubled_begin)
        yield self._of_sequences("unknown_tokens", table.unknown > 0, tokens=int(table.unknown.sum()))
        if self._view.kind == "prompt":
            if room is not None and self._limit is not None:
                yield self._of_sequences("tight", table.length + room > self._limit, room=room)
            return
        masked, cut = table.trained == 0, table.lost_end > 0
        whole = ~masked & ~cut
        yield self._of_sequences("no_weight", masked)
        yield self._of_sequences("no_end", whole & ~table.ends, total=int(whole.sum()), ends=self._ends)
        yield self._of_sequences("lost_end", cut, largest=int(table.lost_end.max(initial=0)))

    def items(self) -> Iterator[Finding]:
        """Yield what is counted by item."""
        every = self._view.items
        pairs = [item for item in every if len(item.tokens) > 1]
        yield self._of_items("equal_sides", [one for one in pairs if len(set(token_key(one))) == 1], len(pairs))
        for name in ("tools_unwritten", "reasoning_unwritten", "sampled_further"):
            yield self._of_items(name, [item for item in every if getattr(item.facts, name)], len(every))
        shortened = [item for item in every if item.facts.lost_beginning]
        largest = max((item.facts.lost_beginning for item in shortened), default=0)
        yield self._of_items("lost_beginning", shortened, len(every), largest=largest)

    def repeats(self) -> Iterator[Finding]:
        """Yield items, and prompts, that occur more than once."""
        training = [item for item in self._view.items if not item.held_out]
        held_out = [item for item in self._view.items if item.held_out]
        trained_on = {token_key(item) for item in training}
        yield self._of_items("leak", [item for item in held_out if token_key(item) in trained_on], len(held_out))
        copies = repeats_of(training)
        yield self._of_items("duplicates", [training[number] for number in copies], len(training))
        prompts: set[bytes] = set()
        repeated: list[DataItem] = []
        for number, item in enumerate(training):
            if item.facts.lost_beginning:  # what is left of two prompts may be equal although they are not
                continue
            prompt = item.tokens[0][: item.facts.prompt_length].tobytes()
            if prompt in prompts and number not in copies:
                repeated.append(item)
            prompts.add(prompt)
        yield self._of_items("repeated_prompts", repeated, len(training))

    def _of_sequences(self, name: str, mask: np.ndarray, *, total: int | None = None, **numbers: object) -> Finding:
        items = [self._view.items[number] for number in self._table.item[mask]]
        return self._of_items(name, items, len(self._table) if total is None else total, **numbers)

    def _of_items(self, name: str, items: Sequence[DataItem], total: int, **numbers: object) -> Finding:
        """Return a finding about items; an item counts as often as it is there."""
        both: tuple[list[int], list[int]] = ([], [])
        for item in items:
            both[self._view.has_two_sources and item.held_out].append(item.facts.row)
        return self._finding(name, len(items), total, *both, **numbers)

    def _finding(
        self, name: str, count: int, total: int, rows: Iterable[int], held_out_rows: Iterable[int], **numbers: object
    ) -> Finding:
        fault = FAULTS[name]
        what, meaning, advice = (
            text.format(**{"limit": self._limit, **numbers}) for text in (fault.what, fault.meaning, fault.advice)
        )
        here, there = list(dict.fromkeys(rows)), list(dict.fromkeys(held_out_rows))
        named = [named_rows(here)] if here else []
        named += [f"held-out {named_rows(there)}"] if there else []
        where = f" ({'; '.join(named)})" if named else ""
        return Finding(
            name,
            fault.severity,
            count,
            total,
            tuple(here),
            tuple(there),
            f"{count:,} of {total:,} {what}{where}",
            meaning,
            advice,
        )
