r"""Prompts with one completion each and a label that says whether the completion is desirable, for KTO and BCO.

Every source of rows may have one of these formats:

*label* beside *prompt* and *completion* (TRL's unpaired preference format), *messages*, or any other format of
:func:`mint_lab.data.load_completions`. True or 1: the completion is desirable; False or 0: it is undesirable.

*chosen* and *rejected*: pairs in the formats of :func:`mint_lab.data.load_pairs`. Each becomes two completions, the
chosen one desirable and the rejected one undesirable, as TRL's ``unpair_preference_dataset`` makes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import DataError
from .chats import kind_of
from .completions import completion_of
from .pairs import Pair, pair_of
from .render import Rendered, describe_changes, render
from .sources import Rows

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["LabelledRow", "describe_unpaired", "label_of", "render_unpaired", "unpaired_to_data"]

LABEL = "label"
WITHOUT_LABEL = (
    "expected 'label' (True: desirable, False: undesirable) beside 'prompt' and 'completion', 'messages' or another "
    "format of one completion; or 'chosen' and 'rejected'"
)


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A tokenized row.

    Attributes:
        index: Number of the row in its source, from 0.
        labels: Whether each completion is desirable: one label, or (True, False) of a pair.
        rendered: The prompt with these completions.
    """

    index: int
    labels: tuple[bool, ...]
    rendered: Rendered

    def data(self) -> list[Datum]:
        """Return one datum per completion, with ``loss_fn_inputs["label"]``: int64 of shape ``(1,)``, 1 or 0."""
        from ..types import Datum, TensorData

        return [
            Datum(
                model_input=datum.model_input,
                loss_fn_inputs={**datum.loss_fn_inputs, LABEL: TensorData.from_numpy(np.array([label], np.int64))},
            )
            for datum, label in zip(self.rendered.data(), self.labels, strict=True)
        ]


def unpaired_to_data(rows: Any, tokenizer: Any, *, max_length: int | None = None) -> list[Datum]:
    """Tokenize labelled completions into datums: one for each completion, two for a pair.

    A datum has ``weights`` (0 on the prompt) and ``label``, one number of shape ``(1,)``: 1 if the completion is
    desirable, 0 if it is undesirable. ``mint_lab.data.with_reference`` adds what the losses also read.

    Args:
        rows: A source as in :func:`mint_lab.data.load_pairs`, with rows in this module's formats; an iterable may also
            hold :class:`~mint_lab.data.Pair` objects.
        tokenizer: A transformers tokenizer.
        max_length: Maximum tokens of prompt and completion; None for no limit. The prompt loses its beginning first;
            one ``UserWarning`` says how many were truncated.

    Raises:
        ConfigError: If ``tokenizer`` is not a tokenizer.
        DataError: If there are no rows, a row has none of the formats or a label that is not one, or
            :func:`mint_lab.data.encode` raises one. ``error.index`` is the row (from 0), ``error.field`` the column.
    """
    given = Rows.of(rows)
    found = render_unpaired(given, tokenizer, max_length=max_length)
    if notes := [note for note in (given.note(), *describe_unpaired(found, max_length)) if note]:
        warnings.warn("; ".join(notes), UserWarning, stacklevel=2)
    return [datum for row in found for datum in row.data()]


def render_unpaired(given: Rows, tokenizer: Any, *, max_length: int | None = None) -> list[LabelledRow]:
    """Tokenize labelled rows. Raises as :func:`unpaired_to_data`."""

    def tokenized(row: Any, index: int) -> LabelledRow:
        labels, prompt, completions = _judged(row, index)
        return LabelledRow(index, labels, render(tokenizer, prompt, completions, max_length=max_length))

    return given.map(tokenized)


def describe_unpaired(found: Sequence[LabelledRow], max_length: int | None) -> list[str]:
    """Return sentences about rows that lost something."""
    return describe_changes([(row.index, row.rendered) for row in found], max_length)


def label_of(value: Any, index: int | None = None) -> bool:
    """Return a label as a bool.

    Args:
        value: A bool, 0 or 1, or one of numpy.
        index: The row's index, for the error.

    Raises:
        DataError: If it is anything else.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, int) and plain in (0, 1):  # a bool is an int
        return bool(plain)
    given = kind_of(plain)
    if isinstance(plain, str | int | float) and not given.startswith("nothing"):
        given = repr(plain)[:40]
    raise DataError(
        f"found {given}, expected True (desirable) or False (undesirable), or 1 or 0", index=index, field=LABEL
    )


def _judged(row: Any, index: int) -> tuple[tuple[bool, ...], Any, tuple[Any, ...]]:
    """Return the labels, the prompt and the completions of a row in any format."""
    if isinstance(row, Pair) or (isinstance(row, Mapping) and "chosen" in row and "rejected" in row):
        pair = pair_of(row, index)
        return (True, False), pair.prompt, (pair.chosen, pair.rejected)
    if not isinstance(row, Mapping):
        raise DataError(f"found {kind_of(row)}, expected a row with named columns, or a Pair", index=index)
    named = cast("Mapping[str, Any]", row)
    if LABEL not in named:
        names = ", ".join(repr(str(name)) for name in named) or "none"
        raise DataError(f"found the columns {names}; {WITHOUT_LABEL}", index=index, field=LABEL)
    prompt, completion = completion_of(named, index, "unpaired preferences, beside 'label',")
    return (label_of(named[LABEL], index),), prompt, (completion,)
