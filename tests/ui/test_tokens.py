"""Tokens as a message: which number belongs to which token, pairs, derived columns and colour scales."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError, DataError
from mint_lab.runs.token_inspection import HeldOutTokens
from mint_lab.types import Datum, ModelInput, TensorData
from mint_lab.ui.messages import Tokens
from mint_lab.ui.tokens import _scale_end, tokens_message, tokens_of

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


# -- columns: names, units and scales --------------------------------------------------------------------------------

DESCRIBED = {
    "gradient": ("dLoss / dlogprob", "below 0: a step makes the token likelier", "diverging"),
    "logprob": ("nats", "0: certain", "sequential"),
    "ratio": ("", "above 1: likelier than when it was sampled", "ratio"),
    "advantage": ("", "above 0: better than expected", "diverging"),
    "reference_log_ratio": ("nats", "above 0: likelier than under the reference", "diverging"),
    "weight": ("", "0: does not count", "sequential"),
    "sampling_logprob": ("nats", "0: certain", "sequential"),
    "reference_logprob": ("nats", "0: certain", "sequential"),
}


def sampled() -> Datum:
    """A datum with every field that a column shows; its second target counts."""
    made = datum([1, 2, 3], [0, 1], logprobs=[-1, -2], advantages=[0, -1.5])
    made.loss_fn_inputs["reference_logprobs"] = TensorData.from_numpy(np.array([-4, -2.5], dtype=np.float32))
    return made


def test_every_column_has_its_order_unit_note_and_scale() -> None:
    """Reference -2.5 and now -1 make a log-ratio of 1.5; sampled -2 and now -1 a ratio of e."""
    values = {"mine": [[0, 7]], "logprob": [[-3, -1]], "gradient": [[0, -0.5]]}
    tokens = tokens_message([sampled()], LETTERS, values)
    columns = tokens["columns"]
    assert [c["name"] for c in columns] == [*DESCRIBED, "mine"]
    assert {c["name"]: (c["unit"], c["note"], c["scale"]) for c in columns} == {
        **DESCRIBED,
        "mine": ("", "", "sequential"),
    }
    assert {c["name"]: (c["low"], c["high"]) for c in columns} == {
        "gradient": (-0.5, 0.5),
        "logprob": (-1.0, 0.0),
        "ratio": (pytest.approx(1 / np.e, rel=1e-9), pytest.approx(np.e, rel=1e-9)),
        "advantage": (-1.5, 1.5),
        "reference_log_ratio": (-1.5, 1.5),
        "weight": (0.0, 1.0),
        "sampling_logprob": (-2.0, 0.0),
        "reference_logprob": (-2.5, 0.0),
        "mine": (0.0, 7.0),
    }
    assert tokens["by"] == "gradient"
    assert column(tokens, "reference_log_ratio")[1:] == [1.0, 1.5]
    assert column(tokens, "ratio")[1:] == pytest.approx([np.exp(-2), np.e])


def test_given_ratio_replaces_the_computed_one() -> None:
    tokens = tokens_message(
        [sampled()], LETTERS, {"logprob": [[-1, -2]], "ratio": [[3, 3]], "reference_log_ratio": [[5, 5]]}
    )
    assert column(tokens, "ratio")[1:] == [3, 3]
    assert column(tokens, "reference_log_ratio")[1:] == [5, 5]


def test_ratio_of_hardly_comparable_log_probabilities_is_finite_before_float32() -> None:
    """exp(1000) would be a warning, and no number; the exponent ends at 80."""
    tokens = tokens_message([datum([1, 2, 3], [1, 1], logprobs=[-1000, 0])], LETTERS, {"logprob": [[0, -1000]]})
    assert column(tokens, "ratio")[1:] == pytest.approx([np.exp(80.0), np.exp(-80.0)], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0], ("sequential", 0.0, 1.0)),
        ([0, 3], ("sequential", 0.0, 3.0)),
        ([-3, 0], ("diverging", -3.0, 3.0)),  # an unknown column below 0
        ([-2, 3], ("diverging", -3.0, 3.0)),
        ([np.nan, np.nan], ("sequential", 0.0, 1.0)),
    ],
)
def test_scale_of_an_unknown_column(values: list[float], expected: tuple[str, float, float]) -> None:
    assert scale(tokens_message([datum([1, 2, 3], [1, 1])], LETTERS, {"mine": [values]}), "mine") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0], ("sequential", 0.0, 1.0)),
        ([-2, 0], ("sequential", -2.0, 0.0)),
        ([-2, 0.5], ("diverging", -2.0, 2.0)),  # no log-probability, but it shows
        ([0, 0.5], ("sequential", 0.0, 0.5)),
    ],
)
def test_scale_of_a_sequential_column(values: list[float], expected: tuple[str, float, float]) -> None:
    assert scale(tokens_message([datum([1, 2, 3], [1, 1])], LETTERS, {"logprob": [values]}), "logprob") == expected


def test_ratios_of_1_leave_room_and_a_ratio_of_0_is_none() -> None:
    """Without a ratio beyond 1 the scale ends at exp(0.1)."""
    for ratios in ([1, 1], [0, 1]):
        tokens = tokens_message([datum([1, 2, 3], [1, 1])], LETTERS, {"ratio": [ratios]})
        assert scale(tokens, "ratio") == ("ratio", pytest.approx(np.exp(-0.1)), pytest.approx(np.exp(0.1)))


@pytest.mark.parametrize(
    ("sizes", "end"),
    [
        ([], 0.7),
        ([0.0, 0.0], 0.7),
        ([0.25], 0.25),
        ([0.251], 0.26),  # rounded up to two digits
        ([123.0], 130.0),
        ([9.95], 10.0),
        ([0.000314], 0.00032),
        ([1.0] * 99 + [1.99], 2.0),  # not far beyond the others
        ([1.0] * 999 + [2.01], 1.0),  # more than twice as far
        ([0.0] * 999 + [5.0], 5.0),  # the others are 0
    ],
)
def test_end_of_a_scale_is_rounded_up_and_ignores_a_few_outliers(sizes: list[float], end: float) -> None:
    assert _scale_end(np.array(sizes), 0.7) == end


# -- rows -------------------------------------------------------------------------------------------------------------


def test_titles_count_pairs_and_sequences_from_1() -> None:
    def titles(data: list[Datum], **options: Any) -> list[str]:
        return [row["title"] for row in tokens_message(data, LETTERS, {}, **options)["rows"]]

    assert titles([*PAIR, *PAIR], pairs=True) == ["pair 1", "pair 1", "pair 2", "pair 2"]
    assert titles(PAIR, pairs=False) == ["sequence 1", "sequence 2"]
    assert titles(PAIR, titles=["mine"]) == ["mine", "mine"]
    with pytest.raises(ConfigError, match="1 titles, expected 2: one per datum"):
        titles(PAIR, pairs=False, titles=["a"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "shared"),
    [
        (([1, 2, 3], [0, 1]), ([1, 2, 4], [0, 1]), 2),
        (([1, 2, 3], [0, 1]), ([1, 2, 3, 4], [0, 1, 1]), 2),  # the completions begin alike, but are no prompt
        (([1, 2, 3, 4], [0, 0, 1]), ([1, 2, 4], [0, 1]), 2),  # the shorter prompt
        (([1, 2, 3], [0, 1]), ([2, 2, 3], [0, 1]), 0),
        (([1, 2, 3], [1, 1]), ([1, 2, 4], [1, 1]), 1),
        (([1, 2], [0]), ([1, 2, 3], [0, 1]), 2),  # one without a completion
    ],
)
def test_shared_prompt_of_a_pair(chosen: Any, rejected: Any, shared: int) -> None:
    rows = tokens_message([datum(*chosen), datum(*rejected)], LETTERS, {}, pairs=True)["rows"]
    assert [row["shared"] for row in rows] == [shared, shared]


def bare(tokens: list[int]) -> Datum:
    """A datum without weights."""
    targets = TensorData.from_numpy(np.array(tokens[1:], dtype=np.int64))
    return Datum(model_input=ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": targets})


def test_without_weights_a_pair_shares_its_common_beginning_and_a_sequence_has_no_prompt() -> None:
    data, values = [bare([1, 2, 3]), bare([1, 2, 4, 5])], {"logprob": [[-1, -1], [-1, -1, -1]]}
    assert [r["shared"] for r in tokens_message(data, LETTERS, values, pairs=True)["rows"]] == [2, 2]
    rows = tokens_message(data, LETTERS, values)["rows"]
    assert [(r["item"], r["role"], r["shared"]) for r in rows] == [(0, "", 0), (1, "", 0)]
    assert scale(tokens_message(data, LETTERS, values), "logprob") == ("sequential", -1.0, 0.0)


def test_prompt_of_a_sequence_ends_at_its_first_weight() -> None:
    data = [datum([1, 2, 3, 4], [0, 1, 0]), datum([1, 2], [1]), datum([1, 2, 3], [0, 0])]
    rows = tokens_message(data, LETTERS, {}, pairs=False)["rows"]
    assert [row["shared"] for row in rows] == [2, 1, 0]  # without any weight there is nothing but the sequence


def test_pairs_need_a_prompt_in_common_and_another_one_than_the_next() -> None:
    def roles(*data: Datum) -> set[str]:
        return {row["role"] for row in tokens_message(list(data), LETTERS, {})["rows"]}

    one, two, other, more = (
        datum([1, 2, 3], [0, 1]),
        datum([1, 2, 4], [0, 1]),
        datum([5, 6, 3], [0, 1]),
        datum([5, 6, 4], [0, 1]),
    )
    assert roles(one, two, other, more) == {"chosen", "rejected"}
    assert roles(one, two) == {"chosen", "rejected"}
    assert roles(one, other, two, more) == {""}
    assert roles(one, two, other) == {""}


# -- the examples of a run, and refusals ------------------------------------------------------------------------------


def test_examples_of_a_run_have_its_numbers_and_names() -> None:
    logprobs, gradients = (
        [torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-4.0, -5.0])],
        [torch.zeros(3), torch.ones(2)],
    )
    held_out = HeldOutTokens(9, "dpo v2", PAIR, logprobs, gradients, False, LETTERS, ["one", "two"])
    tokens = tokens_of(held_out)
    assert (tokens["step"], tokens["about"], tokens["by"]) == (9, "dpo v2", "gradient")
    assert [(row["title"], row["role"]) for row in tokens["rows"]] == [("one", ""), ("two", "")]
    np.testing.assert_array_equal(column(tokens, "logprob"), [np.nan, -1, -2, -3, np.nan, -4, -5])
    np.testing.assert_array_equal(column(tokens, "gradient"), [np.nan, 0, 0, 0, np.nan, 1, 1])
    without = tokens_of(HeldOutTokens(9, "dpo v2", PAIR, logprobs, [], True, LETTERS))
    assert [c["name"] for c in without["columns"]] == ["logprob", "weight"]
    assert (without["by"], without["rows"][1]["role"]) == ("logprob", "rejected")


def test_every_text_is_utf8() -> None:
    half, escaped = "half \ud83d", "half \\ud83d"
    tokenizer = SimpleNamespace(decode=lambda ids: half)
    tokens = tokens_message(PAIR, tokenizer, {half: [[1, 1, 1], [1, 1]]}, by=half, titles=[half], about=half)
    assert (tokens["by"], tokens["about"], tokens["rows"][0]["title"]) == (escaped,) * 3
    assert tokens["columns"][-1]["name"] == escaped
    assert set(tokens["texts"]) == {escaped}
    assert tokens_message(PAIR, tokenizer, {})["about"] == ""


def test_datum_whose_targets_do_not_fit_is_named() -> None:
    short = bare([1, 2, 3])
    short.loss_fn_inputs["target_tokens"] = TensorData.from_numpy(np.array([2], dtype=np.int64))
    with pytest.raises(DataError, match=r"datum 2, field 'target_tokens': shape \(1,\), expected \(2,\)"):
        tokens_message([*PAIR, short], LETTERS, {})
    with pytest.raises(DataError, match=r"field 'gradient': 1 arrays for 2 datums, expected one each"):
        tokens_message(PAIR, LETTERS, {"gradient": [[0, 0, 0]]})


def test_field_that_some_datums_lack_is_nan_there() -> None:
    tokens = tokens_message([PAIR[0], bare([1, 2])], LETTERS, {}, pairs=False)
    np.testing.assert_array_equal(column(tokens, "weight"), [np.nan, 0, 1, 1, np.nan, np.nan])


def test_tensor_with_a_gradient_is_accepted() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    tokens = tokens_message([bare([1, 2, 3])], LETTERS, {"mine": [values]})
    assert column(tokens, "mine")[1:] == [1, 2]
