"""The message about the data of a run: the only definition of its parts.

``widgets/generate_from_python.py`` writes the TypeScript types in ``widgets/src/data_messages.ts`` from this module;
:mod:`mint_lab.ui.messages` says when it is sent.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from .messages import Tokens

__all__ = ["DataReport", "FindingEntry", "LengthsEntry", "NumberEntry"]


class NumberEntry(TypedDict):
    """A number about the data, as text, with its name."""

    name: str
    value: str


class FindingEntry(TypedDict):
    """Something about the data that a person should know.

    Attributes:
        message: What was found, with the number and the first rows.
        meaning: What follows for the training.
        advice: What to do.
    """

    severity: Literal["warning", "note"]
    message: str
    meaning: str
    advice: str


class LengthsEntry(TypedDict):
    """How many sequences have how many tokens: bin k counts lengths from ``start + k * width`` on.

    Attributes:
        longest: The largest length.
        limit: Longest sequence that is trained on; None if there is no limit of this length.
    """

    name: str
    start: int
    width: int
    counts: list[int]
    longest: int
    limit: int | None


class DataReport(TypedDict):
    """The data of a run, and the tokens of some rows.

    Attributes:
        status: "loading" while the tokenizer and the data are loaded, "failed" if they cannot be.
        problem: Why they cannot be loaded; empty if they can.
        heading: How many items there are, and how many findings.
        about: The recipe, the model and the limit, in words.
        findings: The most serious first.
        items: Number of items that can be shown.
        item: Which of them ``tokens`` shows, counted from 0 in the order of the rows; None: some noteworthy ones.
        row: Number of its row.
        held_out: Whether it is held out.
        has_two_sources: Whether held-out rows are other data, with numbers of their own.
        tokens: The rows that are shown, with the weight of each token.
    """

    status: Literal["loading", "ready", "failed"]
    problem: str
    heading: str
    about: str
    numbers: list[NumberEntry]
    findings: list[FindingEntry]
    lengths: list[LengthsEntry]
    items: int
    item: int | None
    row: int | None
    held_out: bool
    has_two_sources: bool
    tokens: Tokens | None
