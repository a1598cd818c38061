"""Which ratios a loss lets through."""

from __future__ import annotations

import pytest

from mint_lab.losses import LOSSES
from mint_lab.losses.clip import clip_by_names
from mint_lab.losses.decorator import spec_of


@pytest.mark.parametrize(
    ("config", "expected"),
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
def test_clip_by_names_reads_the_range(config: dict[str, float], expected: tuple[float, float] | None) -> None:
    clip = clip_by_names(config)
    assert (None if clip is None else clip.range(config)) == expected


def test_ppo_clips_one_side_by_sign_and_cispo_both() -> None:
    ppo, cispo = LOSSES["ppo"].clip, LOSSES["cispo"].clip
    assert ppo is not None
    assert cispo is not None
    config = LOSSES["ppo"].config()
    table = [(0.7, -1.0), (0.7, 1.0), (1.3, -1.0), (1.3, 1.0), (1.0, 1.0), (0.7, 0.0), (0.8, -1.0), (1.2, 1.0)]
    assert [ppo.active(r, a, config) for r, a in table] == [True, False, False, True, False, False, False, False]
    assert [cispo.active(r, a, config) for r, a in table] == [True, True, True, True, False, True, False, False]


def test_clip_is_declared_by_losses_that_clip_tokens_only() -> None:
    clipping = {name for name, spec in LOSSES.items() if spec.clip is not None}
    assert clipping >= {"ppo", "cispo", "grpo", "dr_grpo"}
    assert clipping.isdisjoint(
        {"gspo", "dro", "importance_sampling", "cross_entropy", "dpo"}
    )  # gspo clips whole samples


def test_clip_of_a_function_follows_its_settings() -> None:
    def gspo(data, logprobs_list, epsilon=0.2):  # a name says nothing
        return sum(lp.sum() for lp in logprobs_list), {}

    clip = spec_of(gspo).clip
    assert clip is not None
    assert clip.range({"epsilon": 0.5}) == (0.5, 1.5)
