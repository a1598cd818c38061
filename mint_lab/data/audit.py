"""What prepared data consist of: lengths, weights, and the faults that training does not show. Plain numpy.

A recipe's job describes its data as a :class:`DataView`; nothing here tokenizes, so the numbers are those of the tokens
that are trained on. A *sequence* is a prompt with one completion; a pair is an item of two sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from .render import RowFacts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ..types import Datum

__all__ = [
    "DataItem",
    "DataView",
    "ItemKind",
    "LengthHistogram",
    "SequenceTable",
    "TokenMarks",
    "count_lengths",
    "item_of_prompt",
    "items_of_datums",
    "noteworthy",
    "repeats_of",
    "token_key",
]

ItemKind: TypeAlias = Literal["pair", "completion", "prompt"]
"""What an item is: a prompt with a chosen and a rejected completion, with one completion, or alone."""

SIDES: dict[int, tuple[str, ...]] = {1: ("completion",), 2: ("chosen", "rejected")}
MAX_BINS = 40


@dataclass(frozen=True, slots=True)
class DataItem:
    """What a batch counts as one: a pair, an example, a prompt.

    Attributes:
        facts: Its row, and what the row lost.
        held_out: Whether it is evaluated instead of trained on.
        sides: What each sequence is: "chosen", "rejected", "completion", "desirable", "undesirable" or "prompt".
        tokens: Token ids of each sequence, ``(N_i,)``.
        weights: Weight of each token, ``(N_i,)``; 0 for the first one, which nothing predicts.
    """

    facts: RowFacts
    held_out: bool
    sides: tuple[str, ...]
    tokens: tuple[NDArray[np.int64], ...]
    weights: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class DataView:
    """The data of a job.

    Attributes:
        kind: What an item is.
        items: Training items and held-out items, each in the order of the job.
        read: Rows read, of the training data and of the held-out data; 0 if they were generated, or held out of the
            training data.
        skipped: Why rows were left out, by number; of the training data and of the held-out data.
        has_rows: Whether the numbers of rows are those of the data; if not, they are positions in the job.
        room: Longest response that is sampled after a prompt, tokens; None if there are completions.
    """

    kind: ItemKind
    items: Sequence[DataItem]
    read: tuple[int, int] = (0, 0)
    skipped: tuple[Mapping[int, str], Mapping[int, str]] = field(default_factory=lambda: ({}, {}))
    has_rows: bool = True
    room: int | None = None

    @property
    def has_two_sources(self) -> bool:
        """Whether held-out rows are other data, with numbers of their own."""
        return self.read[1] > 0


@dataclass(frozen=True)
class TokenMarks:
    """What the tokens of a model mean.

    Attributes:
        ends: Tokens that end a sample.
        begin: The beginning-of-text token, if there is one.
        unknown: The token that stands for unknown text, if there is one.
        is_blank: Whether a token is white space alone.
    """

    ends: frozenset[int]
    begin: int | None
    unknown: int | None
    is_blank: Callable[[int], bool]

    @classmethod
    def of(cls, tokenizer: Any, ends: frozenset[int]) -> TokenMarks:
        """Return the marks of a tokenizer; ``ends`` are the tokens that end a sample."""
        known: dict[int, bool] = {}

        def is_blank(token: int) -> bool:
            if token not in known:
                known[token] = not str(tokenizer.decode([token])).strip()
            return known[token]

        marks = (getattr(tokenizer, name, None) for name in ("bos_token_id", "unk_token_id"))
        begin, unknown = (None if mark is None else int(mark) for mark in marks)
        return cls(ends, begin, None if unknown in ends else unknown, is_blank)


@dataclass(frozen=True)
class LengthHistogram:
    """How many sequences have how many tokens.

    Attributes:
        name: What is measured.
        start: Smallest length of the first bin.
        width: Lengths of a bin: bin k counts ``start + k * width`` to ``start + (k + 1) * width - 1`` tokens.
        counts: Sequences by bin.
        longest: The largest length.
        limit: Longest sequence that is trained on; None if there is no limit, or if it is not a limit of this length.
    """

    name: str
    start: int
    width: int
    counts: tuple[int, ...]
    longest: int
    limit: int | None = None


def items_of_datums(
    data: Sequence[Datum], unit: int, facts: Sequence[RowFacts] | None, *, held_out: bool
) -> list[DataItem]:
    """Return the items of datums.

    Args:
        data: ``unit`` consecutive datums per item.
        unit: Datums per item.
        facts: One per item; None if they are unknown: the prompt then ends before the first token with a weight.
        held_out: Whether the items are held out.
    """
    names = SIDES.get(unit) or tuple(str(number) for number in range(1, unit + 1))
    items: list[DataItem] = []
    for position in range(len(data) // unit):
        datums = data[unit * position : unit * (position + 1)]
        pairs = [_sequence(datum) for datum in datums]
        tokens, weights = zip(*pairs, strict=True)
        fact = RowFacts(position, _first_weighted(weights[0])) if facts is None else facts[position]
        sides = tuple(_labelled(name, datum) for name, datum in zip(names, datums, strict=True))
        items.append(DataItem(fact, held_out, sides, tokens, weights))
    return items


def _labelled(name: str, datum: Datum) -> str:
    """Return "desirable" or "undesirable" if the datum has one label, 1 or 0; otherwise ``name``."""
    label = datum.loss_fn_inputs.get("label")
    if label is None or label.to_numpy().shape != (1,):
        return name
    return "desirable" if label.to_numpy().item() else "undesirable"


def item_of_prompt(tokens: Sequence[int], row: int, *, held_out: bool) -> DataItem:
    """Return the item of a prompt without a completion.

    Args:
        tokens: Token ids of the prompt.
        row: The number of its row.
        held_out: Whether it is held out.
    """
    ids = np.asarray(tokens, dtype=np.int64)
    return DataItem(RowFacts(row, len(ids)), held_out, ("prompt",), (ids,), (np.zeros(len(ids), dtype=np.float32),))


def _sequence(datum: Datum) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return tokens and weights of a datum, ``(N + 1,)`` each."""
    inputs = np.asarray(datum.model_input.to_ints(), dtype=np.int64)
    targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
    given = datum.loss_fn_inputs.get("weights")
    weights = np.ones(len(inputs), dtype=np.float32) if given is None else given.to_numpy().astype(np.float32)
    if targets.ndim > 1:  # soft targets, (N, K): the first of each is shown, and a position counts if any of them does
        targets = targets[:, 0]
        weights = weights.sum(axis=1) if weights.ndim > 1 else weights
    tokens = np.concatenate([inputs, targets[-1:].astype(np.int64)])
    return tokens, np.concatenate([np.zeros(1, dtype=np.float32), weights])


def _first_weighted(weights: NDArray[np.float32]) -> int:
    weighted = np.flatnonzero(weights)
    return int(weighted[0]) if len(weighted) else len(weights)


class SequenceTable:
    """Numbers about every sequence of a data set.

    Args:
        view: The data.
        marks: What the tokens mean.

    Attributes:
        item: Position of the item of each sequence; all columns have shape ``(sequences,)``.
        side: Position of the sequence in its item.
        length, prompt, completion, trained: Tokens: all, those of the prompt, those of the completion, and those whose
            weight is not 0.
        ends: Whether the last trained token ends a sample. Trained white space after it does not count: chat templates
            write a line break there. False if no token is trained.
        lost_end: Tokens that the completion lost at its end.
        doubled_begin: Whether the sequence begins with two beginning-of-text tokens.
        unknown: Unknown tokens.
    """

    def __init__(self, view: DataView, marks: TokenMarks) -> None:
        self.view = view
        flat = [
            (number, side, tokens, weights)
            for number, item in enumerate(view.items)
            for side, (tokens, weights) in enumerate(zip(item.tokens, item.weights, strict=True))
        ]
        self.item = np.array([number for number, *_ in flat], dtype=np.int64)
        self.side = np.array([side for _, side, *_ in flat], dtype=np.int64)
        self.length = np.array([len(tokens) for _, _, tokens, _ in flat], dtype=np.int64)
        self.prompt = np.array([view.items[number].facts.prompt_length for number, *_ in flat], dtype=np.int64)
        self.completion = self.length - self.prompt
        self.trained = np.array([np.count_nonzero(weights) for *_, weights in flat], dtype=np.int64)
        self.ends = np.array([_ends(tokens, weights, marks) for _, _, tokens, weights in flat], dtype=bool)
        self.lost_end = np.array([_lost_end(view.items[number], side) for number, side, *_ in flat], dtype=np.int64)
        self.doubled_begin = np.array(
            [marks.begin is not None and tokens[:2].tolist() == [marks.begin] * 2 for _, _, tokens, _ in flat],
            dtype=bool,
        )
        self.unknown = np.array(
            [0 if marks.unknown is None else np.count_nonzero(tokens == marks.unknown) for _, _, tokens, _ in flat],
            dtype=np.int64,
        )

    def __len__(self) -> int:
        return len(self.item)

    @property
    def row(self) -> NDArray[np.int64]:
        """Number of the row of each sequence."""
        return np.array([self.view.items[number].facts.row for number in self.item], dtype=np.int64)

    def frame(self) -> pd.DataFrame:
        """Return one row per sequence, in the order of the job."""
        import pandas as pd

        items = [self.view.items[number] for number in self.item]
        return pd.DataFrame(
            {
                "row": self.row,
                "held_out": [item.held_out for item in items],
                "side": [item.sides[side] for item, side in zip(items, self.side, strict=True)],
                "tokens": self.length,
                "prompt_tokens": self.prompt,
                "completion_tokens": self.completion,
                "trained_tokens": self.trained,
                "ends": self.ends,
                "lost_beginning": [item.facts.lost_beginning for item in items],
                "lost_end": self.lost_end,
                "repeats": [repeats.get(number) for repeats in (repeats_of(self.view.items),) for number in self.item],
            }
        ).astype({"repeats": "Int64"})


def _ends(tokens: NDArray[np.int64], weights: NDArray[np.float32], marks: TokenMarks) -> bool:
    """Return whether the last trained token, apart from white space after it, ends a sample."""
    for place in np.flatnonzero(weights)[::-1].tolist():
        token = int(tokens[place])
        if token in marks.ends:
            return True
        if not marks.is_blank(token):
            return False
    return False


def _lost_end(item: DataItem, side: int) -> int:
    return item.facts.lost_ends[side] if side < len(item.facts.lost_ends) else 0


def token_key(item: DataItem) -> tuple[bytes, ...]:
    """Return what is equal for two items with equal tokens."""
    return tuple(tokens.tobytes() for tokens in item.tokens)


def repeats_of(items: Iterable[DataItem]) -> dict[int, int]:
    """Return the positions of items with the tokens of an earlier one, each with the row of the first such item."""
    first: dict[tuple[bytes, ...], int] = {}
    found: dict[int, int] = {}
    for number, item in enumerate(items):
        key = token_key(item)
        if key in first:
            found[number] = first[key]
        else:
            first[key] = item.facts.row
    return found


def count_lengths(name: str, lengths: NDArray[np.int64], limit: int | None = None) -> LengthHistogram:
    """Return the histogram of ``lengths``, in at most ``MAX_BINS`` bins of equal width.

    Args:
        name: What is measured.
        lengths: Tokens, ``(sequences,)``, at least one.
        limit: Longest sequence that is trained on.
    """
    low, high = int(lengths.min()), int(lengths.max())
    width = next(width for width in _round_numbers() if high // width - low // width < MAX_BINS)
    start = low // width * width
    counts = np.bincount((lengths - start) // width)
    return LengthHistogram(name, start, width, tuple(counts.tolist()), high, limit)


def _round_numbers() -> Iterable[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    scale = 1
    while True:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10


def noteworthy(table: SequenceTable) -> list[tuple[int, str]]:
    """Return positions of items that are worth a look, with what each is, at most one per reason.

    The first item, the longest, one that lost its end, one that lost its beginning, one without a trained token, and
    one that does not end.
    """
    if not len(table):
        return []
    is_trained = table.view.kind != "prompt"
    lost_beginning = np.array([table.view.items[number].facts.lost_beginning for number in table.item])
    reasons = [
        ("first", np.arange(len(table)) == 0),
        ("longest", np.arange(len(table)) == int(table.length.argmax())),
        ("completion lost its end", table.lost_end > 0),
        ("prompt lost its beginning", lost_beginning > 0),
        ("no token is trained", (table.trained == 0) & is_trained),
        ("no end token", ~table.ends & (table.trained > 0) & (table.lost_end == 0) & is_trained),
    ]
    found: dict[int, list[str]] = {}
    for reason, mask in reasons:
        if mask.any():
            found.setdefault(int(table.item[int(mask.argmax())]), []).append(reason)
    return [(number, ", ".join(names)) for number, names in found.items()]
