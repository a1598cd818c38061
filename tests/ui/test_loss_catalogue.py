"""Entries of the loss picker: order, reasons, inputs and slider scales."""

from __future__ import annotations

import pytest

from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.recipes.registry import recipe_named
from mint_lab.ui.loss_catalogue import loss_catalogue, param_entry
from mint_lab.ui.messages import LossEntry


def catalogue(recipe: str) -> list[LossEntry]:
    return loss_catalogue(recipe_named(recipe).data_kind)


def test_usable_losses_come_first_and_others_have_a_reason() -> None:
    entries = catalogue("preference")
    assert [entry["name"] for entry in entries].index("pairwise_preference") < len(entries) // 2
    assert len(entries) == len(LOSSES)
    reasons = {entry["name"]: entry["reason"] for entry in entries}
    assert reasons["pairwise_preference"] == ""
    assert "logprobs and advantages" in reasons["ppo"]
    assert [bool(entry["reason"]) for entry in entries] == sorted(bool(entry["reason"]) for entry in entries)


def test_preference_recipe_accepts_every_preference_loss() -> None:
    """Also losses with a reference model, which the run computes; in the order of the registry."""
    usable = [entry["name"] for entry in catalogue("preference") if not entry["reason"]]
    assert usable == [name for name, spec in LOSSES.items() if spec.family == "preference"]
    assert {"dpo", "kto", "orpo"} <= set(usable)


def test_unpaired_recipe_accepts_the_losses_that_read_a_label() -> None:
    assert [entry["name"] for entry in catalogue("unpaired") if not entry["reason"]] == ["kto", "bco"]


@pytest.mark.parametrize(("low", "high", "scale"), [(1e-5, 1e-2, "log"), (0.0, 10.0, "linear"), (0.5, 1.5, "linear")])
def test_wide_range_has_a_logarithmic_slider(low: float, high: float, scale: str) -> None:
    assert param_entry(Param("x", 1.0, low, high))["scale"] == scale


def test_inputs_are_named_with_whether_the_data_have_them() -> None:
    def inputs(name: str, recipe: str) -> dict[str, bool]:
        entry = next(entry for entry in catalogue(recipe) if entry["name"] == name)
        return {field["name"]: field["here"] for field in entry["inputs"]}

    assert inputs("dpo", "preference")["reference_logprobs"]  # the trainer adds it
    assert inputs("ppo", "rl")["logprobs"]
    assert inputs("ppo", "rl")["advantages"]
    assert not inputs("ppo", "preference")["advantages"]
    assert not inputs("reverse_kl", "rl")["teacher_logprobs"]
    for recipe in ("preference", "sft", "rl", "unpaired"):
        for entry in catalogue(recipe):
            assert [field["name"] for field in entry["inputs"]] == list(LOSSES[entry["name"]].inputs)
            if any(not field["here"] for field in entry["inputs"]):
                assert entry["reason"], entry["name"]


def test_slider_by_hand() -> None:
    param = Param("beta", 0.1, 0.01, 1.0, "strength of the penalty", minimum=0.001)
    assert param_entry(param) == {
        **{"name": "beta", "default": 0.1, "low": 0.01, "high": 1.0, "minimum": 0.001},
        **{"doc": "strength of the penalty", "scale": "log"},
    }


@pytest.mark.parametrize(("high", "scale"), [(0.5, "linear"), (0.5000001, "log")])
def test_slider_is_logarithmic_beyond_a_factor_of_50(high: float, scale: str) -> None:
    assert param_entry(Param("x", 0.01, 0.01, high))["scale"] == scale


def test_entry_says_all_of_its_loss() -> None:
    for entry in catalogue("preference"):
        spec = LOSSES[entry["name"]]
        assert [entry[key] for key in ("label", "family", "formula", "summary", "paper")] == [  # type: ignore[literal-required]
            *(spec.label, spec.family, spec.formula, spec.summary, spec.paper)
        ]
        assert entry["params"] == [param_entry(param) for param in spec.params]


def test_entry_is_utf8() -> None:
    LOSSES.register(LossSpec(name="mine", family="custom", fn=lambda data, logprobs: None, summary="half \ud83d"))
    (entry,) = (entry for entry in catalogue("preference") if entry["name"] == "mine")
    assert entry["summary"] == "half \\ud83d"
