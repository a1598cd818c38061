"""The losses of a comparison: labels, settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses.preference import hinge_loss
from mint_lab.runs.comparison.variants import Variant, file_name, variants_of


def double(data: Any, logprobs_list: Any) -> Any:
    loss, metrics = hinge_loss(data, logprobs_list)
    return 2 * loss, metrics


def hinge(data: Any, logprobs_list: Any) -> Any:
    return double(data, logprobs_list)


def test_labels_are_names_with_the_given_settings() -> None:
    variants = variants_of(["dpo", ("dpo", {"beta": 0.5}), double, (LOSSES["simpo"], {})])
    assert [(v.label, v.config) for v in variants] == [
        ("dpo", {}),
        ("dpo beta=0.5", {"beta": 0.5}),
        ("double", {}),
        ("simpo", {}),
    ]
    named = variants_of({"soft": ("dpo", {"beta": 0.05}), "<b>": "simpo"})
    assert named == [Variant("soft", "dpo", {"beta": 0.05}), Variant("<b>", "simpo")]


def test_one_function_may_have_two_labels() -> None:
    assert [v.loss for v in variants_of({"a": double, "b": double})] == [double, double]
    with pytest.raises(ConfigError, match=r"two runs would have the label 'hinge'; .*or a label for each"):
        variants_of(["hinge", hinge])


def test_settings_are_copied() -> None:
    config = {"beta": 0.5}
    variants = variants_of([("dpo", config), "simpo"])
    config["beta"] = 1.0
    assert variants[0].config == {"beta": 0.5}


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("dpo", 'expected a list such as \\["dpo", "simpo"\\]'),
        (7, "expected a list"),
        (["dpo"], "found 1 loss, expected two or more"),
        ([], "found no losses, expected two or more"),
        (["dpo", "dpo"], "two runs would have the label 'dpo'"),
        (["dpo", "no_such"], "unknown loss 'no_such'"),
        (["dpo", ("simpo", 3)], "the settings of simpo are 3"),
        ({"": "dpo", "b": "simpo"}, "a label is ''"),
        ({1: "dpo", "b": "simpo"}, "a label is 1"),
        (["dpo", 7], "a loss is 7"),
    ],
)
def test_anything_else_is_refused(losses: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variants_of(losses)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("dpo beta=0.5", "dpo-beta=0.5"),
        ("../x", "x"),
        ("<b>\u202e", "b"),
        ("..", "run"),
        ("\u635f\u5931", "run"),
        ("x" * 100, "x" * 60),
    ],
)
def test_file_name_of_a_label_is_harmless(label: str, name: str) -> None:
    assert file_name(label) == name
