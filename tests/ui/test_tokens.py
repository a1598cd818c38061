"""Tokens as a message: which number belongs to which token, pairs, derived columns and colour scales."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError, DataError
from mint_lab.types import TensorData
from mint_lab.ui.messages import Tokens
from mint_lab.ui.tokens import tokens_message

from ..engine.batches import datum

LETTERS = SimpleNamespace(decode=lambda ids: chr(96 + ids[0]))
PAIR = [datum([1, 2, 3, 4], [0, 1, 1]), datum([1, 2, 5], [0, 1])]


def column(tokens: Tokens, name: str) -> list[float]:
    names = [c["name"] for c in tokens["columns"]]
    values = np.frombuffer(tokens["values"], dtype="<f4").reshape(len(names), -1)
    return values[names.index(name)].tolist()


def scale(tokens: Tokens, name: str) -> tuple[str, float, float]:
    found = next(c for c in tokens["columns"] if c["name"] == name)
    return found["scale"], found["low"], found["high"]


def test_number_of_a_target_stands_at_the_target_token() -> None:
    tokens = tokens_message(PAIR, LETTERS, {"gradient": [[0, -0.5, -0.25], torch.tensor([0.0, 0.5])]})
    assert np.frombuffer(tokens["ids"], dtype="<i4").tolist() == [1, 2, 3, 4, 1, 2, 5]
    pieces = np.frombuffer(tokens["pieces"], dtype="<i4")
    assert "".join(tokens["texts"][i] for i in pieces) == "abcdabe"
    np.testing.assert_array_equal(column(tokens, "gradient"), [np.nan, 0, -0.5, -0.25, np.nan, 0, 0.5])
    np.testing.assert_array_equal(column(tokens, "weight"), [np.nan, 0, 1, 1, np.nan, 0, 1])
    assert tokens["by"] == "gradient"
    assert scale(tokens, "gradient") == ("diverging", -0.5, 0.5)
    assert scale(tokens, "weight") == ("sequential", 0, 1)


def test_pairs_are_recognized_by_their_prompt_and_groups_are_not() -> None:
    rows = tokens_message(PAIR, LETTERS, {})["rows"]
    assert [(r["item"], r["role"], r["start"], r["length"], r["shared"]) for r in rows] == [
        (0, "chosen", 0, 4, 2),
        (0, "rejected", 4, 3, 2),
    ]
    group = [datum([1, 2, 3 + i], [0, 1]) for i in range(4)]
    assert {r["role"] for r in tokens_message(group, LETTERS, {})["rows"]} == {""}
    rewarded = [datum([1, 2, 3], [0, 1], advantages=[0, 1]), datum([1, 2, 4], [0, 1], advantages=[0, -1])]
    assert [r["item"] for r in tokens_message(rewarded, LETTERS, {})["rows"]] == [0, 1]
    assert [r["role"] for r in tokens_message(group, LETTERS, {}, pairs=True)["rows"]] == ["chosen", "rejected"] * 2


def test_ratios_are_computed_from_log_probabilities() -> None:
    sampled = [datum([1, 2, 3], [1, 1], logprobs=[-1, -2], advantages=[1, -1])]
    tokens = tokens_message(sampled, LETTERS, {"logprob": [np.array([-1 + np.log(2), -2 - np.log(4)])]})
    assert column(tokens, "ratio")[1:] == pytest.approx([2, 0.25])
    kind, low, high = scale(tokens, "ratio")
    assert (kind, low * high) == ("ratio", pytest.approx(1))
    assert high == pytest.approx(4, rel=0.05)
    referred = datum([1, 2], [1])
    referred.loss_fn_inputs["reference_logprobs"] = TensorData.from_numpy(np.array([-3.0], dtype=np.float32))
    tokens = tokens_message([referred], LETTERS, {"logprob": [[-1.0]]})
    assert column(tokens, "reference_log_ratio")[1] == pytest.approx(2)


def test_single_outlier_does_not_set_the_colour_scale() -> None:
    many = datum([1] * 1001, [1] * 1000)
    values = np.full(1000, -0.01)
    values[7] = -5.0
    assert scale(tokens_message([many], None, {"gradient": [values]}), "gradient")[2] == pytest.approx(0.01)
    # A gradient on a token of weight 0 is on the scale, so that a loss that ignores weights shows.
    masked = datum([1, 2, 3], [0, 1])
    assert scale(tokens_message([masked], None, {"gradient": [[9, 1]]}), "gradient") == ("diverging", -9, 9)
    # Other numbers of a token of weight 0 do not change the scale.
    assert scale(tokens_message([masked], None, {"logprob": [[-50, -1]]}), "logprob") == ("sequential", -1, 0)


def test_own_columns_are_shown_and_nonfinite_numbers_are_nan() -> None:
    tokens = tokens_message(PAIR, None, {"mine": [[1, np.nan, np.inf], [2, 3]]}, by="mine")
    assert tokens["texts"][0] == "⟨1⟩"
    np.testing.assert_array_equal(column(tokens, "mine"), [np.nan, 1, np.nan, np.nan, np.nan, 2, 3])
    assert scale(tokens, "mine") == ("sequential", 0, 3)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": []}, DataError, "empty"),
    ({"data": "text"}, DataError, "got str"),
    ({"data": [PAIR[0], 3]}, DataError, "datum 1: found int"),
    ({"values": {"gradient": [[0, 0]]}}, DataError, "1 arrays for 2 datums"),
    (
        {"values": {"gradient": [[0, 0, 0], [0]]}},
        DataError,
        r"datum 1, field 'gradient': shape \(1,\), expected \(2,\)",
    ),
    ({"values": {"gradient": [[0, 0, 0], "no"]}}, DataError, "datum 1, field 'gradient': found str"),
    ({"by": "gradients", "values": {"gradient": [[0] * 3, [0] * 2]}}, ConfigError, "did you mean 'gradient'"),
    ({"titles": ["a", "b"]}, ConfigError, "2 titles, expected 1: one per pair"),
    ({"data": [PAIR[0]], "pairs": True}, DataError, "got 1 datums"),
    ({"data": [datum([1, 2])]}, DataError, "have no weights"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused_with_its_position(options: dict[str, Any], kind: Any, message: str) -> None:
    options = {"data": PAIR, "values": {}} | options
    with pytest.raises(kind, match=message):
        tokens_message(options.pop("data"), LETTERS, options.pop("values"), **options)
