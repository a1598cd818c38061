"""The snapshot of a recorded run is that of a live run, without controls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.recipes.record import Edit, StepRecord
from mint_lab.recipes.registry import recipe_of
from mint_lab.runs import load_run
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.store import RunStore
from mint_lab.ui.messages import PROTOCOL
from mint_lab.ui.publisher import Publisher
from mint_lab.ui.saved import READ_ONLY, saved_snapshot
from mint_lab.ui.state import option_entries
from tests.ui.scripted import ScriptedRun, record


def write(folder: Path, records: list[StepRecord], *, edits: tuple[Edit, ...] = (), **info: Any) -> Path:
    store = RunStore(folder)
    store.write_info(RunInfo(**{"name": "run", "recipe": "preference", "steps": 40, "status": "finished", **info}))
    for made in records:
        store.append(made, edits=[edit for edit in edits if edit.step == made.step])
    store.close()
    return folder


def test_curves_and_histograms_are_those_of_a_live_run(tmp_path: Path) -> None:
    """Also after the buckets have merged."""
    records = [record(step, 1200) for step in range(1, 1201)]
    run = ScriptedRun(1200)
    publisher = Publisher(run, lambda message, buffers: None)
    run.append(*records)
    live = publisher.snapshot()
    publisher.close()
    saved = saved_snapshot(load_run(write(tmp_path / "run", records)))
    assert saved["series"] == live["series"]
    assert saved["heats"] == live["heats"]
    assert (saved["charts"], saved["metrics"], saved["seen"]) == (live["charts"], live["metrics"], live["seen"])
    assert saved["state"]["histograms"] == live["state"]["histograms"]
    assert (saved["losses"], saved["state"]["controls"], saved["state"]["clip"]) == ([], [], None)


def test_state_is_that_of_the_last_step(tmp_path: Path) -> None:
    records = [record(step, 40) for step in range(1, 21)]
    records[-1] = replace(records[-1], loss_name="mine", loss_version=3, settings={"beta": 0.5, "odd": float("inf")})
    baseline = {"pair_accuracy": 0.5, "loss": float("nan")}
    edits = (Edit(5, "setting", "beta 0.5"),)
    folder = write(tmp_path / "run", records, edits=edits, baseline=baseline, base_model="mint-tiny", options={"a": 1})
    state = saved_snapshot(load_run(folder))["state"]
    assert (state["status"], state["steps_done"], state["steps_total"]) == ("finished", 20, 40)
    assert (state["loss"], state["loss_label"], state["last_loss"]) == ("mine", "mine v3", "mine")
    assert state["settings"] == {"beta": 0.5}
    assert state["baseline"] == {"pair_accuracy": 0.5}
    assert state["marks"] == [{"step": 5, "kind": "setting", "label": "beta 0.5"}]
    assert state["options"] == [{"name": "a", "value": "1", "doc": ""}]
    json.dumps(state, allow_nan=False)


@pytest.mark.parametrize("text", ["{}", '{"steps": "many", "status": 7, "recipe": null}', "not JSON"])
def test_run_with_unreadable_settings_has_a_snapshot(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    snapshot = saved_snapshot(load_run(tmp_path))
    assert (snapshot["seen"], snapshot["series"], snapshot["state"]["status"]) == (0, [], "stopped")


def test_half_a_surrogate_pair_can_be_sent(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [record(1, 40)], edits=(Edit(1, "setting", "\ud83d"),), base_model="\ud83d")
    snapshot = saved_snapshot(load_run(folder))
    assert snapshot["state"]["base_model"] == "\\ud83d"
    json.dumps(snapshot["state"], ensure_ascii=False).encode("utf-8")


def test_snapshot_without_controls_by_hand(tmp_path: Path) -> None:
    """All fields of a run of the "rl" recipe that a page shows without its own controls."""
    folder = write(tmp_path / "a-run", [], recipe="rl", steps=7, status="paused", base_model="m", options={"seed": 1})
    snapshot = saved_snapshot(load_run(folder))
    assert (snapshot["type"], snapshot["protocol"], snapshot["number"]) == ("snapshot", PROTOCOL, 1)
    assert (snapshot["epoch"], snapshot["seen"], snapshot["heats"]) == ("a-run", 0, [])
    recipe = recipe_of("rl")
    assert snapshot["state"] == {
        **{"key": "a-run", "status": "paused", "steps_done": 0, "steps_total": 7, "steps_per_s": 0.0, "recipe": "rl"},
        **{"options": option_entries("rl", {"seed": 1}), "headlines": list(recipe.headlines)},
        **{"tokens_about": recipe.examples, "keeps_samples": True, "base_model": "m", "data": ""},
        **{"loss": "", "loss_label": "", "last_loss": "", "settings": {}, "controls": [], "clip": None},
        **{"marks": [], "marks_total": 0, "baseline": {}, "histograms": [], "warnings": [], "failure": None},
        **{"activity": "", "activity_error": "", "no_rewind": READ_ONLY, "no_fork": READ_ONLY},
    }


def test_longer_run_than_planned_and_all_its_edits_are_counted(tmp_path: Path) -> None:
    """Of 70 edits the last 60 are sent; 80 steps are done of 40 planned."""
    records = [record(step, 80) for step in range(1, 81)]
    edits = tuple(Edit(step, "setting", f"beta {step}") for step in range(1, 71))
    state = saved_snapshot(load_run(write(tmp_path / "run", records, edits=edits)))["state"]
    assert (state["steps_done"], state["steps_total"]) == (80, 80)
    assert (state["marks_total"], len(state["marks"]), state["marks"][0]["step"]) == (70, 60, 11)


def test_folder_whose_name_is_not_utf8_can_be_sent(tmp_path: Path) -> None:
    run = replace(load_run(write(tmp_path / "run", [])), folder=Path("a\udce9"))
    assert saved_snapshot(run)["epoch"] == "a\\udce9"


def test_steps_before_a_rewind_are_faint_curves(tmp_path: Path) -> None:
    """Steps 3 to 5 were left, and the edit of step 4 with them."""
    edits = (Edit(2, "loss", "ipo v1"), Edit(4, "loss", "hinge v1"))
    folder = write(tmp_path / "run", [record(step, 40) for step in range(1, 6)], edits=edits)
    store = RunStore.reopen(load_run(folder), 5)
    store.rewind(2, past=2)
    store.close()
    snapshot = saved_snapshot(load_run(folder))
    assert (snapshot["seen"], [mark["label"] for mark in snapshot["state"]["marks"]]) == (2, ["ipo v1"])
    (branch,) = snapshot["branches"]
    assert (branch["label"], branch["step"], branch["breaks"]) == ("before rewind to 2", 2, [2, 4])
    assert {series["name"]: series["points"] for series in branch["series"]}["loss"] == 5
    assert snapshot["branches_left_out"] == 0
