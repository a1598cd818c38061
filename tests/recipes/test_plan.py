"""Plans: checked changes, and what of a change a chart marks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.recipes.plan import StepPlan, resolve_loss
from mint_lab.recipes.record import Edit
from mint_lab.types import AdamParams


def plan(name: str = "pairwise_preference", **config: float) -> StepPlan:
    return StepPlan(LOSSES[name], LOSSES[name].config(config), 1e-3, 32, 100)


def test_settings_are_what_shapes_a_step() -> None:
    expected = {"learning_rate": 1e-3, "warmup_steps": 0, "grad_clip_norm": 0, "batch_size": 32, "beta": 0.5}
    expected |= {"weight_decay": 0, "beta1": 0.9, "beta2": 0.95, "adam_eps": 1e-12, "accumulate": 1}
    assert plan(beta=0.5).settings() == expected
    assert [p.name for p in plan("simpo").params()] == ["learning_rate", "beta", "gamma"]


def test_edits_between_two_steps() -> None:
    start = plan()
    assert start.edits_since(start, 7) == []
    changed = start.with_settings({"beta": 0.5, "learning_rate": 2e-3, "steps": 7})
    assert changed.edits_since(start, 7) == [Edit(7, "setting", "learning_rate 0.002"), Edit(7, "setting", "beta 0.5")]
    # Another loss brings its own settings; that is one change.
    assert start.with_loss(LOSSES["simpo"], {"beta": 3.0}).edits_since(start, 2) == [Edit(2, "loss", "simpo v1")]


def test_the_learning_rate_rises_to_where_it_is_set_and_an_edit_keeps_its_share() -> None:
    warming = plan().with_settings({"learning_rate": 1.0, "warmup_steps": 4})
    assert [warming.adam(n).learning_rate for n in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    edited = warming.with_settings({"learning_rate": 10.0})
    assert [edited.adam(n).learning_rate for n in (2, 5)] == [5.0, 10.0]
    assert plan().adam(1) == AdamParams(learning_rate=1e-3)  # what is not set is what it always was
    assert plan().with_settings({"grad_clip_norm": 0.5}).adam(1) == AdamParams(learning_rate=1e-3, grad_clip_norm=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grad_clip_norm": -1}, "grad_clip_norm is -1, expected a finite number from 0 up"),
        ({"grad_clip_norm": "1 nat"}, "grad_clip_norm"),
        ({"warmup_steps": -1}, "warmup_steps is -1, expected a whole number from 0 up"),
        ({"warmup_steps": 0.5}, "expected a whole number from 0 up"),
        ({"batch_size": 0}, "expected a whole number from 1 up"),
        ({"accumulate": 0}, "accumulate is 0, expected a whole number from 1 up"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1, expected a finite number from 0 up"),
        ({"betas": (0.9, 1.0)}, "beta2 is 1.0, expected a finite number from 0 up and below 1"),
        ({"betas": 0.9}, r"betas is 0.9, expected two numbers, for example \(0.9, 0.95\)"),
        ({"adam_eps": 0.0}, "adam_eps is 0.0, expected a finite number of at least 1.2e-38"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; expected .*; did you mean 'cosine'"),
        ({"schedule": ["linear"]}, r"schedule is \['linear'\]"),
        ({"schedule": "linear", "steps": 1}, "schedule is 'linear' and steps is 1, expected 2 steps or more"),
        ({"weight_dekay": 1.0}, "unknown setting 'weight_dekay'; .*; did you mean 'weight_decay'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan().with_settings(settings)


def test_a_new_version_keeps_what_it_still_knows() -> None:
    old = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 1, 0, 2), Param("b", 1, 0, 2)))
    new = LossSpec("mine", "custom", lambda d, lp: None, version=2, params=(Param("b", 5, 0, 9), Param("c", 7, 0, 9)))
    started = StepPlan(old, {"a": 0.5, "b": 0.25}, 1e-3, 1, 1)
    assert started.with_loss(new, {}).config == {"b": 0.25, "c": 7.0}
    assert started.with_loss(new, {"b": 1}).config == {"b": 1.0, "c": 7.0}
    strict = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("b", 5, 1, 9, minimum=1.0),))
    assert started.with_loss(strict, {}).config == {"b": 5.0}  # 0.25 is no longer allowed


def test_a_new_version_brings_its_defaults_where_nobody_chose_otherwise() -> None:
    def mine(a: float, b: float, version: int) -> LossSpec:
        return LossSpec(
            "mine", "custom", lambda d, lp: None, version=version, params=(Param("a", a, 0, 9), Param("b", b, 0, 9))
        )

    first = mine(0.1, 1.0, 1)
    started = StepPlan(first, first.config({"b": 2.0}), 1e-3, 1, 1)
    second = started.with_loss(mine(0.5, 3.0, 2), {})
    assert second.config == {"a": 0.5, "b": 2.0}
    assert second.edits_since(started, 4) == [Edit(4, "loss", "mine v2"), Edit(4, "setting", "a 0.5")]
    assert second.with_loss(mine(0.7, 2.0, 3), {}).config == {"a": 0.7, "b": 2.0}


def test_setting_that_a_new_version_adds_is_no_edit() -> None:
    """There was no value before that it could have changed."""
    old = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 1, 0, 2),))
    new = LossSpec("mine", "custom", lambda d, lp: None, version=2, params=(Param("a", 1, 0, 2), Param("b", 5, 0, 9)))
    started = StepPlan(old, old.config(), 1e-3, 1, 1)
    assert started.with_loss(new, {}).edits_since(started, 3) == [Edit(3, "loss", "mine v2")]


@pytest.mark.parametrize(("value", "kept"), [(1.0, 1.0), (4.0, 4.0), (0.99, 2.0), (4.01, 2.0)])
def test_chosen_value_at_the_edge_of_the_new_range_is_kept(value: float, kept: float) -> None:
    """The new version allows 1 to 4, both included; its default is 2."""
    old = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 3, 0, 9),))
    new = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 2, 1, 4, minimum=1.0, maximum=4.0),))
    started = StepPlan(old, {"a": value}, 1e-3, 1, 1)
    assert started.with_loss(new, {}).config == {"a": kept}


@pytest.mark.parametrize("name", ["learning_rate", "warmup_steps", "grad_clip_norm", "batch_size", "steps"])
def test_loss_with_a_setting_of_the_run_is_refused(name: str) -> None:
    spec = LossSpec("mine", "custom", lambda d, lp: None, params=(Param("a", 1, 0, 2), Param(name, 1, 0, 2)))
    with pytest.raises(ConfigError) as caught:
        plan().with_loss(spec, {})
    assert str(caught.value) == f"mine: {name!r} is a setting of the run; rename the loss's parameter"


def test_smallest_counts_are_accepted() -> None:
    smallest = plan().with_settings({"batch_size": 1, "steps": 1, "warmup_steps": 0})
    assert (smallest.batch_size, smallest.steps, smallest.warmup_steps) == (1, 1, 0)


@pytest.mark.parametrize("value", [3, 3.0])
def test_counts_are_whole(value: float) -> None:
    changed = plan().with_settings({"batch_size": value})
    assert changed.batch_size == 3
    assert isinstance(changed.batch_size, int)


def test_resolving_a_spec_or_a_name() -> None:
    assert resolve_loss("hinge") is LOSSES["hinge"]
    assert resolve_loss(LOSSES["hinge"]) is LOSSES["hinge"]


def test_optimizer_settings_reach_the_optimizer_and_the_entries() -> None:
    given = {"weight_decay": 0.1, "betas": (0.8, 0.9), "adam_eps": 1e-8, "accumulate": 3, "schedule": "linear"}
    changed = plan().with_settings(given)
    assert changed.items_per_step == 96
    expected = AdamParams(learning_rate=1e-3 * 99 / 100, beta1=0.8, beta2=0.9, eps=1e-8, weight_decay=0.1)
    assert changed.adam(1) == expected
    assert changed.with_settings({"beta2": 0.5}).adam(1).beta1 == 0.8
    arguments = changed.arguments()
    assert StepPlan.of_entries(json.loads(json.dumps(changed.entries())), changed.loss) == changed
    assert StepPlan.first(changed.loss, arguments.pop("loss_config"), **arguments) == changed
    labels = [edit.label for edit in changed.edits_since(plan(), 2)]
    assert labels == [
        *("weight_decay 0.1", "beta1 0.8", "beta2 0.9", "adam_eps 1e-08", "accumulate 3", "schedule linear")
    ]
