"""Trends over whole runs: on labelled runs the right advice appears, and no wrong one at any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.recipes.record import StepRecord
from mint_lab.recipes.rl.recipe import Rl
from mint_lab.recipes.rl.rl_advice import rl_findings
from mint_lab.runs import Run
from mint_lab.runs.advice import RunAdvice

from .labelled_runs import LabelledRun, constant, line, records_of

PHRASES = {
    "collapsed": "The reward collapsed",
    "falling": "The reward is falling",
    "solved": "Solved:",
    "entropy": "Entropy collapse",
    "hacking": "reward hacking",
    "flat": "The reward is flat",
    "no spread": "which gives no learning signal",
    "mismatch": "Before the first update the ratio is not 1",
    "k1": "the trainer has moved far from the sampler",
    "ess": "a few tokens with large ratios",
    "truncated": "truncated at max_tokens",
    "on policy": "nothing was clipped",
}

HEALTHY = LabelledRun(line(0.3, 0.75), entropy=line(1.0, 0.4))
SOLVED = LabelledRun(lambda p: min(0.995, 0.3 + 1.2 * p), entropy=line(1.0, 0.05))
COLLAPSED = LabelledRun(line(0.9, 0.1), entropy=line(0.6, 0.3))
RISE_AND_FALL = LabelledRun(lambda p: 0.2 + 0.7 * min(1, 3 * p, 3 * (1 - p)))
HACKED = LabelledRun(line(0.2, 0.9), length=line(8, 60), entropy=line(1.0, 0.3))
SHORTENED = LabelledRun(line(0.2, 0.9), length=line(40, 2), entropy=line(1.0, 0.3))
NO_ENTROPY = LabelledRun(constant(0.35), entropy=lambda p: 1.5 * 0.02**p)
STALE = LabelledRun(line(0.3, 0.7), delay=16, drift=0.02)
COOL = LabelledRun(line(0.3, 0.7), temperature=0.6, mismatch=0.3)
CHANGED = LabelledRun(
    lambda p: line(0.4, 0.9)(2 * p) if p < 0.5 else line(0.3, 0.6)(2 * p - 1), version=lambda p: 1 + (p >= 0.5)
)
FLAT = LabelledRun(constant(0.3), batch_size=32)


def with_updates(name: str, run: LabelledRun, expected: set[str], *updates: int) -> list[Any]:
    return [pytest.param(replace(run, updates=n), expected, id=f"{name}, {n} updates") for n in updates]


LABELLED = [
    *with_updates("healthy", HEALTHY, set(), 1, 2, 4, 8),
    *with_updates("solved", SOLVED, {"solved"}, 1, 2, 4, 8),
    *with_updates("collapsed", COLLAPSED, {"collapsed"}, 1, 2, 4, 8),
    *with_updates("risen and collapsed", replace(RISE_AND_FALL, rollouts=400), {"collapsed"}, 1, 8),
    *with_updates("hacked by length", HACKED, {"hacking"}, 1, 4),
    *with_updates("hacked by brevity", SHORTENED, {"hacking"}, 2),
    *with_updates("entropy collapse", replace(NO_ENTROPY, rollouts=400), {"entropy"}, 1, 2, 4, 8),
    *with_updates("stale sampler", STALE, {"k1", "ess"}, 1, 2),
    *with_updates("temperature", COOL, {"mismatch"}, 1, 2, 4, 8),
    *with_updates("changed reward", CHANGED, set(), 1, 2, 4, 8),
    *with_updates("flat", FLAT, {"flat"}, 1, 8),
    *with_updates("batch of 1, healthy", replace(HEALTHY, batch_size=1, rollouts=400), set(), 1, 4),
    *with_updates("batch of 1, collapsed", replace(COLLAPSED, batch_size=1, rollouts=400), {"collapsed"}, 1, 4),
    *with_updates("batch of 1, flat", replace(FLAT, batch_size=1, rollouts=200), set(), 1),  # too noisy to say so
    *with_updates("rewards of 10, solved", replace(SOLVED, scale=10.0), {"solved"}, 2),
    *with_updates("penalties, collapsed", replace(COLLAPSED, offset=-1.0), {"collapsed"}, 2),
    *with_updates("slow rise", replace(HEALTHY, success=line(0.3, 0.5), rollouts=600), {"slow"}, 2),
    *with_updates("slow fall", LabelledRun(line(0.85, 0.6), rollouts=500), {"falling"}, 2),
]
# What may precede the last state of a run: it is true at that time.
PASSING = {"collapsed": {"falling", "solved"}, "entropy": {"flat"}, "slow": {"flat"}, "falling": {"flat", "solved"}}


def kinds(texts: Sequence[str]) -> set[str]:
    """Return the kinds of these texts; each has exactly one."""
    found = [{kind for kind, phrase in PHRASES.items() if phrase in text} for text in texts]
    assert all(len(each) == 1 for each in found), texts
    return {kind for each in found for kind in each} - {"on policy"}


def advice_of(records: Sequence[StepRecord]) -> list[set[str]]:
    """Return the kinds of advice at each step, as a run gives it."""
    advice = RunAdvice(Rl())
    return [kinds(advice.update(records[max(0, k - advice.window) : k + 1])) for k in range(len(records))]


@pytest.mark.parametrize(("run", "expected"), LABELLED)
def test_labelled_run_gets_the_right_advice_and_no_other(run: LabelledRun, expected: set[str]) -> None:
    by_step = advice_of(records_of(run, seed=0))
    late = set[str]().union(*by_step[-len(by_step) // 5 :])  # a flat reward wavers about the limit of chance
    assert expected - {"slow"} <= late
    allowed = expected.union(*(PASSING.get(kind, set()) for kind in expected))
    wrong = {kind: k for k, found in enumerate(by_step) for kind in found - allowed}
    assert wrong == {}


def rollout(step: int, reward: float, **numbers: float) -> StepRecord:
    metrics = {"reward": reward, "frac_reward_zero_std": 0.3, "truncated_frac": 0.0, "sampling_time": 0.1, **numbers}
    settings = {"rollout/reward_version": numbers.get("version", 1.0)}
    return StepRecord(step, 0.0, 0.0, 1, "ppo", 1, metrics, settings=settings)


def test_fall_names_its_numbers_and_where_the_best_was() -> None:
    """Blocks of 40 // 5 = 8: the best are steps 1 to 8, with a mean of 0.9."""
    text = rl_findings([rollout(k, 0.9 if k <= 20 else 0.1) for k in range(1, 41)])["diverging"]
    assert text.startswith("The reward collapsed. The mean reward fell from 0.9 (steps 1 to 8) to 0.1 in the last 8")
    mild = rl_findings([rollout(k, 0.9 if k <= 20 else 0.7) for k in range(1, 41)])
    assert set(mild) == {"reward falls"}
    assert "from 0.9 (steps 1 to 8) to 0.7 in the last 8 rollouts" in mild["reward falls"]


def test_fall_of_a_reward_that_another_version_graded_is_none() -> None:
    before = [rollout(k, 0.9) for k in range(1, 31)]
    after = [rollout(k, 0.1, version=2.0) for k in range(31, 61)]
    assert set(rl_findings([*before, *after])) == {"reward flat"}, "the new version alone has been flat"
    assert "diverging" in rl_findings([*before, *(rollout(k, 0.1) for k in range(31, 61))])


def test_solved_takes_a_reward_at_its_ceiling_or_one_that_rose_to_it() -> None:
    """A constant 0.2 may be the least reward as well as the largest one."""
    stuck = [rollout(k, 0.2, frac_reward_zero_std=1.0) for k in range(1, 41)]
    assert set(rl_findings(stuck)) == {"no spread"}
    risen = [rollout(k, 0.05 * k, frac_reward_zero_std=0.3) for k in range(1, 41)]
    risen += [rollout(k, 2.0, frac_reward_zero_std=0.9) for k in range(41, 81)]
    assert set(rl_findings(risen)) == {"solved"}
    assert "the mean reward is 2.00, and in 90% of the groups" in rl_findings(risen)["solved"]


def test_ratio_at_equal_weights_is_not_blamed_on_updates() -> None:
    """At the first step of a rollout sampler and trainer have the same weights, so only the temperature differs."""
    cool = {"rollout/temperature": 0.5}
    first = replace(rollout(1, 0.5, **{"mismatch/mean": 0.6, "kl/k1": 0.4, "ess": 0.2}), settings=cool)
    assert set(rl_findings([first])) == {"mismatch"}
    second = StepRecord(2, 0.0, 0.0, 1, "ppo", 1, {"kl/k1": 0.45, "ess": 0.18}, settings=cool)
    assert set(rl_findings([first, second])) == {"mismatch"}
    far = StepRecord(2, 0.0, 0.0, 1, "ppo", 1, {"kl/k1": 0.55, "ess": 0.05}, settings=cool)
    found = rl_findings([first, far])
    assert set(found) == {"mismatch", "k1", "ess"}
    assert "kl/k1 is 0.55 nats a token (0.4 before the first update)" in found["k1"]
    assert "5% of the tokens (20% before the first update)" in found["ess"]


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"steps": 60, "learning_rate": 2e-3, "batch_size": 8}, {"solved", "no spread"}),
        ({"steps": 60, "updates_per_rollout": 4, "batch_size": 4, "learning_rate": 5e-4}, {"solved"}),
        ({"steps": 30, "batch_size": 1, "learning_rate": 5e-4}, set()),
        ({"steps": 20, "temperature": 0.6, "batch_size": 8}, {"mismatch"}),
    ],
)
def test_real_run_gets_no_wrong_advice(arguments: dict[str, Any], allowed: set[str], tmp_path: Path) -> None:
    run = Run("rl", folder=tmp_path / "run", eval_every=100, keep_snapshots=0, **arguments)
    run.start().wait(300, check=True)
    said = {kind for record in run.records for kind in kinds(record.warnings)}
    assert said <= allowed
    if "temperature" in arguments:
        assert said == {"mismatch"}
