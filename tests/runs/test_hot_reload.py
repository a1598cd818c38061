"""Losses and rewards that are registered again while a run exists."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from mint_lab.data.rewards import REWARDS, Reward
from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.recipes import RECIPES
from mint_lab.recipes.plan import StepPlan
from mint_lab.runs.advice import RunAdvice
from mint_lab.runs.hot_reload import follow_registries
from mint_lab.runs.loop import Loop

from ..waiting import TIMEOUT


class NotingLoop(Loop):
    """A loop that loads nothing and notes what it would resume for."""

    def __init__(self) -> None:
        def unused() -> Any:
            raise AssertionError("nothing is loaded")

        plan = StepPlan.first(LOSSES["mine"], {}, learning_rate=0.1, batch_size=4, steps=5)
        super().__init__(
            "x", plan, load=unused, open_store=unused, describe_run=unused, eval_every=5, advice=RunAdvice()
        )
        self.resumed: list[tuple[str, str]] = []

    def resume_if_waiting_for(self, kind: Any, name: str) -> None:
        self.resumed.append((kind, name))


def mine(**fields: Any) -> LossSpec:
    """The next version of a custom loss called ``mine``."""
    return LOSSES.register(LossSpec("mine", "custom", pairwise_preference_loss, **fields))


def reward(name: str) -> Reward:
    return REWARDS.register(Reward(name, lambda response, example: 1.0, source="..."))


@pytest.fixture(autouse=True)
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], NotingLoop]:
    """``follow(recipe, **options)``: a loop on the loss ``mine`` that follows the registries, as a run's does."""
    for registry in (LOSSES, REWARDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_subscribers", [])
    mine()
    reward("grade")

    def follow_(recipe: str, **options: Any) -> NotingLoop:
        loop = NotingLoop()
        follow_registries(loop, RECIPES[recipe].with_options(options))
        return loop

    return follow_


def test_new_version_of_the_loss_is_used_and_resumes(follow: Callable[..., NotingLoop]) -> None:
    loop = follow("preference")
    spec = mine(params=(Param("beta", 1.0, 0.0, 2.0),))
    assert loop.plan.loss is spec
    assert (loop.plan.loss.version, loop.plan.config) == (2, {"beta": 1.0})
    assert loop.resumed == [("loss", "mine")]


def test_another_loss_is_not_used(follow: Callable[..., NotingLoop]) -> None:
    loop = follow("preference")
    LOSSES.register(LossSpec("other", "custom", pairwise_preference_loss))
    assert loop.plan.loss.label == "mine v1"
    assert loop.resumed == []


def test_version_that_does_not_fit_the_data_is_not_used(follow: Callable[..., NotingLoop]) -> None:
    """Registering is allowed, since another run may have such data; this run says why it keeps the old version."""
    loop = follow("preference")
    notified = threading.Event()
    dispose = loop.notifier.subscribe(notified.set)
    mine(inputs=("advantages",))
    assert notified.wait(TIMEOUT), "the page shows the note at once"
    dispose()
    assert loop.plan.loss.label == "mine v1"
    assert loop.notes == ["mine v2 needs advantages, which this data does not have; this run keeps mine v1"]
    assert loop.resumed == []


def test_reward_resumes_the_run_that_grades_with_it(follow: Callable[..., NotingLoop]) -> None:
    graded, others = follow("rl", reward="grade"), [follow("rl"), follow("preference")]
    reward("grade")
    reward("other")
    assert graded.resumed == [("reward", "grade")]
    assert all(loop.resumed == [] for loop in others)


def test_forgotten_run_is_followed_no_longer(follow: Callable[..., NotingLoop]) -> None:
    loop = follow("rl", reward="grade")
    reference = weakref.ref(loop)
    assert (len(LOSSES._subscribers), len(REWARDS._subscribers)) == (1, 1)
    del loop
    gc.collect()
    assert reference() is None, "a registry keeps no run in memory"
    assert (len(LOSSES._subscribers), len(REWARDS._subscribers)) == (0, 0)
    mine()
