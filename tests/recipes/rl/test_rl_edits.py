"""An edit reaches the rollout and the policy loss: an edited run equals rollouts and updates by hand.

The loop by hand samples, grades and updates with the client alone. Records and weights must agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from mint_lab.data.rewards import reward
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register_loss
from mint_lab.runs import Run
from mint_lab.ui.workbench import Workbench
from tests.ui.pages import Comm, comms

from ...runs.bigram import BigramClient
from ...runs.conftest import timeless
from ...waiting import TIMEOUT, Gate
from .by_hand import MAX_TOKENS, PROMPTS, Rollout, Update, apply, by_hand, even, low, policy_gradient

__all__ = ["comms"]


@pytest.fixture
def rl(make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(**options: Any) -> Run:
        given = {"data": PROMPTS, "held_out": PROMPTS[:3], "reward": low, "max_tokens": MAX_TOKENS, "steps": 4}
        return make_run("rl", **{**given, "learning_rate": 0.1, "eval_every": 100, **options})

    return make


def after_step(run: Run, step: int, edit: Callable[[], Any]) -> Run:
    """Edit the run after ``step`` or, if its client has a gate, inside that step; then finish it."""
    gate: Any = run.client.gate  # type: ignore[union-attr]
    if gate is None:
        assert run.step(step).wait(TIMEOUT)
        edit()
        run.start()
    else:
        run.start()
        for _ in range(step - 1):
            gate.wait()
            gate.open()
        gate.wait()
        edit()
        gate.open(100)
    assert run.wait(TIMEOUT)
    return run


def compare(run: Run, rollouts: Sequence[Rollout]) -> None:
    client = BigramClient()
    rewards, losses = by_hand(client, rollouts)
    assert [r.metrics["reward"] for r in run.records if "reward" in r.metrics] == pytest.approx(rewards, rel=1e-12)
    assert [r.metrics["loss"] for r in run.records] == losses
    assert torch.equal(run.client.table, client.table)  # type: ignore[union-attr]


def edits_of(run: Run) -> list[tuple[int, str, str]]:
    return [(edit.step, edit.kind, edit.label) for edit in run.edits]


PPO = Update()
EDITS: dict[str, tuple[Callable[[Run], Any], Rollout, tuple[str, str]]] = {
    "reward": (lambda _: reward(name="low")(even), Rollout(reward=even), ("reward", "low v2")),
    "batch size": (lambda run: run.set(batch_size=7), Rollout(batch_size=7), ("setting", "batch_size 7")),
    "learning rate": (
        lambda run: run.set(learning_rate=0.4),
        Rollout([replace(PPO, learning_rate=0.4)]),
        ("setting", "learning_rate 0.4"),
    ),
    "built-in loss": (
        lambda run: run.set_loss("importance_sampling"),
        Rollout([Update("importance_sampling", {})]),
        ("loss", "importance_sampling v1"),
    ),
    "custom loss": (
        lambda run: run.set_loss(policy_gradient, scale=3.0),
        Rollout([Update(policy_gradient, {"scale": 3.0})]),
        ("loss", "policy_gradient v1"),
    ),
}


@pytest.mark.parametrize("when", ["paused", "running"])
@pytest.mark.parametrize("name", EDITS)
def test_edited_run_equals_rollouts_by_hand(rl: Any, name: str, when: str) -> None:
    edit, after, (kind, label) = EDITS[name]
    run = rl(client=BigramClient(gate=Gate() if when == "running" else None))
    after_step(run, 2, lambda: edit(run))
    compare(run, [Rollout(), Rollout(), after, after])
    assert edits_of(run) == [(3, kind, label)]
    for record in run.records:
        step = (Rollout(), after)[record.step > 2]
        own = {"learning_rate": step.updates[0].learning_rate, "batch_size": step.batch_size, "rollout/group_size": 8.0}
        assert record.settings.items() >= {**own, **step.updates[0].config}.items()


def test_reward_and_batch_size_wait_for_the_next_rollout(rl: Any) -> None:
    """Inside a rollout of three updates, only the loss and the optimizer can change."""

    def edit() -> None:
        reward(name="low")(even)
        run.set(batch_size=6, learning_rate=0.3)

    run = rl(updates_per_rollout=3, steps=5)
    after_step(run, 1, edit)
    fast = replace(PPO, learning_rate=0.3)
    compare(run, [Rollout([PPO, fast, fast]), Rollout([fast, fast], even, 6)])
    marks = [(2, "setting", "learning_rate 0.3"), (2, "setting", "batch_size 6"), (4, "reward", "low v2")]
    assert edits_of(run) == marks
    assert [record.settings["rollout/reward_version"] for record in run.records] == [1, 1, 1, 2, 2]


def test_edit_on_the_page_reaches_the_rollout(rl: Any, comms: list[Comm]) -> None:
    run = rl(updates_per_rollout=2)
    lab = Workbench("rl", steps=1)
    lab.show(run)

    def edit() -> None:
        for request in (
            {"type": "set_loss", "name": "cispo"},
            {"type": "set", "name": "clip_high_threshold", "value": 1.01},
            {"type": "set", "name": "batch_size", "value": 3},
        ):
            assert comms[-1].ask(request=1, **request)[-1] == {"type": "reply", "request": 1, "error": ""}

    after_step(run, 1, edit)
    cispo = Update("cispo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.01})
    compare(run, [Rollout([PPO, cispo]), Rollout([cispo, cispo], batch_size=3)])
    # The settings that came with a loss belong to its mark.
    assert edits_of(run) == [(2, "loss", "cispo v1"), (2, "setting", "batch_size 3")]
    lab.close()


POLICY_PARAMS = [
    *((name, "clip_low_threshold", 0.98) for name in ("ppo", "cispo", "grpo", "dr_grpo")),
    *((name, "clip_high_threshold", 1.02) for name in ("ppo", "cispo", "grpo", "dr_grpo")),
    *(("gspo", "clip_low_threshold", 0.5), ("gspo", "clip_high_threshold", 1.3)),
    *(("dro", "beta", 5.0), ("grpo", "beta", 0.5), ("dr_grpo", "max_tokens", 16.0)),
]


@pytest.mark.parametrize(("loss", "name", "value"), POLICY_PARAMS)
def test_every_setting_of_a_policy_loss_reaches_the_update(rl: Any, loss: str, name: str, value: float) -> None:
    """Four updates on one rollout; the setting changes after the second. The datums are those that the run used."""
    spec = LOSSES[loss]
    assert {(loss, p.name) for p in spec.params} <= {(each, param) for each, param, _ in POLICY_PARAMS}
    run = rl(loss=loss, updates_per_rollout=4)
    after_step(run, 2, lambda: run.set(**{name: value}))
    tables = []
    for after in ({**spec.config(), name: value}, spec.config()):
        client = BigramClient()
        for k in range(4):
            config = after if k >= 2 else spec.config()
            apply(client, run.client.batches[0], Update(loss if spec.builtin else spec.fn, config))
        tables.append(client.table)
    assert torch.equal(run.client.table, tables[0])
    assert not torch.equal(*tables), "the setting matters here"
    assert edits_of(run) == [(3, "setting", f"{name} {value:g}")]


def test_records_equal_those_of_a_run_that_begins_with_the_clip(rl: Any) -> None:
    """Before its first update a rollout's ratios are 1, so that no clip acts at step 1."""
    clip = {"clip_low_threshold": 0.99, "clip_high_threshold": 1.01}
    run = rl(updates_per_rollout=4)
    after_step(run, 1, lambda: run.set(**clip))
    other = rl(updates_per_rollout=4, loss_config=clip)
    assert other.start().wait(TIMEOUT)
    assert list(map(timeless, run.records[1:])) == list(map(timeless, other.records[1:]))
    assert [r.clip for r in run.records] == [(0.8, 1.2), *[(0.99, 1.01)] * 3]
    assert run.records[1].metrics["clip_frac/low"] + run.records[1].metrics["clip_frac/high"] > 0.1


def test_registered_policy_loss_reaches_the_next_update(rl: Any) -> None:
    """In the middle of a rollout: the responses stay, the loss changes."""
    register_loss(name="mine", unit="datum")(policy_gradient)
    run = rl(loss="mine", loss_config={"scale": 2.0}, updates_per_rollout=2)

    def opposite(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
        return policy_gradient(data, logprobs_list, -scale)

    after_step(run, 1, lambda: register_loss(name="mine", unit="datum")(opposite))
    first, second = (Update(fn, {"scale": 2.0}) for fn in (policy_gradient, opposite))
    compare(run, [Rollout([first, second]), Rollout([second, second])])
    assert edits_of(run) == [(2, "loss", "mine v2")]
