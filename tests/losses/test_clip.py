"""Which ratios a loss lets through, by the names of its settings."""

from __future__ import annotations

import dataclasses

import pytest

from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.losses.clip import clip_range, token_clip


def spec(*names: str) -> LossSpec:
    params = tuple(Param(name, 0.2, 0.0, 1.0) for name in names)
    return LossSpec(
        name="mine", family="policy", fn=lambda data, logprobs_list: (logprobs_list[0].sum(), {}), params=params
    )


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"clip_low_threshold": 0.7, "clip_high_threshold": 1.4}, (0.7, 1.4)),
        ({"epsilon": 0.25}, (0.75, 1.25)),
        ({"epsilon_low": 0.25, "epsilon_high": 0.5}, (0.75, 1.5)),
        ({"epsilon": 0.25, "epsilon_high": 0.5}, (0.75, 1.5)),
        ({"epsilon_low": 0.25}, None),
        ({"clip_low_threshold": 0.8, "beta": 0.1}, None),
        ({}, None),
    ],
)
def test_ranges_are_read_from_names(config: dict[str, float], wanted: tuple[float, float] | None) -> None:
    assert clip_range(config) == wanted
    found = token_clip(spec(*config))
    assert (None if found is None else found.range(config)) == wanted


def test_ppo_clips_one_side_by_sign_and_cispo_both() -> None:
    ppo, cispo = token_clip(LOSSES["ppo"]), token_clip(LOSSES["cispo"])
    assert ppo is not None
    assert cispo is not None
    config = LOSSES["ppo"].config()
    table = [(0.7, -1.0), (0.7, 1.0), (1.3, -1.0), (1.3, 1.0), (1.0, 1.0), (0.7, 0.0), (0.8, -1.0), (1.2, 1.0)]
    assert [ppo.active(r, a, config) for r, a in table] == [True, False, False, True, False, False, False, False]
    assert [cispo.active(r, a, config) for r, a in table] == [True, True, True, True, False, True, False, False]


def test_losses_without_a_clip_of_tokens_have_none() -> None:
    for name in ("importance_sampling", "dro", "gspo", "dpo"):
        assert token_clip(LOSSES[name]) is None, name
    assert token_clip(LOSSES["grpo"]) is not None
    # A cell that happens to be called like one of ours is judged by its settings.
    assert token_clip(dataclasses.replace(spec("epsilon"), name="gspo")) is not None
