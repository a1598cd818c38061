"""Each threshold of the advice on rollouts just below, at and just above its edge, and each text word for word."""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

import pytest

from mint_lab.recipes.record import StepRecord
from mint_lab.recipes.rl.rl_advice import rl_findings

from .test_rl_advice import ONE_UPDATE, record, unclipped

MISMATCH = (
    "Before the first update the ratio is not 1: the log-probabilities of sampler and trainer differ by {} nats a "
    "token. {}; {}"
)


def series(**columns: list[float]) -> list[Any]:
    """Records of rollouts whose metrics are the columns."""
    count = len(next(iter(columns.values())))
    return [record(k + 1, **{name: values[k] for name, values in columns.items()}) for k in range(count)]


@pytest.mark.parametrize(
    ("settings", "limit", "cause", "advised"),
    [
        (
            {},
            0.02,
            "Both have the same weights, so their arithmetic differs",
            "compare the number formats of the two, or use a loss that corrects for the difference",
        ),
        (
            {"rollout/temperature": 0.9, "rollout/top_p": 0.5},
            1e-4,
            "The cause is temperature 0.9, which changes the distribution that the sampler reports",
            "sample with temperature=1 if ratios matter",
        ),
        (
            {"rollout/top_p": 0.99},
            1e-4,
            "The cause is top_p=0.99: the sampler renormalises log-probabilities over the remaining tokens",
            "sample with top_p=1 and top_k=-1 if ratios matter",
        ),
        (
            {"rollout/top_k": 5.0},
            1e-4,
            "The cause is top_k=5: the sampler renormalises log-probabilities over the remaining tokens",
            "sample with top_p=1 and top_k=-1 if ratios matter",
        ),
    ],
)
def test_mismatch_begins_above_its_limit(settings: dict[str, float], limit: float, cause: str, advised: str) -> None:
    assert rl_findings([record(settings=settings, mismatch__mean=limit)]) == {}
    text = MISMATCH.format(f"{limit:.2g}", cause, advised)
    assert rl_findings([record(settings=settings, mismatch__mean=nextafter(limit, 1))]) == {"mismatch": text}


def test_numbers_are_rounded_for_a_reader() -> None:
    found = rl_findings([record(ess=0.123456, kl__k1=0.234567, truncated_frac=0.123456)])
    mismatched = rl_findings([record(mismatch__mean=0.0234567)])
    assert "differ by 0.023 nats a token" in mismatched["mismatch"]
    assert "sample size is 12% of the tokens" in found["ess"]
    assert "kl/k1 is 0.23 nats a token" in found["k1"]
    assert found["truncated"].startswith("12% of the responses")
    equal = rl_findings([record(frac_reward_zero_std=0.876543, reward=0.123456)])
    assert "In 88% of the groups all rewards are equal (mean reward 0.12)" in equal["no spread"]
    entropy = rl_findings(series(entropy_est=[1.23456] * 7 + [0.0123456] * 3))["entropy"]
    assert "fell from 1.2 to 0.012 nats a token" in entropy
    cause = rl_findings([record(mismatch__mean=0.5, settings={"rollout/temperature": 0.123456789})])["mismatch"]
    assert "temperature 0.123457, which" in cause


def test_sampler_without_settings_has_not_changed_the_distribution() -> None:
    bare = record(mismatch__mean=0.015)
    bare.settings.clear()
    assert rl_findings([bare]) == {}


def test_mismatch_of_the_last_rollout_that_measured_it() -> None:
    unmeasured = record(3)
    del unmeasured.metrics["mismatch/mean"]
    found = rl_findings([record(1, mismatch__mean=0.5), record(2, mismatch__mean=0.3), unmeasured])
    assert "differ by 0.3 nats a token" in found["mismatch"]
    assert rl_findings([record(1, mismatch__mean=0.5), record(2), unmeasured]) == {}


def test_never_clipped_takes_three_updates() -> None:
    quiet = unclipped(3, rollout__updates_per_rollout=1.0)
    assert rl_findings(quiet[:2]) == {}
    assert rl_findings(quiet) == {
        "never clipped": "For information: nothing was clipped in the last 3 updates, because each rollout has one "
        "update: ratios stay 1, and the loss acts as plain policy gradient. With updates_per_rollout=4 ratios change"
    }


@pytest.mark.parametrize("side", ["clip_frac__low", "clip_frac__high"])
def test_one_token_clipped_on_either_side_is_clipped(side: str) -> None:
    quiet = unclipped(4, rollout__updates_per_rollout=1.0)
    clipped = record(5, settings=ONE_UPDATE, **({"clip_frac__low": 0.0, "clip_frac__high": 0.0} | {side: 1e-9}))
    assert rl_findings([clipped, *quiet]) == {}


@pytest.mark.parametrize(
    ("kind", "metric", "limit", "beyond", "text"),
    [
        (
            "ess",
            "ess",
            0.3,
            -inf,
            (
                "The effective sample size is 30% of the tokens: a few tokens with large ratios dominate the update. "
                "Use each rollout for fewer updates, shorten the delay, lower the learning rate, or clip (ppo, cispo)"
            ),
        ),
        (
            "k1",
            "kl/k1",
            0.1,
            inf,
            (
                "kl/k1 is 0.1 nats a token: the trainer has moved far from the sampler. Use each rollout for fewer "
                "updates, shorten the delay, or lower the learning rate"
            ),
        ),
        (
            "k1",
            "kl/k1",
            -0.1,
            -inf,
            (
                "kl/k1 is -0.1 nats a token: the trainer has moved far from the sampler. Use each rollout for fewer "
                "updates, shorten the delay, or lower the learning rate"
            ),
        ),
        (
            "no spread",
            "frac_reward_zero_std",
            0.8,
            inf,
            (
                "In 80% of the groups all rewards are equal (mean reward 0.50), which gives no learning signal: use "
                "prompts that the model answers sometimes right and sometimes wrong, a larger group_size, or a finer "
                "reward"
            ),
        ),
        (
            "truncated",
            "truncated_frac",
            0.1,
            inf,
            (
                "10% of the responses were truncated at max_tokens (16) and graded unfinished: raise max_tokens, or "
                "reward short answers"
            ),
        ),
    ],
)
def test_finding_begins_beyond_its_limit(kind: str, metric: str, limit: float, beyond: float, text: str) -> None:
    assert rl_findings([record(**{metric: limit})]) == {}
    assert rl_findings([record(**{metric: nextafter(limit, beyond)})]) == {kind: text}


def test_metrics_of_an_update_are_those_of_the_last_record() -> None:
    bad = record(1, ess=0.1, kl__k1=0.5)
    assert set(rl_findings([bad])) == {"ess", "k1"}
    assert rl_findings([bad, record(2)]) == {}
    absent = record(2)
    for name in ("ess", "kl/k1"):
        del absent.metrics[name]
    assert rl_findings([bad, absent]) == {}


def test_shares_are_averaged_over_five_rollouts() -> None:
    """Of the last five: (4 x 1 + 0.1) / 5 = 82% and (0.3 + 0.1 + 0.1 + 0.05) / 5 = 11%. The mean reward is 0.3."""
    found = rl_findings(
        series(
            frac_reward_zero_std=[0.0, 1.0, 1.0, 1.0, 1.0, 0.1],
            reward=[9.0, 0.1, 0.2, 0.3, 0.4, 0.5],
            truncated_frac=[0.0, 0.3, 0.1, 0.1, 0.0, 0.05],
        )
    )
    assert found["no spread"].startswith("In 82% of the groups all rewards are equal (mean reward 0.30), which")
    assert found["truncated"].startswith("11% of the responses were truncated at max_tokens (16) and")


def test_truncation_without_a_known_limit_names_none() -> None:
    unlimited = record(truncated_frac=0.5)
    del unlimited.settings["rollout/max_tokens"]
    assert rl_findings([unlimited])["truncated"].startswith("50% of the responses were truncated at max_tokens and")


def test_entropy_collapse_compares_the_last_three_of_ten_rollouts_with_the_highest_before() -> None:
    """(0.2 + 0.05 + 0.02) / 3 = 0.09 is below a tenth of 1, the highest of the others."""
    entropy = [0.5] * 6 + [1.0, 0.2, 0.05, 0.02]
    text = (
        "Entropy collapse: entropy_est fell from 1 to 0.09 nats a token while the reward did not rise; the model "
        "repeats itself and no longer explores. Lower the learning rate, or start again with a KL penalty towards the "
        "model at the start (grpo)"
    )
    assert rl_findings(series(entropy_est=entropy)) == {"entropy": text}
    assert rl_findings(series(entropy_est=entropy[1:])) == {}, "nine rollouts"
    assert rl_findings(series(entropy_est=[1.0] * 7 + [0.125] * 3)) == {}
    assert rl_findings(series(entropy_est=[1.0, *[0.5] * 6] + [0.099] * 3))["entropy"].startswith(
        "Entropy collapse: entropy_est fell from 1 to 0.099 nats"
    )


def test_entropy_at_a_tenth_of_the_highest_has_not_collapsed() -> None:
    """The mean of three 0.5 is 0.5, a tenth of 5 exactly."""
    assert rl_findings(series(entropy_est=[5.0] * 7 + [0.5] * 3)) == {}


@pytest.mark.parametrize(
    ("rewards", "collapsed"),
    [
        ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], True),  # as low as at the start
        ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.0, 0.0], True),  # higher by one standard error
        ([0.0, 0.0, 0.1, 0.5, 0.5, 0.5, 0.5, 0.4, 0.5, 0.5], False),
        ([0.1, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], True),
        ([0.0, 0.0, 0.1, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], True),
    ],
)
def test_reward_that_rises_compares_the_first_third_with_the_last(rewards: list[float], collapsed: bool) -> None:
    found = rl_findings(series(entropy_est=[0.5] * 7 + [0.01] * 3, reward=rewards))
    assert set(found) == ({"entropy"} if collapsed else set())


@pytest.mark.parametrize(("shift", "flat"), [(0.0019, True), (0.002, False), (-0.0019, True), (-0.002, False)])
def test_reward_is_flat_within_two_standard_errors(shift: float, flat: bool) -> None:
    """Each half of 16 has variance 16 * 0.0025 / 15; two errors are 2 * sqrt(2 * 0.0026667 / 16) = 0.03651.

    Four errors, 0.07303, rule out a change of 0.15 * 0.5 = 0.075 up to a difference of 0.00197.
    """
    half = [0.45, 0.55] * 8
    found = rl_findings(series(reward=half + [reward + shift for reward in half]))
    text = (
        f"The reward is flat: {0.5 + shift:.3f} in the last 16 rollouts after 0.500 in the first 16, a "
        "difference within chance (2 x 0.018). Raise the learning rate or the batch size, or check in the samples "
        "whether the reward distinguishes good responses from bad ones"
    )
    assert found == ({"reward flat": text} if flat else {})


def test_flat_reward_takes_30_rollouts() -> None:
    """Of 31 rollouts the middle one is in neither half."""
    assert rl_findings(series(reward=[0.5] * 29)) == {}
    assert set(rl_findings(series(reward=[0.5] * 30))) == {"reward flat"}
    odd = rl_findings(series(reward=[0.25] * 15 + [9.0] + [0.25] * 15))["reward flat"]
    assert "0.250 in the last 15 rollouts after 0.250 in the first 15, a difference within chance (2 x 0)" in odd


def test_constant_reward_that_rises_is_not_flat() -> None:
    assert rl_findings(series(reward=[0.5] * 15 + [0.6] * 15)) == {}
    assert set(rl_findings(series(reward=[0.6] * 15 + [0.5] * 15))) == {"reward falls"}


def test_flat_reward_is_reported_up_to_four_fifths_of_equal_groups() -> None:
    """The mean of 30 values of 0.75 and of 0.85 in turn is 0.8; the last five have less."""
    equal = [0.875] * 15 + [0.71875] * 15  # mean 0.796875
    assert set(rl_findings(series(reward=[0.5] * 30, frac_reward_zero_std=equal))) == {"reward flat"}
    more = [0.9375] * 15 + [0.71875] * 15  # mean 0.828125
    assert rl_findings(series(reward=[0.5] * 30, frac_reward_zero_std=more)) == {}


def test_dro_text_and_its_edge() -> None:
    assert rl_findings([record(name="dro", unmasked_prompt_frac=0.0)]) == {}
    assert rl_findings([record(name="dro", unmasked_prompt_frac=0.005)]) == {
        "unmasked": "dro runs without weights: 0% of its tokens belong to prompts. Its quadratic term does not vanish "
        "if the advantage is 0, so dro also changes their probabilities; set weights=True, which gives prompts weight 0"
    }


def test_record_with_the_metrics_of_a_rollout_and_no_other_begins_one() -> None:
    bare = record(1)
    names = ("sampling_time", "reward", "frac_reward_zero_std", "truncated_frac")
    bare.metrics.clear()
    bare.metrics.update(dict.fromkeys(names, 0.5))
    assert set(rl_findings([bare])) == {"truncated"}
    for name in names:
        assert rl_findings([StepRecord(1, 0.0, 0.0, 1, "ppo", 1, {k: 0.5 for k in names if k != name})]) == {}


def test_records_between_rollouts_belong_to_no_rollout() -> None:
    """A second update of a rollout has no sampling_time, so its values count neither as rewards nor as shares."""
    update = record(9, truncated_frac=1.0, frac_reward_zero_std=1.0, mismatch__mean=1.0)
    del update.metrics["sampling_time"]
    assert rl_findings([record(1), update]) == {}
    assert rl_findings([update]) == {}
