"""Tests of one process do not see what another one registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

import mint_lab as ml
from mint_lab.charts.chart_spec import CHARTS, ChartSpec, register_chart
from mint_lab.data.rewards import REWARDS
from mint_lab.losses import LOSSES
from mint_lab.metrics.registry import METRICS, MetricSpec, register_metric
from mint_lab.recipes import RECIPES, Recipe

from ..registrations import registrations_undone


def _loss(data: Any, logprobs_list: Any) -> Any:
    return sum(lp.sum() for lp in logprobs_list), {}


class _Kind(Recipe):
    name = "late"
    default_loss = "cross_entropy"

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any:
        raise NotImplementedError


REGISTER: dict[str, tuple[Mapping[str, Any], Callable[[], Any]]] = {
    "late_loss": (LOSSES, lambda: ml.loss(_loss, name="late_loss")),
    "dpo": (LOSSES, lambda: ml.loss(_loss, name="dpo")),  # replaces a bundled one
    "late_reward": (REWARDS, lambda: ml.reward(lambda answer, problem: 0.0, name="late_reward")),
    "late": (RECIPES, lambda: ml.recipe(_Kind)),
    "late_metric": (METRICS, lambda: register_metric(MetricSpec("late_metric", "One."))),
    "late_chart": (CHARTS, lambda: register_chart(ChartSpec("late_chart"))),
}


@pytest.mark.parametrize("name", REGISTER)
def test_registrations_end_with_their_test(name: str) -> None:
    registry, register = REGISTER[name]
    before = dict(registry)
    with registrations_undone():
        register()
        assert registry[name] is not before.get(name)
    assert dict(registry) == before


def test_registrations_end_with_a_test_that_fails() -> None:
    @registrations_undone()
    def failing() -> None:
        ml.recipe(_Kind)
        raise ZeroDivisionError

    before = list(RECIPES)
    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(RECIPES) == before


def test_no_test_file_registers_when_it_is_imported() -> None:
    """A worker imports every file before its first test, so such a name would exist in all tests of all files."""
    assert [name for name, spec in LOSSES.items() if spec.family == "custom"] == []
    assert [name for name, reward in REWARDS.items() if not reward.builtin] == []
    assert list(RECIPES._others) == []
