"""Sequences of steps, edits and failures of reward and loss: the run agrees with rollouts by hand after each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from mint_lab.data.rewards import REWARDS, reward
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register_loss
from mint_lab.runs import Run

from ...runs.bigram import BigramClient
from ...waiting import TIMEOUT
from .by_hand import MAX_TOKENS, PROMPTS, Rollout, Update, apply, even, low, policy_gradient, roll_out

UPDATES = 2  # per rollout


def broken_reward(response_text: str, example: Any) -> float:
    raise ValueError("a planted bug of the reward")


def broken_loss(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
    raise ValueError("a planted bug of the loss")


def make_good_loss() -> Any:
    def mine(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
        return policy_gradient(data, logprobs_list, scale)

    return mine


@dataclass
class Model:
    """What the run should do; ``None`` for a reward or a loss means that it raises.

    Attributes:
        rest: Batches of the rollout that are left.
        sampled: Prompts that were sampled for training, those of rollouts that could not be graded included.
        ungraded: Position and batch size of responses that wait for a reward.
        marks: Edits that the run should list.
    """

    client: BigramClient = field(default_factory=BigramClient)
    reward: tuple[str, Callable[[str, Any], float] | None] = ("", low)
    loss: tuple[str, Any] = ("", policy_gradient)
    settings: dict[str, float] = field(default_factory=lambda: {"learning_rate": 0.1, "batch_size": 3, "scale": 1.0})
    previous: dict[str, Any] = field(default_factory=dict)
    rest: list[Any] = field(default_factory=list)
    grader: str = ""
    new_grader: bool = False
    position: int = 0
    sampled: int = 0
    ungraded: tuple[int, int] | None = None
    rewards: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    marks: list[tuple[int, str, str]] = field(default_factory=list)

    def step(self) -> str:
        """Make a step; return "reward" or "loss" if that failed, "" if the step is complete."""
        size = int(self.settings["batch_size"])
        label, grade = self.reward
        if not self.rest:
            if self.ungraded != (self.position, size):
                self.ungraded, self.sampled = (self.position, size), self.sampled + size
            if grade is None:
                return "reward"
            batch, mean = roll_out(self.client, Rollout(reward=grade, batch_size=size), self.position)
            self.rest, self.ungraded = [batch] * UPDATES, None
            self.mean, self.position = mean, self.position + size
            self.new_grader, self.grader = self.new_grader or label != self.grader, label
        if self.loss[1] is None:
            return "loss"
        update = Update(self.loss[1], {"scale": self.settings["scale"]}, self.settings["learning_rate"])
        self.losses.append(apply(self.client, self.rest.pop(), update))
        if len(self.rest) == UPDATES - 1:
            self.rewards.append(self.mean)
        self._mark()
        return ""

    def _mark(self) -> None:
        number, now = len(self.losses), {"loss": self.loss[0], **self.settings}
        if self.previous:
            changed = [key for key in now if now[key] != self.previous[key]]
            self.marks += [
                (number, "loss", now[key]) if key == "loss" else (number, "setting", f"{key} {now[key]:g}")
                for key in changed
            ]
            if self.new_grader:
                self.marks.append((number, "reward", self.grader))
        self.previous, self.new_grader = now, False


@pytest.fixture
def rl(make_run: Callable[..., Run]) -> Run:
    reward(name="graded")(low)
    register_loss(name="mine", unit="datum")(make_good_loss())
    options = {"data": PROMPTS, "held_out": PROMPTS[:2], "reward": "graded", "max_tokens": MAX_TOKENS}
    return make_run(
        *("rl", "mine"),
        **options,
        updates_per_rollout=UPDATES,
        steps=500,
        batch_size=3,
        learning_rate=0.1,
        eval_every=500,
    )


def act(run: Run, model: Model, rng: random.Random) -> str:
    """Make an edit, or none; return its kind."""
    kind = rng.choice(["none", "none", "batch_size", "learning_rate", "scale", "reward", "loss"])
    if kind == "reward":
        fn = rng.choice([low, even, broken_reward])
        reward(name="graded")(fn)
        model.reward = REWARDS["graded"].label, None if fn is broken_reward else fn
    elif kind == "loss":
        fn = rng.choice([make_good_loss(), broken_loss])
        register_loss(name="mine", unit="datum")(fn)
        model.loss = LOSSES["mine"].label, None if fn is broken_loss else fn
    elif kind != "none":
        value = rng.choice({"batch_size": [2, 3, 5], "learning_rate": [0.1, 0.3], "scale": [0.5, 1.0]}[kind])
        run.set(**{kind: value})
        model.settings[kind] = value
    return kind


@pytest.mark.parametrize("seed", range(4))
def test_run_agrees_with_rollouts_by_hand_after_every_action(rl: Run, seed: int) -> None:
    rng, run = random.Random(seed), rl
    model = Model(reward=(REWARDS["graded"].label, low), loss=(LOSSES["mine"].label, LOSSES["mine"].fn))
    evaluated = 2  # answers to held-out prompts before the first step
    failed = ""
    for _ in range(30):
        kind = act(run, model, rng)
        if failed != kind:  # the run waits for a version of what failed, and then resumes by itself
            run.step()
        assert run.wait(TIMEOUT, check=False)
        failed = model.step()
        client: Any = run.client
        assert run.status == "paused"
        error = run.error
        assert (error is None) == (failed == "")
        if error is not None:
            assert f"a planted bug of the {failed}" in error.message
            assert (error.loss, error.reward and error.reward.label) == (
                ("mine", None) if failed == "loss" else (None, model.reward[0])
            )
        assert torch.equal(client.table, model.client.table)
        assert [r.metrics["loss"] for r in run.records] == model.losses
        assert [r.metrics["reward"] for r in run.records if "reward" in r.metrics] == pytest.approx(model.rewards)
        assert [(edit.step, edit.kind, edit.label) for edit in run.edits] == model.marks
        assert client.calls.count("sample") == evaluated + model.sampled
        assert client.gradient is None
