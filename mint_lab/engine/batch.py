"""Checked batches: datums laid end to end. Errors in a batch are raised here, before any weight is used.

A message names the datum's index and the field, what was found and what was expected.
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

# Every per-token field of the API's built-in losses.
_BUILTIN_FIELDS = ("target_tokens", "weights", "logprobs", "advantages")


@dataclass(frozen=True)
class Batch:
    """A checked batch, or a micro-batch of one.

    Attributes:
        data: The datums.
        tokens: Input tokens of each datum, ``(N_i,)`` each.
        targets: Target tokens of all datums end to end, ``(sum N_i,)``, int64.
        fields: Per-token float fields end to end, ``(sum N_i,)``, float32. For a built-in loss ``weights`` is always
            present. Empty for a custom loss, which reads its fields from the datums.
        origin: Index of each datum in the batch that was submitted.
    """

    data: list[Datum]
    tokens: list[list[int]]
    targets: NDArray[np.int64]
    fields: dict[str, torch.Tensor]
    origin: Sequence[int]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each datum, ``N_i``."""
        return [len(t) for t in self.tokens]

    @property
    def loss_mask(self) -> NDArray[np.bool_]:
        """Where the loss is expected to have a gradient, ``(sum N_i,)``: where weights are not 0.

        A datum of a custom loss without weights, or with weights of another shape, counts everywhere.
        """
        if "weights" in self.fields:
            return self.fields["weights"].numpy() != 0
        rows = [_weights_or_ones(datum, length) for datum, length in zip(self.data, self.lengths, strict=True)]
        return np.concatenate(rows) != 0

    def locate(self, flat: int) -> tuple[int, int]:
        """Return the datum (its index in the submitted batch) and position of an index into the end-to-end fields."""
        index, position = _locate(flat, self.lengths)
        return self.origin[index], position

    def select(self, indices: Sequence[int]) -> Batch:
        """Return a micro-batch of the datums at ``indices``, in this order."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])  # datum i is at starts[i] to starts[i + 1]
        flat = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in indices])  # (sum N_i,) of the selected ones
        index = torch.from_numpy(flat)
        return Batch(
            [self.data[i] for i in indices],
            [self.tokens[i] for i in indices],
            self.targets[flat],
            {name: value[index] for name, value in self.fields.items()},
            [self.origin[i] for i in indices],
        )


def read_batch(data: Any, spec: LossSpec | None, *, vocab_size: int, context: int) -> Batch:
    """Check ``data`` and lay it end to end.

    Args:
        data: A non-empty list of ``Datum``.
        spec: The built-in loss, which decides the required fields; None for a custom loss.
        vocab_size: Number of token ids of the model.
        context: Longest sequence that the model accepts, in tokens.

    Raises:
        DataError: If the batch is empty or an item is not a text ``Datum``; if a sequence is empty or too long, or has
            a token outside the vocabulary; if a field is missing, unknown, or of the wrong type or length; if a weight
            is not finite, or another field at a position whose weight is not 0.
    """
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence):
        raise DataError(f"got {type(data).__name__}, expected a list of Datum")
    if not data:
        raise DataError("the batch is empty, expected at least one Datum")
    tokens = [_input_tokens(datum, i) for i, datum in enumerate(data)]
    for i, row in enumerate(tokens):
        check_tokens(row, vocab_size, context, i)
    lengths = [len(row) for row in tokens]
    targets = _concatenate_field(data, "target_tokens", lengths, kinds="iu")  # (sum N_i,)
    _check_vocabulary(targets, lengths, vocab_size)
    fields = {} if spec is None else _builtin_fields(data, spec, lengths)
    return Batch(list(data), tokens, targets.astype(np.int64, copy=False), fields, range(len(data)))


def check_tokens(tokens: Sequence[int], vocab_size: int, context: int, index: int | None = None) -> None:
    """Raise DataError, which names datum ``index``, unless the model accepts ``tokens`` as a sequence."""
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
        invalid = low if low < 0 else high
        raise DataError(
            f"token id {invalid} at position {list(tokens).index(invalid)}, expected 0 to {vocab_size - 1}; "
            "was it encoded with another model's tokenizer?",
            index=index,
            field="model_input",
        )


def _input_tokens(datum: Any, index: int) -> list[int]:
    """Return the input tokens of a datum, all chunks joined."""
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
                f"has a {type(chunk).__name__}, expected text tokens: the local engine trains on nothing else",
                index=index,
                field="model_input",
            )
        tokens.extend(chunk.tokens)
    return tokens


def _concatenate_field(data: Sequence[Datum], name: str, lengths: list[int], kinds: str = "iuf") -> NDArray[Any]:
    """Return one field of all datums end to end, ``(sum N_i,)``; ``kinds`` are the numpy type letters it may have."""
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
            raise DataError(f"has type {row.dtype}, expected {expected}", index=i, field=name)
        if row.ndim != 1:
            raise DataError(f"shape {row.shape}, expected ({length},): one value per token", index=i, field=name)
        if len(row) != length:
            raise DataError(f"length {len(row)}, expected {length}, the length of model_input", index=i, field=name)
        rows.append(row)
    return np.concatenate(rows)


def _weights_or_ones(datum: Datum, length: int) -> NDArray[Any]:
    """Return the weights of a custom loss's datum if they fit its tokens, otherwise ones: the field is unchecked."""
    value = datum.loss_fn_inputs.get("weights")
    weights = None if value is None else value.to_numpy()
    return weights if weights is not None and weights.shape == (length,) else np.ones(length)


def _check_vocabulary(targets: NDArray[Any], lengths: list[int], vocab_size: int) -> None:
    invalid = np.flatnonzero((targets < 0) | (targets >= vocab_size))
    if len(invalid):
        index, position = _locate(int(invalid[0]), lengths)
        raise DataError(
            f"token id {int(targets[invalid[0]])} at position {position}, expected 0 to {vocab_size - 1}; "
            "was it encoded with another model's tokenizer?",
            index=index,
            field="target_tokens",
        )


def _builtin_fields(data: Sequence[Datum], spec: LossSpec, lengths: list[int]) -> dict[str, torch.Tensor]:
    """Return the fields that a built-in loss reads, end to end, ``(sum N_i,)`` float32 each."""
    # An optional field is read if any datum has it, and is then required of all.
    names = [*spec.inputs, *(name for name in spec.optional if any(name in d.loss_fn_inputs for d in data))]
    for i, datum in enumerate(data):
        unknown = [key for key in datum.loss_fn_inputs if key not in _BUILTIN_FIELDS]
        if unknown:
            raise DataError(
                f"not a field of the built-in losses; {one_of(_BUILTIN_FIELDS, unknown[0])} "
                "(extra fields are for custom losses)",
                index=i,
                field=unknown[0],
            )
    flat = {name: _concatenate_field(data, name, lengths).astype(np.float32, copy=False) for name in names}
    if "weights" not in flat:
        flat["weights"] = np.ones(sum(lengths), dtype=np.float32)
    _check_finite("weights", flat["weights"], lengths)
    counted = flat["weights"] != 0
    for name, values in flat.items():
        # Values at a weight of 0 are never read, so they may be anything: samplers put nan on prompts.
        _check_finite(name, np.where(counted, values, 0), lengths)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in flat.items()}


def _check_finite(name: str, values: NDArray[Any], lengths: list[int]) -> None:
    nonfinite = np.flatnonzero(~np.isfinite(values))
    if len(nonfinite):
        index, position = _locate(int(nonfinite[0]), lengths)
        raise DataError(
            f"{values[nonfinite[0]]} at position {position}, expected a finite number", index=index, field=name
        )


def _locate(flat: int, lengths: list[int]) -> tuple[int, int]:
    """Return datum index and position of an index into datums of these lengths laid end to end."""
    ends = np.cumsum(lengths)  # ends[i] is the first index after datum i
    index = int(np.searchsorted(ends, flat, side="right"))
    return index, flat - (int(ends[index - 1]) if index else 0)
