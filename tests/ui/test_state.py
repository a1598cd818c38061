"""What a page shows of a run besides its curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.data.rewards import REWARDS, Reward
from mint_lab.losses import LOSSES
from mint_lab.recipes.record import Edit, StepRecord
from mint_lab.recipes.registry import recipe_of
from mint_lab.runs.run import Run
from mint_lab.ui.messages import State
from mint_lab.ui.state import (
    MAX_CHARACTERS,
    MAX_MARKS,
    MAX_WARNINGS,
    Activity,
    columns_of,
    finite,
    histograms_of,
    marks_of,
    option_entries,
    state_of,
)
from tests.ui.scripted import Failed, Growing, ScriptedRun, record


def state(run: Any, **names: str) -> State:
    return state_of(run, [], **names)


def test_fresh_run_has_a_state() -> None:
    fresh = state(ScriptedRun(70), base_model="mint-tiny", data="pairs")
    assert set(fresh) == set(State.__annotations__)
    assert (fresh["status"], fresh["steps_done"], fresh["steps_total"], fresh["last_loss"]) == ("ready", 0, 70, "")
    assert (fresh["base_model"], fresh["data"], fresh["failure"]) == ("mint-tiny", "pairs", None)
    assert [control["name"] for control in fresh["controls"]] == ["learning_rate", "beta"]


def test_state_is_json_whatever_the_numbers() -> None:
    run = ScriptedRun()
    run.baseline = {"loss": math.nan, "pair_accuracy": 0.5}
    run._config["beta"] = math.inf
    run.append(record(1, weird=math.inf))
    assert state(run)["baseline"] == {"pair_accuracy": 0.5}
    assert "beta" not in state(run)["settings"]
    json.dumps(state(run), allow_nan=False)


def test_finite_keeps_numbers_and_their_order() -> None:
    assert list(finite({"b": 1, "a": -math.inf, "c": math.nan, "d": -2.5}).items()) == [("b", 1.0), ("d", -2.5)]


def test_sizes_of_the_data_are_named_once_they_are_known() -> None:
    run: Any = ScriptedRun()
    run.data_sizes = None
    assert state(run, data="pairs")["data"] == "pairs"
    run.data_sizes = (12_000, 400)
    assert state(run, data="pairs")["data"] == "pairs, 12,000 train / 400 held out"
    assert state(run)["data"] == "data, 12,000 train / 400 held out"


def test_latest_marks_are_sent_and_all_are_counted() -> None:
    run = ScriptedRun()
    run.edits = [Edit(step, "setting", f"beta {step}") for step in range(1, 500)]
    marks = state(run)["marks"]
    assert (len(marks), state(run)["marks_total"]) == (MAX_MARKS, 499)
    assert marks[-1] == {"step": 499, "kind": "setting", "label": "beta 499"}
    assert marks_of([Edit(1, "loss", "x" * 999)])[0]["label"] == "x" * 200


def test_an_edit_made_while_the_state_is_read_is_neither_sent_nor_counted() -> None:
    run = ScriptedRun()
    run.edits = Growing([Edit(1, "setting", "beta 1")], Edit(2, "setting", "beta 2"))
    read = state(run)
    assert (len(read["marks"]), read["marks_total"]) == (1, 1)


def test_first_warnings_of_the_last_step_are_sent() -> None:
    run = ScriptedRun()
    run.append(replace(record(1), warnings=["old"]), replace(record(2), warnings=["a", "b" * 9999, "c", "d", "e"]))
    assert state(run)["warnings"] == ["a", "b" * MAX_CHARACTERS, "c", "d"]
    assert len(state(run)["warnings"]) == MAX_WARNINGS


def test_failure_has_the_end_of_the_traceback() -> None:
    """The end names the error; the beginning is of the loop that called the loss."""
    run = ScriptedRun()
    run.append(record(1))
    run.error = Failed("m" * 9999, line=2, index=7, traceback="begin" + "t" * 9999 + "end", loss="mine")
    failure = state(run)["failure"]
    assert failure is not None
    assert (failure["step"], failure["line"], failure["index"], failure["loss"]) == (2, 2, 7, "mine")
    assert failure["message"] == "m" * MAX_CHARACTERS
    assert failure["traceback"].endswith("end")
    assert len(failure["traceback"]) == MAX_CHARACTERS


@pytest.mark.parametrize(("reward", "name"), [(Reward("mine", max), "mine"), (REWARDS["gsm8k"], None), (None, None)])
def test_failed_reward_is_named_unless_it_is_built_in(reward: Reward | None, name: str | None) -> None:
    """A built-in reward cannot be fixed by registering it again."""
    run = ScriptedRun()
    run.error = Failed("KeyError", reward=reward)
    failure = state(run)["failure"]
    assert failure is not None
    assert failure["reward"] == name


def test_options_have_the_text_of_their_value_and_their_description() -> None:
    entries = {entry["name"]: entry for entry in option_entries("rl", {"group_size": 4, "gone": "x" * 999})}
    assert entries["group_size"] == {"name": "group_size", "value": "4", "doc": "samples per prompt"}
    assert (entries["gone"]["value"], entries["gone"]["doc"]) == ("x" * 200, "")


def test_clip_of_the_next_step_and_clips_of_earlier_steps() -> None:
    """The clip in the state follows the sliders; each histogram has the clip that acted at its step."""
    run = ScriptedRun(recipe="rl")
    run.loss, run._config = LOSSES["ppo"], LOSSES["ppo"].config({"clip_low_threshold": 0.5})
    assert state(run)["clip"] == {
        "low": {"setting": "clip_low_threshold", "base": 0.0, "slope": 1.0},
        "high": {"setting": "clip_high_threshold", "base": 0.0, "slope": 1.0},
        "both": False,
    }
    assert state(run)["settings"]["clip_low_threshold"] == 0.5
    run.loss, run._config = LOSSES["gspo"], LOSSES["gspo"].config()  # clips whole samples
    assert state(run)["clip"] is None
    counts = {"log_ratio/positive": [1] * 41, "log_ratio/negative": [0] * 41}
    clipped = replace(record(1), histograms=counts, clip=(0.8, 1.2))
    assert [h["clip"] for h in histograms_of(clipped)] == [[0.8, 1.2], [0.8, 1.2]]
    assert [h["clip"] for h in histograms_of(replace(clipped, clip=None))] == [None, None]


def test_clip_of_both_directions_is_said_to_be_one() -> None:
    run = ScriptedRun(recipe="rl")
    run.loss, run._config = LOSSES["cispo"], LOSSES["cispo"].config()
    clip = state(run)["clip"]
    assert clip is not None
    assert clip["both"] is True


def test_loss_of_the_last_step_is_named_beside_that_of_the_next() -> None:
    run = ScriptedRun()
    run.append(replace(record(1), loss_name="old"), replace(record(2), loss_name="new"))
    run.set_loss("simpo")
    assert (state(run)["last_loss"], state(run)["loss"], state(run)["loss_label"]) == ("new", "simpo", "simpo v1")


def test_histograms_have_bins_and_source() -> None:
    """Log-ratios are of the training batch also in a record with an evaluation; margins are then held out."""
    histograms = {"log_ratio/positive": [0] * 41, "margin": [1] * 40}
    made = StepRecord(3, 0.0, 0.0, 1, "ppo", 1, held_out={"reward": 1.0}, histograms=histograms)
    by_name = {h["name"]: h for h in histograms_of(made)}
    assert (by_name["log_ratio/positive"]["source"], by_name["margin"]["source"]) == ("training", "held-out")
    ratios = by_name["log_ratio/positive"]
    assert (ratios["step"], ratios["start"], ratios["width"], len(ratios["counts"])) == (3, -1.025, 0.05, 41)
    assert histograms_of(replace(made, held_out={}))[1]["source"] == "training"


@pytest.mark.parametrize("histograms", [{"unknown": [1, 2]}, {"margin": [1, 2]}, {"margin": [1] * 41}])
def test_histogram_with_unknown_bins_is_left_out(histograms: dict[str, list[int]]) -> None:
    """A file of another version can have one, and it would not fit into the heat map."""
    assert histograms_of(replace(record(1), histograms=histograms)) == []


def test_columns_are_training_and_held_out_metrics() -> None:
    made = StepRecord(1, 0.0, 0.0, 1, "mine", 1, metrics={"loss": 1}, held_out={"loss": 2, "\ud83d": 3})
    assert columns_of(made) == {"loss": 1.0, "held_out/loss": 2.0, "held_out/\\ud83d": 3.0}


def test_notes_follow_the_advice() -> None:
    """What is noteworthy about loss and data stays; of the notes the latest three are sent."""
    run = ScriptedRun(4)
    run.notes = ["first", "second", "third", "mine v1 was not checked"]
    assert state_of(run, [])["warnings"] == ["second", "third", "mine v1 was not checked"]
    run.records.append(replace(record(1, 4), warnings=[f"advice {i}" for i in range(6)]))
    assert state_of(run, [])["warnings"][:4] == [f"advice {i}" for i in range(4)]
    assert state_of(run, [])["warnings"][4:] == run.notes[1:]


def test_recipe_and_loss_are_described() -> None:
    run = ScriptedRun(recipe="rl")
    run.loss, run._config = LOSSES["ppo"], LOSSES["ppo"].config()
    recipe = recipe_of("rl")
    described = state(run)
    assert (described["recipe"], described["headlines"]) == ("rl", list(recipe.headlines))
    assert (described["tokens_about"], described["keeps_samples"]) == (recipe.examples, True)
    assert (described["loss"], described["loss_label"]) == ("ppo", LOSSES["ppo"].label)
    assert not state(ScriptedRun())["keeps_samples"]
    run.append(replace(record(1), loss_name="earlier"))
    assert (state(run)["loss"], state(run)["last_loss"]) == ("ppo", "earlier")
    assert (state(run)["base_model"], state(run)["data"]) == ("", "")


@pytest.mark.parametrize(("rate", "sent"), [(1.23456, 1.23), (0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (None, 0.0)])
def test_rate_has_two_decimals_and_is_finite(rate: Any, sent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedRun, "steps_per_s", rate)
    assert state(ScriptedRun())["steps_per_s"] == sent


def test_unknown_number_of_steps_is_0() -> None:
    run: Any = ScriptedRun()
    run.steps_total = None
    assert state(run)["steps_total"] == 0


def test_text_of_a_run_is_utf8() -> None:
    run = ScriptedRun()
    run.notes = ["half \ud83d"]
    assert state(run)["warnings"] == ["half \\ud83d"]


def test_limits_are_the_last_that_fit() -> None:
    assert (MAX_MARKS, MAX_CHARACTERS) == (60, 4000)
    edits = [Edit(step, "loss", "x" * 201) for step in range(1, 62)]
    assert [mark["step"] for mark in marks_of(edits)] == list(range(2, 62))
    assert marks_of(edits[:60])[0] == {"step": 1, "kind": "loss", "label": "x" * 200}


def test_reasons_against_a_rewind_and_a_fork() -> None:
    """A stopped run can be forked; one without snapshots can do neither."""
    fresh, stopped, none = Run(), Run().stop(), Run(keep_snapshots=0)
    reasons = [(state(run)["no_rewind"], state(run)["no_fork"]) for run in (fresh, stopped, none)]
    assert reasons[0] == ("", "")
    assert reasons[1] == ("This run is stopped, which is final. A fork continues from any of its steps.", "")
    without = "This run has no snapshots to return to: it keeps none (keep_snapshots=0)."
    assert reasons[2] == (without, without)
    hosted = Run(client=SimpleNamespace())
    assert "its client, a SimpleNamespace, keeps the weights on a server" in state(hosted)["no_fork"]


def test_what_the_kernel_does_is_in_the_state() -> None:
    busy = state_of(ScriptedRun(), [], activity=Activity("Returning to step 2…", "x" * (MAX_CHARACTERS + 1)))
    assert (busy["activity"], busy["activity_error"]) == ("Returning to step 2…", "x" * MAX_CHARACTERS)
