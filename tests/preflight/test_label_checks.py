"""What labels can be told from: balance, length, prompt; each at its edges, and in the report of preflight."""

from __future__ import annotations

import numpy as np
import pytest

from mint_lab.data import unpaired_to_data
from mint_lab.losses import LOSSES
from mint_lab.preflight import preflight
from mint_lab.preflight.label_checks import (
    check_balance,
    check_labelled_data,
    check_labels,
    check_lengths_of_labels,
    check_prompts_of_labels,
    label_weights,
)
from mint_lab.types import Datum, TensorData

from ..runs.bigram import CharTokenizer
from .four_pairs import four_pairs


def labels(desirable: int, undesirable: int) -> list[bool]:
    return [True] * desirable + [False] * undesirable


@pytest.mark.parametrize(
    ("desirable", "undesirable", "weights", "warns"),
    [
        (80, 100, (1.0, 1.0), False),  # 0.8, the lower end
        (79, 100, (1.0, 1.0), True),
        (5, 3, (1.0, 1.0), False),  # 5/3, the upper end
        (501, 300, (1.0, 1.0), True),
        (10, 90, (9.0, 1.0), False),
        (10, 90, (1.0, 1.0), True),
        (50, 50, (2.0, 1.0), True),
        (50, 0, (1.0, 1.0), False),  # one label is an error of the recipe
        (50, 50, (0.0, 1.0), False),  # a weight of 0 is meant
    ],
)
def test_balance_at_its_edges(desirable: int, undesirable: int, weights: tuple[float, float], warns: bool) -> None:
    assert (check_balance(labels(desirable, undesirable), weights) is not None) == warns


def test_balance_recommends_the_weights_of_the_paper() -> None:
    """10 to 90: w 10 / 90 is 1 at w = 9 and 4/3 at w = 12; with an undesirable weight of 0.5 at half of that."""
    line = check_balance(labels(10, 90), (1.0, 1.0))
    assert line is not None
    assert line.message.startswith(
        "10 desirable and 90 undesirable completions: with the weights 1 and 1 their ratio is 0.11"
    )
    assert line.fix == "for kto, a desirable_weight from 9 to 12"
    line = check_balance(labels(10, 90), (1.0, 0.5))
    assert line is not None
    assert line.fix == "for kto, a desirable_weight from 4.5 to 6"
    for weight in (9.0, 12.0):
        assert check_balance(labels(10, 90), (weight, 1.0)) is None


@pytest.mark.parametrize(("longer", "warns"), [(15, False), (16, True), (4, True), (5, False)])
def test_lengths_at_their_edges(longer: int, warns: bool) -> None:
    """``longer`` of 20 desirable completions are longer than all undesirable ones, the others shorter: k / 20."""
    lengths = [9] * longer + [1] * (20 - longer) + [5] * 20
    line = check_lengths_of_labels(labels(20, 20), lengths)
    assert (line is not None) == warns
    if line is not None:
        assert line.message.startswith("in 80% of the couples")
        assert ("longer" if longer > 10 else "shorter") in line.message


def test_few_completions_say_nothing_of_lengths() -> None:
    for desirable, undesirable in ((19, 40), (40, 19)):
        assert check_lengths_of_labels(labels(desirable, undesirable), [9] * desirable + [1] * undesirable) is None
    assert check_lengths_of_labels(labels(20, 20), [9] * 20 + [1] * 20) is not None
    assert check_lengths_of_labels(labels(20, 20), [3] * 40) is None  # ties count half


@pytest.mark.parametrize(("prompts", "warns"), [(9, False), (10, True)])
def test_prompts_at_their_edge(prompts: int, warns: bool) -> None:
    """Two completions a prompt, half of all desirable: 10 prompts have both labels 5 times by chance, 9 prompts 4.4."""
    given = [label for number in range(prompts) for label in [number % 2 == 0] * 2]
    line = check_prompts_of_labels(given, [number for number in range(prompts) for _ in range(2)])
    assert (line is not None) == warns
    if line is not None:
        told = "none of the 10 prompts with several completions has both labels (5 would by chance)"
        assert line.message.startswith(told)


def test_prompts_of_both_labels_or_of_one_completion_are_in_order() -> None:
    given = [label for number in range(40) for label in [number % 2 == 0] * 2]
    names = [number for number in range(40) for _ in range(2)]
    assert check_prompts_of_labels(given, names) is not None
    assert check_prompts_of_labels([not given[0], *given[1:]], names) is None  # one prompt has both
    assert check_prompts_of_labels(given, list(range(80))) is None
    assert check_prompts_of_labels([True] * 80, names) is None  # no other label to expect


def test_labels_drawn_without_regard_to_anything_pass() -> None:
    rng = np.random.default_rng(0)
    given = (rng.random(400) < 0.5).tolist()
    assert check_labels(given, rng.integers(1, 30, 400).tolist(), rng.integers(0, 100, 400).tolist()) == []


def test_all_checks_have_their_line() -> None:
    given = [label for number in range(80) for label in [number % 4 == 0] * 2]
    names = [number for number in range(80) for _ in range(2)]
    lines = check_labels(given, [9 if label else 1 for label in given], names)
    assert [line.name for line in lines] == ["labels"] * 3
    assert all(line.verdict == "warn" and line.fix for line in lines)
    assert len(check_labels(given, [9 if label else 1 for label in given], names, None)) == 2


def test_weights_of_a_bound_loss() -> None:
    assert label_weights(LOSSES["kto"].bind(desirable_weight=3.0).spec) == (3.0, 1.0)  # type: ignore[attr-defined]
    assert label_weights(LOSSES["bco"]) is None


def data_of(desirable: int, undesirable: int) -> list[Datum]:
    rows = [{"prompt": f"{i}:", "completion": "x", "label": i < desirable} for i in range(desirable + undesirable)]
    data = unpaired_to_data(rows, CharTokenizer())
    for datum in data:
        values = np.full(datum.model_input.length, -2.0, np.float32)
        datum.loss_fn_inputs["reference_logprobs"] = TensorData.from_numpy(values)
    return data


def test_preflight_warns_with_the_weights_of_the_loss() -> None:
    data = data_of(2, 8)
    report = preflight(LOSSES["kto"].bind(), data)
    assert report.ok
    assert [line.fix for line in report.lines if line.name == "labels"] == [
        "for kto, a desirable_weight from 4 to 5.33"
    ]
    for other in (LOSSES["kto"].bind(desirable_weight=4.0), LOSSES["bco"].bind()):
        report = preflight(other, data)
        assert report.ok
        assert not [line for line in report.lines if line.name == "labels"]


def test_only_labelled_data_are_checked() -> None:
    assert check_labelled_data(four_pairs(), LOSSES["kto"]) == []
    data = data_of(2, 8)
    assert len(check_labelled_data(data, LOSSES["kto"])) == 1
    del data[3].loss_fn_inputs["label"]
    assert check_labelled_data(data, LOSSES["kto"]) == []
