"""Datums and numbers about their tokens as one :class:`~mint_lab.ui.messages.Tokens` message. Plain numpy.

Input and targets of a datum are one sequence of ``N + 1`` tokens; a number about target ``i`` is shown at token
``i + 1``. The model does not predict the first token, so it has no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import ConfigError, DataError, one_of
from .messages import TokenColumn, TokenRow, Tokens
from .token_text import token_text
from .utf8 import as_utf8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data.audit import DataItem
    from ..runs.token_inspection import HeldOutTokens

__all__ = ["tokens_message", "tokens_of", "weights_message"]

SCALE_QUANTILE = 0.99  # a colour scale ends here if single tokens lie far beyond it


@dataclass(frozen=True)
class _ColumnKind:
    unit: str
    note: str
    scale: Literal["diverging", "ratio", "sequential"]


# In the order of the page's select; other columns come last.
COLUMN_KINDS = {
    "gradient": _ColumnKind("dLoss / dlogprob", "below 0: a step makes the token likelier", "diverging"),
    "logprob": _ColumnKind("nats", "0: certain", "sequential"),
    "ratio": _ColumnKind("", "above 1: likelier than when it was sampled", "ratio"),
    "advantage": _ColumnKind("", "above 0: better than expected", "diverging"),
    "reference_log_ratio": _ColumnKind("nats", "above 0: likelier than under the reference", "diverging"),
    "weight": _ColumnKind("", "0: does not count", "sequential"),
    "sampling_logprob": _ColumnKind("nats", "0: certain", "sequential"),
    "reference_logprob": _ColumnKind("nats", "0: certain", "sequential"),
}
COLUMN_OF_FIELD = {
    "weights": "weight",
    "logprobs": "sampling_logprob",
    "advantages": "advantage",
    "reference_logprobs": "reference_logprob",
}


def tokens_message(
    data: Sequence[Any],
    tokenizer: Any,
    values: Mapping[str, Sequence[Any]],
    *,
    by: str | None = None,
    pairs: bool | None = None,
    titles: Sequence[str] | None = None,
    step: int | None = None,
    about: str = "",
) -> Tokens:
    """Return datums, with the numbers in them and ``values``, as a message.

    Args:
        data: Datums with ``target_tokens``.
        tokenizer: Anything with ``decode``; None shows token ids.
        values: Further columns by name: one array ``(N_i,)`` per datum.
        by: Column that colours; None for the first one.
        pairs: Whether the datums are consecutive (chosen, rejected) pairs; None: decide by their prompts.
        titles: One per item (a pair, or a datum).
        step: Steps of training completed; None if unknown.
        about: The loss whose gradient is shown.

    Raises:
        ConfigError: If there is no column ``by``, or the number of titles is wrong.
        DataError: If there are no datums, one of them is something else, or an array has the wrong length.
    """
    sequences = _sequences(data)
    columns = _columns(data, sequences, values)
    if by is None:
        by = next(iter(columns))
    elif by not in columns:
        raise ConfigError(f"there is no {by!r} of these tokens; {one_of(list(columns), by)}")
    weights = columns.get("weight")
    if pairs is None:
        pairs = "advantage" not in columns and _look_like_pairs(sequences, weights)
    elif pairs and len(data) % 2:
        raise DataError(f"got {len(data)} datums, expected consecutive (chosen, rejected) pairs")
    rows = _rows(sequences, weights, pairs, titles)
    return _message(sequences, columns, rows, tokenizer, by=by, step=step, about=about)


def weights_message(items: Sequence[DataItem], tokenizer: Any, titles: Sequence[str]) -> Tokens:
    """Return the items of a data set, with the weight of every token, as a message.

    Args:
        items: The items.
        tokenizer: Anything with ``decode``.
        titles: One per item.
    """
    rows: list[TokenRow] = []
    start = 0
    for number, (item, title) in enumerate(zip(items, titles, strict=True)):
        for side, tokens in zip(item.sides, item.tokens, strict=True):
            role: Literal["", "chosen", "rejected"] = side if side in {"chosen", "rejected"} else ""  # type: ignore[assignment]
            row = TokenRow(
                item=number, title=title, role=role, start=start, length=len(tokens), shared=item.facts.prompt_length
            )
            rows.append(row)
            start += len(tokens)
    weights = [each.astype(np.float64) for item in items for each in item.weights]
    for each in weights:
        each[0] = np.nan
    sequences = [tokens for item in items for tokens in item.tokens]
    return _message(sequences, {"weight": weights}, rows, tokenizer, by="weight", step=None, about="")


def _message(
    sequences: Sequence[NDArray[np.int64]],
    columns: Mapping[str, Sequence[NDArray[np.float64]]],
    rows: list[TokenRow],
    tokenizer: Any,
    *,
    by: str,
    step: int | None,
    about: str,
) -> Tokens:
    weights = columns.get("weight")
    ids = np.concatenate(sequences)  # (n,), n tokens of all sequences
    distinct, pieces = np.unique(ids, return_inverse=True)
    texts = [f"⟨{token}⟩" if tokenizer is None else token_text(tokenizer, int(token)) for token in distinct]
    flat = {name: np.concatenate(column) for name, column in columns.items()}  # (n,) each
    has_weight = np.nan_to_num(np.concatenate(weights)) != 0 if weights else np.ones(len(ids), dtype=bool)
    return Tokens(
        step=step,
        about=as_utf8(about),
        by=as_utf8(by),
        rows=as_utf8(rows),
        columns=as_utf8([_token_column(name, column, has_weight) for name, column in flat.items()]),
        texts=texts,
        ids=ids.astype("<i4").tobytes(),
        pieces=pieces.astype("<i4").tobytes(),
        values=np.stack(list(flat.values())).astype("<f4").tobytes(),
    )


def tokens_of(held_out: HeldOutTokens) -> Tokens:
    """Return a few examples of a run as a message."""
    values = {"logprob": held_out.logprobs} | ({"gradient": held_out.gradients} if held_out.gradients else {})
    return tokens_message(
        held_out.data,
        held_out.tokenizer,
        values,
        pairs=held_out.pairs,
        titles=held_out.titles,
        step=held_out.step,
        about=held_out.loss,
    )


def _sequences(data: Sequence[Any]) -> list[NDArray[np.int64]]:
    """Return input and targets of each datum as one sequence, ``(N_i + 1,)``."""
    if isinstance(data, str | bytes) or not isinstance(data, Sequence):
        raise DataError(f"got {type(data).__name__}, expected a list of Datum")
    if not data:
        raise DataError("the list of datums is empty, expected at least one Datum")
    sequences: list[NDArray[np.int64]] = []
    for index, datum in enumerate(data):
        try:
            inputs = datum.model_input.to_ints()
            targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(
                f"found {type(datum).__name__}, expected a Datum of text tokens with target_tokens", index=index
            ) from None
        if targets.shape != (len(inputs),) or not len(inputs):
            raise DataError(f"shape {targets.shape}, expected ({len(inputs)},)", index=index, field="target_tokens")
        sequences.append(np.concatenate([inputs[:1], targets]).astype(np.int64))
    return sequences


def _columns(
    data: Sequence[Any], sequences: list[NDArray[np.int64]], values: Mapping[str, Sequence[Any]]
) -> dict[str, list[NDArray[np.float64]]]:
    """Return all columns, ``(N_i + 1,)`` per datum; nan at the first token, and if a datum lacks the field."""
    columns: dict[str, list[NDArray[np.float64]]] = {}
    for field, name in COLUMN_OF_FIELD.items():
        if any(field in datum.loss_fn_inputs for datum in data):
            columns[name] = [
                _numbers(datum.loss_fn_inputs.get(field), len(tokens), index, field)
                for index, (datum, tokens) in enumerate(zip(data, sequences, strict=True))
            ]
    for name, arrays in values.items():
        if len(arrays) != len(data):
            raise DataError(f"{len(arrays)} arrays for {len(data)} datums, expected one each", field=name)
        columns[name] = [
            _numbers(array, len(tokens), index, name)
            for index, (array, tokens) in enumerate(zip(arrays, sequences, strict=True))
        ]
    if "logprob" in columns and "sampling_logprob" in columns:
        both = zip(columns["logprob"], columns["sampling_logprob"], strict=True)
        columns.setdefault("ratio", [np.exp(np.clip(now - sampled, -80, 80)) for now, sampled in both])
    if "logprob" in columns and "reference_logprob" in columns:
        both = zip(columns["logprob"], columns["reference_logprob"], strict=True)
        columns.setdefault("reference_log_ratio", [now - reference for now, reference in both])
    if not columns:
        raise DataError(
            "these datums have no weights, logprobs or advantages; give values=, result=, or a training client"
        )
    order = [*(name for name in COLUMN_KINDS if name in columns), *(n for n in columns if n not in COLUMN_KINDS)]
    return {name: columns[name] for name in order}


def _numbers(given: Any, length: int, index: int, field: str) -> NDArray[np.float64]:
    """Return ``given``, ``(N,)`` of any array type, as ``(N + 1,)`` with nan first; for None, nan everywhere.

    Args:
        given: One number per target, or None.
        length: N + 1.
        index: Position of the datum, for messages.
        field: Name of the field or column, for messages.
    """
    numbers = np.full(length, np.nan)
    if given is None:
        return numbers
    if hasattr(given, "detach"):  # a tensor
        given = given.detach().cpu()
    elif hasattr(given, "to_numpy"):
        given = given.to_numpy()
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"found {type(given).__name__}, expected one number per token", index=index, field=field
        ) from None
    if array.shape != (length - 1,):
        message = f"shape {array.shape}, expected ({length - 1},): one number per target"
        raise DataError(message, index=index, field=field)
    numbers[1:] = np.where(np.isfinite(array), array, np.nan)
    return numbers


def _prompt_length(tokens: NDArray[np.int64], weights: NDArray[np.float64] | None) -> int:
    """Return the number of tokens before the first one with a nonzero weight; 0 without weights."""
    if weights is None:
        return 0
    weighted = np.flatnonzero(np.nan_to_num(weights) != 0)
    return int(weighted[0]) if len(weighted) else len(tokens)


def _shared_length(
    one: NDArray[np.int64], two: NDArray[np.int64], weights: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> int:
    """Return the length of the common prefix of two sequences; with weights, only of their prompts."""
    longest = min(len(one), len(two))
    if weights is not None:
        longest = min(_prompt_length(one, weights[0]), _prompt_length(two, weights[1]), longest)
    different = np.flatnonzero(one[:longest] != two[:longest])
    return int(different[0]) if len(different) else longest


def _look_like_pairs(sequences: list[NDArray[np.int64]], weights: list[NDArray[np.float64]] | None) -> bool:
    """Return whether the sequences come in couples with one prompt each, and not all with one, as a sampled group."""
    if len(sequences) % 2 or weights is None:
        return False
    prompts = [tuple(s[: _prompt_length(s, w)].tolist()) for s, w in zip(sequences, weights, strict=True)]
    are_couples = all(prompts[i] and prompts[i] == prompts[i + 1] for i in range(0, len(prompts), 2))
    return are_couples and (len(prompts) == 2 or len(set(prompts)) > 1)


def _rows(
    sequences: list[NDArray[np.int64]],
    weights: list[NDArray[np.float64]] | None,
    pairs: bool,
    titles: Sequence[str] | None,
) -> list[TokenRow]:
    unit = 2 if pairs else 1
    items = len(sequences) // unit
    if titles is not None and len(titles) != items:
        raise ConfigError(f"{len(titles)} titles, expected {items}: one per {'pair' if pairs else 'datum'}")
    rows: list[TokenRow] = []
    start = 0
    for index, tokens in enumerate(sequences):
        item, side = divmod(index, unit)
        if pairs:
            chosen = index - side
            pair_weights = (weights[chosen], weights[chosen + 1]) if weights else None
            shared = _shared_length(sequences[chosen], sequences[chosen + 1], pair_weights)
        else:
            shared = _prompt_length(tokens, weights[index] if weights else None)
            shared = 0 if shared == len(tokens) else shared
        title = str(titles[item]) if titles is not None else f"{'pair' if pairs else 'sequence'} {item + 1}"
        role: Literal["", "chosen", "rejected"] = ("chosen", "rejected")[side] if pairs else ""
        row = TokenRow(item=item, title=title, role=role, start=start, length=len(tokens), shared=shared)
        rows.append(row)
        start += len(tokens)
    return rows


def _token_column(name: str, values: NDArray[np.float64], has_weight: NDArray[np.bool_]) -> TokenColumn:
    """Return a column with the ends of its colour scale, computed from the tokens with a nonzero weight.

    Args:
        name: Name of the column.
        values: ``(n,)``, tokens of all sequences.
        has_weight: ``(n,)``.
    """
    weighted = values[has_weight & np.isfinite(values)]
    kind = COLUMN_KINDS.get(name)
    scale = kind.scale if kind else "diverging" if (weighted < 0).any() else "sequential"
    if scale == "sequential" and (weighted < 0).any() and (weighted > 0).any():
        scale = "diverging"
    if scale == "ratio":
        high = math.exp(_scale_end(np.abs(np.log(weighted[weighted > 0])), 0.1))
        low = 1 / high
    elif scale == "diverging":
        nonzero = values[np.isfinite(values) & (values != 0)]  # also without weight: shows a loss that ignores weights
        high = _scale_end(np.abs(nonzero), 1.0)
        low = -high
    elif (weighted < 0).any():
        low, high = -_scale_end(-weighted, 1.0), 0.0
    else:
        low, high = 0.0, _scale_end(weighted, 1.0)
    unit, note = (kind.unit, kind.note) if kind else ("", "")
    return TokenColumn(name=name, unit=unit, note=note, scale=scale, low=low, high=high)


def _scale_end(sizes: NDArray[np.float64], default: float) -> float:
    """Return the end of a scale that starts at 0: the largest size, rounded up to two digits.

    If a few tokens are far larger than all others, the scale ends at a quantile, so that the others keep their colour.

    Args:
        sizes: Absolute values, ``(n,)``.
        default: Result if no size is above 0.
    """
    if not len(sizes) or not sizes.max() > 0:
        return default
    usual, largest = float(np.quantile(sizes, SCALE_QUANTILE)), float(sizes.max())
    end = usual if 0 < usual < largest / 2 else largest
    unit = 10.0 ** (math.floor(math.log10(end)) - 1)  # of the second digit
    return float(f"{math.ceil(end / unit - 1e-9) * unit:.2g}")
