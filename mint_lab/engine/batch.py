"""Datums checked and laid end to end: what can be wrong with a batch is found here, before any weight is used.

A message names the datum's index, the field, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..losses import LossSpec
    from ..types import Datum

__all__ = ["Batch", "check_tokens", "read_batch"]

# Every per-token field that the API's built-in losses know.
_FIELDS = ("target_tokens", "weights", "logprobs", "advantages")


@dataclass(frozen=True)
class Batch:
    """A checked batch.

    Attributes:
        data: the datums as given.
        tokens: input tokens of each datum, ``(N_i,)`` each.
        targets: target tokens of all datums end to end, ``(sum N_i,)``, int64.
        fields: per-token float fields end to end, ``(sum N_i,)``, float32; ``weights`` is always there for a built-in
            loss. Empty for a custom loss, which reads its fields from the datums.
        origin: index of each datum in the batch as it was submitted.
    """

    data: list[Datum]
    tokens: list[list[int]]
    targets: NDArray[np.int64]
    fields: dict[str, torch.Tensor]
    origin: Sequence[int]

    @property
    def lengths(self) -> list[int]:
        """``N_i`` of each datum."""
        return [len(t) for t in self.tokens]

    @property
    def live(self) -> NDArray[np.bool_]:
        """``(sum N_i,)``: where a gradient is to be expected, that is, where a weight is not 0; else everywhere."""
        if "weights" in self.fields:
            return self.fields["weights"].numpy() != 0
        rows = [_weights(datum, length) for datum, length in zip(self.data, self.lengths, strict=True)]
        return np.concatenate(rows) != 0

    def where(self, flat: int) -> tuple[int, int]:
        """Datum index (as submitted) and position of an index into the batch laid end to end."""
        index, position = _locate(flat, self.lengths)
        return self.origin[index], position

    def select(self, indices: Sequence[int]) -> Batch:
        """The sub-batch of these datums, in this order."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        flat = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in indices])
        index = torch.from_numpy(flat)
        return Batch(
            [self.data[i] for i in indices],
            [self.tokens[i] for i in indices],
            self.targets[flat],
            {name: value[index] for name, value in self.fields.items()},
            [self.origin[i] for i in indices],
        )


def read_batch(data: Any, spec: LossSpec | None, *, vocab_size: int, context: int) -> Batch:
    """Check ``data`` for a built-in loss (``spec``) or for a custom one (``None``) and lay it end to end.

    Args:
        data: a non-empty list of ``Datum``.
        vocab_size: token ids run from 0 to this, exclusive.
        context: longest sequence that the model takes, tokens.

    Raises:
        DataError: an empty batch, something that is no text ``Datum``, a sequence that is empty or too long, a token
            outside the vocabulary, fields that are missing, unknown, of the wrong length or not finite where they
            count.
    """
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence):
        raise DataError(f"got {type(data).__name__}, expected a list of Datum")
    if not data:
        raise DataError("the batch is empty, expected at least one Datum")
    tokens = [_input_tokens(datum, i) for i, datum in enumerate(data)]
    for i, row in enumerate(tokens):
        check_tokens(row, vocab_size, context, i)
    lengths = [len(row) for row in tokens]
    targets = _flat_field(data, "target_tokens", lengths, kinds="iu")
    _check_vocabulary(targets, lengths, vocab_size)
    fields = {} if spec is None else _builtin_fields(data, spec, lengths)
    return Batch(list(data), tokens, targets.astype(np.int64, copy=False), fields, range(len(data)))


def check_tokens(tokens: Sequence[int], vocab_size: int, context: int, index: int | None = None) -> None:
    """Raise :class:`DataError` unless ``tokens`` is a sequence that the model can take."""
    if len(tokens) == 0:
        raise DataError("is empty, expected at least one token", index=index, field="model_input")
    if len(tokens) > context:
        raise DataError(
            f"{len(tokens)} tokens, but the model's context is {context}; truncate the prompt or the completion, as "
            f"pairs_to_data(..., max_length={context}) does",
            index=index,
            field="model_input",
        )
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        raise DataError(
            f"token id {bad} at position {list(tokens).index(bad)}, expected 0 to {vocab_size - 1}; "
            "was it encoded with another model's tokenizer?",
            index=index,
            field="model_input",
        )


def _input_tokens(datum: Any, index: int) -> list[int]:
    try:
        model_input, fields = datum.model_input, datum.loss_fn_inputs
        chunks = model_input.chunks
    except AttributeError:
        raise DataError(f"got {type(datum).__name__}, expected a Datum", index=index) from None
    if not hasattr(fields, "items"):
        raise DataError(f"loss_fn_inputs is {type(fields).__name__}, expected a dict", index=index)
    tokens: list[int] = []
    for chunk in chunks:
        if not hasattr(chunk, "tokens"):
            raise DataError(
                f"holds a {type(chunk).__name__}; the local engine trains on text tokens only",
                index=index,
                field="model_input",
            )
        tokens.extend(chunk.tokens)
    return tokens


def _flat_field(data: Sequence[Datum], name: str, lengths: list[int], kinds: str = "iuf") -> NDArray[Any]:
    """One field of every datum, end to end; ``kinds`` are numpy's letters for what it may hold."""
    rows: list[NDArray[Any]] = []
    for i, (datum, length) in enumerate(zip(data, lengths, strict=True)):
        value = datum.loss_fn_inputs.get(name)
        if value is None:
            present = ", ".join(sorted(datum.loss_fn_inputs)) or "none"
            raise DataError(f"missing; fields present: {present}", index=i, field=name)
        if not hasattr(value, "to_numpy"):
            raise DataError(f"is a {type(value).__name__}, expected TensorData", index=i, field=name)
        row = value.to_numpy()
        if row.dtype.kind not in kinds:
            expected = "numbers" if "f" in kinds else "integer token ids"
            raise DataError(f"holds {row.dtype}, expected {expected}", index=i, field=name)
        if row.ndim != 1:
            raise DataError(f"shape {row.shape}, expected ({length},): one value per token", index=i, field=name)
        if len(row) != length:
            raise DataError(f"length {len(row)}, expected {length}, the length of model_input", index=i, field=name)
        rows.append(row)
    return np.concatenate(rows)


def _weights(datum: Datum, length: int) -> NDArray[Any]:
    """What a custom loss's datum says about it, which may be nothing."""
    value = datum.loss_fn_inputs.get("weights")
    found = None if value is None else value.to_numpy()
    return found if found is not None and found.shape == (length,) else np.ones(length)


def _check_vocabulary(targets: NDArray[Any], lengths: list[int], vocab_size: int) -> None:
    bad = np.flatnonzero((targets < 0) | (targets >= vocab_size))
    if len(bad):
        index, position = _locate(int(bad[0]), lengths)
        raise DataError(
            f"token id {int(targets[bad[0]])} at position {position}, expected 0 to {vocab_size - 1}",
            index=index,
            field="target_tokens",
        )


def _builtin_fields(data: Sequence[Datum], spec: LossSpec, lengths: list[int]) -> dict[str, torch.Tensor]:
    wanted = [*spec.inputs, *(name for name in spec.optional if any(name in d.loss_fn_inputs for d in data))]
    for i, datum in enumerate(data):
        unknown = [key for key in datum.loss_fn_inputs if key not in _FIELDS]
        if unknown:
            raise DataError(
                f"not a field of the built-in losses; {one_of(_FIELDS, unknown[0])} "
                "(extra fields are for custom losses)",
                index=i,
                field=unknown[0],
            )
    flat = {name: _flat_field(data, name, lengths).astype(np.float32, copy=False) for name in wanted}
    if "weights" not in flat:
        flat["weights"] = np.ones(sum(lengths), dtype=np.float32)
    _check_finite("weights", flat["weights"], lengths)
    counted = flat["weights"] != 0
    for name, values in flat.items():
        # What stands at a position of weight 0 is never read, so it may be anything: samplers put nan on prompts.
        _check_finite(name, np.where(counted, values, 0), lengths)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in flat.items()}


def _check_finite(name: str, values: NDArray[Any], lengths: list[int]) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        index, position = _locate(int(bad[0]), lengths)
        raise DataError(f"{values[bad[0]]} at position {position}, expected a finite number", index=index, field=name)


def _locate(flat: int, lengths: list[int]) -> tuple[int, int]:
    ends = np.cumsum(lengths)
    index = int(np.searchsorted(ends, flat, side="right"))
    return index, flat - (int(ends[index - 1]) if index else 0)
