"""Datums and numbers about their tokens as one :class:`~mint_lab.ui.protocol.Tokens` message. Plain numpy.

A datum's input and targets are one sequence of ``N + 1`` tokens; what a datum says of target ``i`` is shown at token
``i + 1``. The first token is predicted by nothing and has no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import ConfigError, DataError, one_of
from .protocol import TokenColumn, TokenRow, Tokens
from .token_text import piece
from .wire import travels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runs.token_inspection import HeldOutTokens

__all__ = ["tokens_message", "tokens_of"]

_QUANTILE = 0.99  # where a scale ends when single tokens lie far beyond it


@dataclass(frozen=True)
class _Kind:
    unit: str
    note: str
    scale: Literal["diverging", "ratio", "sequential"]


# In the order of the select; what is not named here comes last.
_KINDS = {
    "gradient": _Kind("dLoss / dlogprob", "below 0: a step makes the token likelier", "diverging"),
    "logprob": _Kind("nats", "0: certain", "sequential"),
    "ratio": _Kind("", "above 1: likelier than when it was sampled", "ratio"),
    "advantage": _Kind("", "above 0: better than expected", "diverging"),
    "reference_log_ratio": _Kind("nats", "above 0: likelier than under the reference", "diverging"),
    "weight": _Kind("", "0: does not count", "sequential"),
    "sampling_logprob": _Kind("nats", "0: certain", "sequential"),
    "reference_logprob": _Kind("nats", "0: certain", "sequential"),
}
# Field of a datum -> column.
_FIELDS = {
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
    """``data`` with what they hold and ``values`` (column name -> one array a datum, ``(N_i,)``).

    Args:
        tokenizer: anything with ``decode``; None shows token ids.
        by: the column that colours; None for the first there is.
        pairs: whether datums come as (chosen, rejected); None looks at the prompts.
        titles: one an item (a pair, or a datum).

    Raises:
        ConfigError: no such column, or titles of another number.
        DataError: no datums, something that is none, or numbers of another length.
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
    ids = np.concatenate(sequences)
    known, pieces = np.unique(ids, return_inverse=True)
    texts = [f"⟨{token}⟩" if tokenizer is None else piece(tokenizer, int(token)) for token in known]
    flat = {name: np.concatenate(column) for name, column in columns.items()}
    live = np.nan_to_num(np.concatenate(weights)) != 0 if weights else np.ones(len(ids), dtype=bool)
    return Tokens(
        step=step,
        about=travels(about),
        by=travels(by),
        rows=travels(rows),
        columns=travels([_described(name, column, live) for name, column in flat.items()]),
        texts=texts,
        ids=ids.astype("<i4").tobytes(),
        pieces=pieces.astype("<i4").tobytes(),
        values=np.stack(list(flat.values())).astype("<f4").tobytes(),
    )


def tokens_of(held_out: HeldOutTokens) -> Tokens:
    """What a run has to show, as a message."""
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
    """Input and targets of each datum as one sequence, ``(N_i + 1,)``."""
    if isinstance(data, str | bytes) or not isinstance(data, Sequence):
        raise DataError(f"got {type(data).__name__}, expected a list of Datum")
    if not data:
        raise DataError("the list of datums is empty, expected at least one Datum")
    sequences: list[NDArray[np.int64]] = []
    for index, datum in enumerate(data):
        try:
            first = datum.model_input.to_ints()
            targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(
                f"found {type(datum).__name__}, expected a Datum of text tokens with target_tokens", index=index
            ) from None
        if targets.shape != (len(first),) or not len(first):
            raise DataError(f"shape {targets.shape}, expected ({len(first)},)", index=index, field="target_tokens")
        sequences.append(np.concatenate([first[:1], targets]).astype(np.int64))
    return sequences


def _columns(
    data: Sequence[Any], sequences: list[NDArray[np.int64]], values: Mapping[str, Sequence[Any]]
) -> dict[str, list[NDArray[np.float64]]]:
    """Every number there is, ``(N_i + 1,)`` a datum, nan at the first token and where a datum has no such field."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for field, name in _FIELDS.items():
        if any(field in datum.loss_fn_inputs for datum in data):
            found[name] = [
                _numbers(datum.loss_fn_inputs.get(field), len(tokens), index, field)
                for index, (datum, tokens) in enumerate(zip(data, sequences, strict=True))
            ]
    for name, given in values.items():
        if len(given) != len(data):
            raise DataError(f"{len(given)} arrays for {len(data)} datums, expected one each", field=name)
        found[name] = [
            _numbers(each, len(tokens), index, name)
            for index, (each, tokens) in enumerate(zip(given, sequences, strict=True))
        ]
    if "logprob" in found and "sampling_logprob" in found:
        gaps = zip(found["logprob"], found["sampling_logprob"], strict=True)
        found.setdefault("ratio", [np.exp(np.clip(now - then, -80, 80)) for now, then in gaps])
    if "logprob" in found and "reference_logprob" in found:
        gaps = zip(found["logprob"], found["reference_logprob"], strict=True)
        found.setdefault("reference_log_ratio", [now - then for now, then in gaps])
    if not found:
        raise DataError(
            "these datums hold no weights, logprobs or advantages; give values=, result=, or a training client"
        )
    order = [*(name for name in _KINDS if name in found), *(name for name in found if name not in _KINDS)]
    return {name: found[name] for name in order}


def _numbers(given: Any, length: int, index: int, field: str) -> NDArray[np.float64]:
    """``(N,)`` of whatever kind as ``(N + 1,)``, the first one nan; None is nan throughout."""
    out = np.full(length, np.nan)
    if given is None:
        return out
    if hasattr(given, "detach"):  # a tensor
        given = given.detach().cpu()
    elif hasattr(given, "to_numpy"):
        given = given.to_numpy()
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"found {type(given).__name__}, expected one number a token", index=index, field=field
        ) from None
    if array.shape != (length - 1,):
        raise DataError(f"shape {array.shape}, expected ({length - 1},): one number a target", index=index, field=field)
    out[1:] = np.where(np.isfinite(array), array, np.nan)
    return out


def _prompt(tokens: NDArray[np.int64], weights: NDArray[np.float64] | None) -> int:
    """How many tokens stand before the first that counts."""
    if weights is None:
        return 0
    counting = np.flatnonzero(np.nan_to_num(weights) != 0)
    return int(counting[0]) if len(counting) else len(tokens)


def _common(
    one: NDArray[np.int64], two: NDArray[np.int64], weights: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> int:
    """Tokens at the beginning that two sequences share; where there are weights, of those that do not count."""
    room = min(len(one), len(two))
    if weights is not None:
        room = min(_prompt(one, weights[0]), _prompt(two, weights[1]), room)
    differ = np.flatnonzero(one[:room] != two[:room])
    return int(differ[0]) if len(differ) else room


def _look_like_pairs(sequences: list[NDArray[np.int64]], weights: list[NDArray[np.float64]] | None) -> bool:
    """Whether each two consecutive sequences have one prompt, and not all the same, as the samples of a group have."""
    if len(sequences) % 2 or weights is None:
        return False
    prompts = [tuple(s[: _prompt(s, w)].tolist()) for s, w in zip(sequences, weights, strict=True)]
    couples = all(prompts[i] and prompts[i] == prompts[i + 1] for i in range(0, len(prompts), 2))
    return couples and (len(prompts) == 2 or len(set(prompts)) > 1)


def _rows(
    sequences: list[NDArray[np.int64]],
    weights: list[NDArray[np.float64]] | None,
    pairs: bool,
    titles: Sequence[str] | None,
) -> list[TokenRow]:
    unit = 2 if pairs else 1
    items = len(sequences) // unit
    if titles is not None and len(titles) != items:
        raise ConfigError(f"{len(titles)} titles, expected {items}: one {'a pair' if pairs else 'a datum'}")
    rows: list[TokenRow] = []
    start = 0
    for index, tokens in enumerate(sequences):
        item, side = divmod(index, unit)
        if pairs:
            couple = slice(index - side, index - side + 2)
            w = (weights[couple][0], weights[couple][1]) if weights else None
            shared = _common(sequences[couple][0], sequences[couple][1], w)
        else:
            shared = _prompt(tokens, weights[index] if weights else None)
            shared = 0 if shared == len(tokens) else shared
        title = str(titles[item]) if titles is not None else f"{'pair' if pairs else 'sequence'} {item + 1}"
        role: Literal["", "chosen", "rejected"] = ("chosen", "rejected")[side] if pairs else ""
        row = TokenRow(item=item, title=title, role=role, start=start, length=len(tokens), shared=shared)
        rows.append(row)
        start += len(tokens)
    return rows


def _described(name: str, values: NDArray[np.float64], live: NDArray[np.bool_]) -> TokenColumn:
    """A column with the ends of its scale, from the tokens that count."""
    shown = values[live & np.isfinite(values)]
    known = _KINDS.get(name)
    scale = known.scale if known else "diverging" if (shown < 0).any() else "sequential"
    if scale == "sequential" and (shown < 0).any() and (shown > 0).any():
        scale = "diverging"
    if scale == "ratio":
        high = math.exp(_end(np.abs(np.log(shown[shown > 0])), 0.1))
        low = 1 / high
    elif scale == "diverging":
        everywhere = values[np.isfinite(values) & (values != 0)]  # a loss that ignores the weights shows here
        high = _end(np.abs(everywhere), 1.0)
        low = -high
    elif (shown < 0).any():
        low, high = -_end(-shown, 1.0), 0.0
    else:
        low, high = 0.0, _end(shown, 1.0)
    unit, note = (known.unit, known.note) if known else ("", "")
    return TokenColumn(name=name, unit=unit, note=note, scale=scale, low=low, high=high)


def _end(sizes: NDArray[np.float64], default: float) -> float:
    """Where a scale from 0 ends: the largest size, unless single tokens would take the colour from all others."""
    if not len(sizes) or not sizes.max() > 0:
        return default
    usual, largest = float(np.quantile(sizes, _QUANTILE)), float(sizes.max())
    end = usual if 0 < usual < largest / 2 else largest
    digits = 10.0 ** (math.floor(math.log10(end)) - 1)  # two, upwards
    return float(f"{math.ceil(end / digits - 1e-9) * digits:.2g}")
