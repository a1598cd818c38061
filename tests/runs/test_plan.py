"""Plans: checked changes, and what of a change a chart marks."""

from __future__ import annotations

import pytest

from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.runs.plan import Plan, resolve_loss
from mint_lab.runs.record import Edit


def plan(name: str = "pairwise_preference", **config: float) -> Plan:
    return Plan(LOSSES[name], LOSSES[name].config(config), 1e-3, 32, 100)


def test_settings_are_what_shapes_a_step() -> None:
    assert plan(beta=0.5).settings() == {"learning_rate": 1e-3, "batch_size": 32, "beta": 0.5}
    assert [p.name for p in plan("simpo").params()] == ["learning_rate", "beta", "gamma"]


def test_edits_between_two_steps() -> None:
    start = plan()
    assert start.edits_since(start, 7) == []
    changed = start.with_settings({"beta": 0.5, "learning_rate": 2e-3, "steps": 7})
    assert changed.edits_since(start, 7) == [Edit(7, "setting", "learning_rate 0.002"), Edit(7, "setting", "beta 0.5")]
    # Another loss brings its own settings; that is one change.
    assert start.with_loss(LOSSES["simpo"], {"beta": 3.0}).edits_since(start, 2) == [Edit(2, "loss", "simpo v1")]


def test_a_new_version_keeps_what_it_still_knows() -> None:
    old = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 1, 0, 2), Param("b", 1, 0, 2)))
    new = LossSpec("mine", "custom", lambda d, lp: None, version=2, params=(Param("b", 5, 0, 9), Param("c", 7, 0, 9)))
    started = Plan(old, {"a": 0.5, "b": 0.25}, 1e-3, 1, 1)
    assert started.with_loss(new, {}).config == {"b": 0.25, "c": 7.0}
    assert started.with_loss(new, {"b": 1}).config == {"b": 1.0, "c": 7.0}
    strict = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("b", 5, 1, 9, minimum=1.0),))
    assert started.with_loss(strict, {}).config == {"b": 5.0}  # 0.25 is no longer allowed


@pytest.mark.parametrize("value", [3, 3.0])
def test_counts_are_whole(value: float) -> None:
    changed = plan().with_settings({"batch_size": value})
    assert changed.batch_size == 3
    assert isinstance(changed.batch_size, int)


def test_resolving_a_spec_or_a_name() -> None:
    assert resolve_loss("hinge") is LOSSES["hinge"]
    assert resolve_loss(LOSSES["hinge"]) is LOSSES["hinge"]
