"""A run that is opened from its folder ends as one that was never interrupted; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import mint_lab as ml
from mint_lab.cells.loss_cell import run_cell
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.errors import CheckpointError, ConfigError, DataError, RunError
from mint_lab.losses import LOSSES
from mint_lab.runs import Run, load_run
from mint_lab.runs.reopen import Past, read_past, restore

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT
from .continued import CASES, assert_same, close, finish


@pytest.mark.parametrize("case", CASES)
def test_an_opened_run_ends_as_one_that_was_not_interrupted(case: str, tmp_path: Path) -> None:
    settings = CASES[case] | {"steps": 8, "batch_size": 3, "eval_every": 3}
    whole = finish(Run(**settings, folder=tmp_path / "whole"))
    part = Run(**settings, folder=tmp_path / "part")
    part.step(5).wait(TIMEOUT)
    opened = Run.open(close(part))
    assert (opened.status, opened.steps_done, opened.name) == ("paused", 5, part.name)
    assert (opened.baseline, opened.plan) == (part.baseline, part.plan)
    assert_same(finish(opened), whole)


def test_steps_after_the_last_snapshot_are_computed_again(tmp_path: Path) -> None:
    settings = {"recipe": "preference", "steps": 7, "batch_size": 3, "eval_every": 3}
    whole = finish(Run(**settings, folder=tmp_path / "whole"))
    part = Run(**settings, folder=tmp_path / "part")
    part.step(5).wait(TIMEOUT)
    shutil.rmtree(close(part) / "snapshots" / "00000005")  # as a process that was killed in step 6
    opened = Run.open(tmp_path / "part")
    assert opened.steps_done == 3
    assert len(load_run(tmp_path / "part").records) == 5, "opening writes nothing"
    assert_same(finish(opened), whole)


def test_an_edit_takes_effect_where_it_did(tmp_path: Path) -> None:
    def begin(folder: str) -> Run:
        run = Run("preference", "dpo", steps=8, batch_size=3, eval_every=4, folder=tmp_path / folder)
        run.step(2).wait(TIMEOUT)
        return run.set(beta=0.4, learning_rate=1e-4)

    whole = finish(begin("whole"))
    part = begin("part")
    part.step(1).wait(TIMEOUT)  # the edit has taken effect in step 3
    shutil.rmtree(close(part) / "snapshots" / "00000003")
    opened = Run.open(tmp_path / "part")
    assert (opened.steps_done, opened.edits) == (2, []), "the snapshot before the edit, with the edited plan"
    assert_same(finish(opened), whole)
    assert [edit.step for edit in opened.edits] == [3, 3]


def test_a_finished_run_can_be_given_more_steps(tmp_path: Path) -> None:
    settings = {"recipe": "preference", "batch_size": 3, "eval_every": 2}
    finish(Run(**settings, steps=4, folder=tmp_path / "part"))
    opened = Run.open(tmp_path / "part")
    assert opened.status == "finished"
    opened.set(steps=6)
    assert finish(opened).steps_done == 6


def test_a_run_whose_process_died_after_its_last_step_is_finished_when_it_is_opened(tmp_path: Path) -> None:
    """Everything is there but the last ``run.json``."""
    folder = finish(Run("preference", "dpo", steps=2, batch_size=4, folder=tmp_path / "run")).folder
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(content | {"status": "running", "steps_done": 0, "error": "lost"}))
    (folder / "run.lock").touch()
    (folder / "losses.jsonl.part").write_text("half")
    assert load_run(folder).info.status == "interrupted"
    before = {file.name for file in folder.iterdir()} - {"run.lock", "losses.jsonl.part"}
    assert Run.open(folder).status == "finished"
    saved = load_run(folder)
    assert (saved.info.status, saved.info.steps_done, saved.info.error, saved.notes) == ("finished", 2, None, [])
    assert saved.info.data_sizes == tuple(content["data_sizes"])
    assert {file.name for file in folder.iterdir()} == before


def test_a_damaged_snapshot_leads_to_the_one_before(tmp_path: Path) -> None:
    run = Run("preference", steps=6, batch_size=3, eval_every=2, folder=tmp_path / "run")
    run.step(4).wait(TIMEOUT)
    (close(run) / "snapshots" / "00000004" / "snapshot.json").write_text("{}")
    opened = Run.open(tmp_path / "run")
    assert opened.steps_done == 2
    assert any("00000004 is damaged: KeyError: 'format'; the one before it is used" in note for note in opened.notes)
    for folder in (tmp_path / "run" / "snapshots").iterdir():
        (folder / "snapshot.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no snapshot of .* can be read"):
        Run.open(tmp_path / "run")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors", "trainer.safetensors"])
def test_a_file_that_is_cut_off_leads_to_the_snapshot_before(name: str, tmp_path: Path) -> None:
    run = Run("preference", steps=6, batch_size=3, eval_every=2, folder=tmp_path / "run")
    run.step(4).wait(TIMEOUT)
    file = close(run) / "snapshots" / "00000004" / name
    file.write_bytes(file.read_bytes()[:-8])
    opened = Run.open(tmp_path / "run")
    assert opened.steps_done == 2
    assert any("00000004 is damaged: SafetensorError" in note for note in opened.notes)
    assert finish(opened).steps_done == 6


def test_changed_data_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    rows = [{"prompt": f"{k}+{k}=", "chosen": str(2 * k), "rejected": "0"} for k in range(1, 30)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run("preference", data=file, steps=4, batch_size=3, folder=tmp_path / "run")
    run.step(2).wait(TIMEOUT)
    close(run)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}
    file.write_text("".join(json.dumps(row | {"rejected": "7"}) + "\n" for row in rows))
    opened = Run.open(tmp_path / "run")
    with pytest.raises(DataError, match="the data of this run have changed since it began"):
        opened.prepare()
    assert {path: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")} == before
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert finish(Run.open(tmp_path / "run")).steps_done == 4


def test_data_in_memory_have_to_be_given_again(tmp_path: Path) -> None:
    data, held_out = arithmetic_pairs(30), arithmetic_pairs(10, split="held_out")
    run = Run("preference", data=data, held_out=held_out, steps=4, batch_size=3, folder=tmp_path / "run")
    run.step(2).wait(TIMEOUT)
    close(run)
    with pytest.raises(ConfigError, match=r"the train data .* Run.open\(folder, data=...\)"):
        Run.open(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"the held_out data .* Run.open\(folder, held_out=...\)"):
        Run.open(tmp_path / "run", data=data)
    with pytest.raises(DataError, match="have changed"):
        Run.open(tmp_path / "run", data=data, held_out=held_out[:9]).prepare()
    assert finish(Run.open(tmp_path / "run", data=data, held_out=held_out)).steps_done == 4


CELL = """\
def scaled(data, logprobs_list, beta=0.5):
    import torch
    margins = torch.stack([lp.sum() for lp in logprobs_list])
    return -torch.nn.functional.logsigmoid(beta * (margins[0::2] - margins[1::2])).mean(), {}
"""


@pytest.fixture
def with_a_cell(tmp_path: Path) -> Path:
    spec = run_cell("scaled --no-preflight", CELL, {}).spec
    run = Run("preference", spec, steps=4, batch_size=3, loss_config={"beta": 0.7}, folder=tmp_path / "run")
    run.step(2).wait(TIMEOUT)
    folder = close(run)
    del LOSSES._entries["scaled"]  # as in a new process
    return folder


def test_the_source_of_a_cell_is_executed_only_if_asked(with_a_cell: Path) -> None:
    with pytest.raises(ConfigError, match=r"scaled v1 of this run is not registered: run its cell first, or execute"):
        Run.open(with_a_cell)
    run_cell("scaled --no-preflight", CELL.replace("0.5", "0.25"), {})
    with pytest.raises(ConfigError, match="scaled v1 of this run is registered with another source"):
        Run.open(with_a_cell)
    run_cell("scaled --no-preflight", CELL, {})
    opened = Run.open(with_a_cell)
    assert (opened.loss.label, opened.loss_config) == ("scaled v1", {"beta": 0.7})
    assert finish(opened).records[-1].loss_version == 1


def test_the_source_of_a_cell_is_executed_if_asked(with_a_cell: Path) -> None:
    opened = Run.open(with_a_cell, run_source=True)
    assert "scaled" not in LOSSES
    assert (opened.loss.label, opened.loss_config) == ("scaled v1", {"beta": 0.7})
    assert finish(opened).records[-1].metrics["loss"] > 0


def test_a_reward_of_a_cell_has_to_be_registered(tmp_path: Path) -> None:
    from mint_lab.cells.reward_cell import run_reward_cell
    from mint_lab.data.rewards import REWARDS

    run_reward_cell("shorter", "def shorter(response_text, example):\n    return -float(len(response_text))\n", {})
    settings = {"group_size": 3, "max_tokens": 4, "batch_size": 2, "steps": 4}
    run = Run("rl", reward="shorter", folder=tmp_path / "run", **settings)
    run.step(2).wait(TIMEOUT)
    close(run)
    del REWARDS._entries["shorter"]
    with pytest.raises(ConfigError, match="the reward shorter of this run is not registered: run its cell first, or"):
        Run.open(tmp_path / "run")
    assert finish(Run.open(tmp_path / "run", run_source=True)).steps_done == 4


def test_a_run_that_is_written_is_not_opened_twice(tmp_path: Path) -> None:
    run = Run("preference", steps=4, batch_size=3, folder=tmp_path / "run")
    run.step(1).wait(TIMEOUT)
    with pytest.raises(RunError, match="is being written by a run; stop that run"):
        Run.open(tmp_path / "run")
    assert run.step(1).wait(TIMEOUT)


def test_a_run_without_snapshots_is_refused(tmp_path: Path) -> None:
    run = Run("preference", steps=2, batch_size=3, keep_snapshots=0, folder=tmp_path / "run")
    run.step(1).wait(TIMEOUT)
    folder = close(run)
    assert not (folder / "snapshots").exists()
    with pytest.raises(RunError, match="has no snapshot, so its weights are lost"):
        Run.open(folder)
    with pytest.raises(RunError, match="holds no run"):
        Run.open(tmp_path)
    with pytest.raises(ConfigError, match="keep_snapshots is -1"):
        Run("preference", keep_snapshots=-1)


def test_a_client_that_has_no_snapshots_trains_as_before(tmp_path: Path) -> None:
    run = finish(Run(client=BigramClient(), data=letter_pairs(20), steps=3, folder=tmp_path / "run"))
    assert not (tmp_path / "run" / "snapshots").exists()
    assert run.records[-1].warnings == []


def without_data(folder: Path) -> Past:
    """A run whose data nobody checks."""
    past = read_past(folder)
    return replace(past, state=replace(past.state, data=""))


def test_another_client_has_to_be_local_and_of_the_same_shape(tmp_path: Path) -> None:
    run = Run("preference", steps=4, batch_size=3, rank=4, folder=tmp_path / "run")
    run.step(1).wait(TIMEOUT)
    close(run)
    service = ml.ServiceClient()
    with pytest.raises(ConfigError, match=r"was created with LoraOptions\(rank=8\), but LoraOptions\(rank=4\)"):
        Run.open(tmp_path / "run", client=service.create_lora_training_client(rank=8))
    past, other = without_data(tmp_path / "run"), Run(client=BigramClient(), data=letter_pairs(20)).prepare()
    with pytest.raises(RunError, match="a BigramClient cannot continue from a folder"):
        restore(other.trainer, past.state, past.snapshot)
    assert finish(Run.open(tmp_path / "run", client=service.create_lora_training_client(rank=4))).steps_done == 4
