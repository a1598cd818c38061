"""Losses and rewards from their source: version, description, and what is no loss."""

from __future__ import annotations

import pytest

from mint_lab.data.rewards import REWARDS
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.runs.from_source import loss_from_source, reward_from_source

LOSS = """\
def scale(logprobs):
    return 2 * logprobs.sum()


def doubled(data, logprobs_list, width=0.5):
    return sum(map(scale, logprobs_list)), {}
"""
REWARD = "def short_text(response_text, example):\n    return -float(len(response_text))\n"


def test_a_loss_has_its_version_and_its_helpers() -> None:
    import torch

    spec = loss_from_source(LOSS, "doubled", 3, unit="datum", inputs=["weights"])
    assert (spec.label, spec.unit, spec.inputs, spec.source) == ("doubled v3", "datum", ("weights",), LOSS)
    assert float(spec.fn([], [torch.tensor([1.0, 2.0])])[0]) == 6.0
    assert "doubled" not in LOSSES


def test_a_reward_is_registered_with_its_version() -> None:
    try:
        assert reward_from_source(REWARD, "short_text", 2).label == "short_text v2"
        later = reward_from_source(REWARD.replace("-float", "float"), "short_text", 5)
        assert later.label == "short_text v5", "versions 3 and 4 did not grade"
        assert REWARDS["short_text"].fn("abc", {}) == 3.0
    finally:
        REWARDS._entries.pop("short_text", None)
        REWARDS._first.pop("short_text", None)


def test_other_sources_are_refused() -> None:
    with pytest.raises(ConfigError, match="mine"):
        loss_from_source("x = 1\n", "mine")
    with pytest.raises(ConfigError, match="mine"):
        reward_from_source("x = 1\n", "mine")
    with pytest.raises(ConfigError, match="'exact_match' is a built-in reward"):
        reward_from_source(REWARD.replace("short_text", "exact_match"), "exact_match")
