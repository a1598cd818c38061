from __future__ import annotations

import pytest

from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.ui.catalogue import catalogue, param_entry, unusable_because


def test_usable_losses_come_first_and_the_others_say_why_not() -> None:
    entries = catalogue("preference")
    assert [entry["name"] for entry in entries].index("pairwise_preference") < len(entries) // 2
    assert len(entries) == len(LOSSES)
    reasons = {entry["name"]: entry["reason"] for entry in entries}
    assert reasons["pairwise_preference"] == ""
    assert "logprobs and advantages" in reasons["ppo"]
    assert [bool(entry["reason"]) for entry in entries] == sorted(bool(entry["reason"]) for entry in entries)


def test_supervised_losses_fit_the_supervised_recipe() -> None:
    assert unusable_because(LOSSES["cross_entropy"], "sft") == ""
    assert unusable_because(LOSSES["cross_entropy"], "preference") != ""
    assert "pairs" in unusable_because(LOSSES["simpo"], "sft")


def test_a_loss_of_ones_own_fits() -> None:
    spec = LossSpec(name="mine", family="custom", fn=lambda data, logprobs: None)
    assert unusable_because(spec, "preference") == ""


@pytest.mark.parametrize(("low", "high", "scale"), [(1e-5, 1e-2, "log"), (0.0, 10.0, "linear"), (0.5, 1.5, "linear")])
def test_a_wide_range_is_divided_logarithmically(low: float, high: float, scale: str) -> None:
    assert param_entry(Param("x", 1.0, low, high))["scale"] == scale
