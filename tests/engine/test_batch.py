from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mint_lab.engine.batch import read_batch
from mint_lab.errors import DataError
from mint_lab.losses import LOSSES
from mint_lab.types import Datum, ModelInput, TensorData

from .batches import datum, sampled


def read(data: Any, loss: str | None = "ppo", context: int = 128) -> Any:
    return read_batch(data, None if loss is None else LOSSES[loss], vocab_size=270, context=context)


def changed(fields: dict[str, Any]) -> list[Datum]:
    """A good batch whose datum 1 has some fields replaced (None removes one)."""
    data = sampled(0)
    mixed = {**data[1].loss_fn_inputs, **fields}
    kept = {
        k: v if isinstance(v, TensorData) else TensorData.from_numpy(np.array(v))
        for k, v in mixed.items()
        if v is not None
    }
    return [data[0], replace(data[1], loss_fn_inputs=kept), data[2]]


def test_fields_are_laid_end_to_end() -> None:
    batch = read([datum([1, 2, 3], [0, 1]), datum([4, 5], [1])], "cross_entropy")
    assert batch.tokens == [[1, 2], [4]]
    assert batch.targets.tolist() == [2, 3, 5]
    assert batch.fields["weights"].tolist() == [0, 1, 1]
    assert [batch.locate(i) for i in range(3)] == [(0, 0), (0, 1), (1, 0)]


def test_micro_batch_locates_datums_in_submitted_batch() -> None:
    part = read(sampled(0)).select([2, 1])
    assert part.lengths == [3, 9]
    assert part.locate(0) == (2, 0)
    assert part.locate(5) == (1, 2)
    assert part.targets.tolist()[:3] == sampled(0)[2].loss_fn_inputs["target_tokens"].to_torch().tolist()


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"target_tokens": None}, "target_tokens", "missing; fields present: advantages, logprobs, weights"),
        ({"target_tokens": np.arange(8)}, "target_tokens", "length 8, expected 9"),
        ({"target_tokens": np.full(9, 270)}, "target_tokens", "token id 270 at position 0, expected 0 to 269"),
        ({"target_tokens": np.full(9, -1)}, "target_tokens", "token id -1"),
        ({"target_tokens": np.ones((9, 2), dtype=int)}, "target_tokens", r"shape \(9, 2\), expected \(9,\)"),
        ({"weights": np.ones(3, np.float32)}, "weights", "length 3, expected 9"),
        ({"weights": np.array([0, 1, 1, np.nan, 1, 1, 1, 1, 1], np.float32)}, "weights", "nan at position 3"),
        ({"logprobs": np.array([0, 0, 0, -np.inf, 0, 0, 0, 0, 0], np.float32)}, "logprobs", "-inf at position 3"),
        ({"advantages": np.array([0, 0, 0, 0, 0, 0, 0, 0, np.inf], np.float32)}, "advantages", "inf at position 8"),
        ({"advantages": None}, "advantages", "missing"),
        ({"logprobs": None}, "logprobs", "missing"),
        ({"advantage": np.zeros(9, np.float32)}, "advantage", "did you mean 'advantages'"),
        ({"mask": np.zeros(9, np.float32)}, "mask", "not a field of the built-in losses"),
    ],
)
def test_bad_fields_raise_with_datum_and_field(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(changed(fields))
    assert (caught.value.index, caught.value.field) == (1, field)


@pytest.mark.parametrize("name", ["logprobs", "advantages"])
def test_values_at_weight_zero_are_not_checked(name: str) -> None:
    """Positions 0 and 1 of datum 1 have weight 0."""
    values = np.array([np.nan, -np.inf, 0, 0, 0, 0, 0, 0, 0], np.float32)
    assert read(changed({name: values})).lengths == [5, 9, 3]


def test_policy_data_without_weights_count_everywhere() -> None:
    data = [datum([1, 2, 3], logprobs=[-1, -1], advantages=[1, 1])]
    assert read(data).fields["weights"].tolist() == [1, 1]
    with pytest.raises(DataError, match="missing"):
        read(data, "cross_entropy")


def test_loss_mask_follows_weights() -> None:
    """The weights of a custom loss's datum may be present, missing, or of another shape."""
    assert read([datum([1, 2, 3], [0, -1]), datum([4, 5], [2])], "cross_entropy").loss_mask.tolist() == [
        False,
        True,
        True,
    ]
    policy = [datum([1, 2, 3], logprobs=[-1, -1], advantages=[0, 1])]
    assert read(policy).loss_mask.tolist() == [True, True]
    misshapen = replace(
        datum([6, 7, 8]),
        loss_fn_inputs={**datum([6, 7, 8]).loss_fn_inputs, "weights": TensorData.from_numpy(np.zeros(3, np.float32))},
    )
    mixed = read([datum([1, 2, 3], [0, 1]), datum([4, 5]), misshapen], None)
    assert mixed.loss_mask.tolist() == [False, True, True, True, True]
    assert mixed.select([1, 0]).loss_mask.tolist() == [True, False, True]


def test_custom_losses_may_have_extra_fields() -> None:
    data = changed({"reference_logprobs": np.zeros(4, np.float32)})
    assert read(data, None).fields == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "the batch is empty"),
        ("ppo", "got str, expected a list of Datum"),
        (None, "got NoneType"),
        ([{"model_input": [1]}], "datum 0: got dict, expected a Datum"),
        ([Datum(model_input=ModelInput(chunks=[]), loss_fn_inputs={})], "is empty, expected at least one token"),
        ([datum([271, 2])], "token id 271 at position 0, expected 0 to 269"),
        ([datum([-3, 2])], "token id -3"),
        ([datum(list(range(130)))], "129 tokens, but the model's context is 128"),
    ],
)
def test_bad_batches_raise(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data, None)
