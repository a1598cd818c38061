"""A fork continues from a step of another run: with the same loss it equals its parent; the parent stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mint_lab as ml
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.errors import ConfigError, RunError
from mint_lab.losses import LOSSES
from mint_lab.recipes.plan import StepPlan
from mint_lab.runs import Run, load_run
from mint_lab.runs.fork import changed

from .conftest import TIMEOUT
from .continued import CASES, assert_same, finish, plain

SMALL: dict[str, Any] = {"recipe": "preference", "batch_size": 3}


@pytest.mark.parametrize("case", CASES)
def test_a_fork_with_the_same_loss_equals_its_parent(case: str, tmp_path: Path) -> None:
    settings = CASES[case] | {"steps": 7, "batch_size": 3, "eval_every": 3}
    parent = finish(Run(**settings, folder=tmp_path / "parent"))
    for step in (6, 5, 0):  # with a snapshot, without one, and the beginning
        fork = parent.fork(step, folder=tmp_path / f"fork-{step}")
        assert (fork.steps_done, fork.name) == (step, f"{parent.name}@{step}")
        assert fork.parent == {"name": parent.name, "folder": str(tmp_path / "parent"), "step": step}
        assert_same(finish(fork), parent)
    assert (parent.steps_done, parent.rewinds) == (7, [])


def test_a_fork_with_another_loss(tmp_path: Path) -> None:
    parent = finish(Run(**SMALL, loss="dpo", steps=6, eval_every=2, folder=tmp_path / "parent"))
    records = plain(parent.records)
    fork = parent.fork(
        4, loss="simpo", loss_config={"beta": 3.0}, learning_rate=1e-4, name="other", folder=tmp_path / "fork"
    )
    assert (fork.status, fork.loss.name, fork.loss_config["beta"], fork.name) == ("paused", "simpo", 3.0, "other")
    finish(fork)
    assert plain(fork.records)[:4] == records[:4]
    assert [record.loss_name for record in fork.records[4:]] == ["simpo", "simpo"]
    assert [edit.label for edit in fork.edits] == ["simpo v1", "learning_rate 0.0001"]
    assert plain(parent.records) == records
    saved = load_run(tmp_path / "fork")
    assert (saved.info.name, saved.info.parent["step"], len(saved.records)) == ("other", 4, 6)
    fork._loop._store.close()
    assert Run.open(tmp_path / "fork").parent["name"] == parent.name


def test_a_fork_of_now_and_a_fork_of_a_fork(tmp_path: Path) -> None:
    parent = Run(**SMALL, steps=6, folder=tmp_path / "parent")
    parent.step(3).wait(TIMEOUT)
    fork = parent.fork(folder=tmp_path / "fork")
    assert fork.parent["step"] == fork.steps_done == 3
    fork.step(1).wait(TIMEOUT)
    second = fork.fork(folder=tmp_path / "second")
    assert (second.parent["name"], second.steps_done) == (fork.name, 4)
    assert_same(finish(second), finish(parent))


def test_a_fork_of_a_running_and_of_a_stopped_run(tmp_path: Path) -> None:
    parent = Run(**SMALL, steps=10**6, eval_every=2, folder=tmp_path / "parent")
    parent.start()
    fork = parent.fork(0, folder=tmp_path / "fork")
    assert parent.status == "running"
    parent.stop().wait(TIMEOUT)
    fork.step(2).wait(TIMEOUT)
    again = parent.fork(0, steps=2, folder=tmp_path / "again")
    ours, theirs = plain(finish(again).records)[0], plain(fork.records)[0]
    assert (ours.pop("steps_total"), theirs.pop("steps_total")) == (2, 10**6)
    assert ours == theirs


def test_a_custom_loss_needs_no_registration(tmp_path: Path) -> None:
    """The parent's function is used, whatever the registry has under its name meanwhile."""

    def mine(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
        return -scale * sum(lp.sum() for lp in logprobs_list), {}

    data = arithmetic_pairs(30)
    parent = Run(**SMALL, loss=mine, data=data, steps=3, folder=tmp_path / "parent")
    finish(parent)
    del LOSSES._entries["mine"]
    fork = parent.fork(1, folder=tmp_path / "fork")
    assert_same(finish(fork), parent)


def test_the_fork_of_a_given_client(tmp_path: Path) -> None:
    service = ml.ServiceClient()
    parent = Run(**SMALL, client=service.create_lora_training_client(rank=4), steps=4, folder=tmp_path / "parent")
    finish(parent)
    fork = parent.fork(2, folder=tmp_path / "fork")
    assert fork.lora.rank == 4
    assert_same(finish(fork), parent)
    own = service.create_lora_training_client(rank=4)
    assert parent.fork(2, client=own, folder=tmp_path / "own").prepare().client is own


def test_a_change_that_is_not_valid_writes_nothing(tmp_path: Path) -> None:
    parent = Run(**SMALL, steps=4, folder=tmp_path / "parent")
    parent.step(2).wait(TIMEOUT)
    folder = tmp_path / "fork"
    for arguments, message in (
        ({"loss": "dop"}, "dop"),
        ({"loss": "ppo"}, "ppo"),
        ({"loss": "dpo", "loss_config": {"bta": 1.0}}, "bta"),
        ({"lr": 1.0}, "unknown setting 'lr'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"step": 3}, "step 3 is not complete"),
        ({"step": "1"}, "step is '1'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parent.fork(**arguments, folder=folder)
        assert not folder.exists()
    with pytest.raises(RunError, match="already holds a run"):
        parent.fork(1, folder=tmp_path / "parent")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        parent.fork(1, folder=tmp_path / "file")
    none = Run(**SMALL, steps=4, keep_snapshots=0, folder=tmp_path / "none")
    none.step(1).wait(TIMEOUT)
    with pytest.raises(RunError, match="no snapshots"):
        none.fork(1, folder=folder)
    assert not folder.exists()


def test_changed() -> None:
    plan = StepPlan.first(LOSSES["dpo"], {"beta": 0.3}, learning_rate=1e-3, batch_size=4, steps=9)
    assert changed(plan, None, {}, {}) == plan
    assert changed(plan, None, {"beta": 0.2}, {"steps": 12}).settings()["beta"] == 0.2
    other = changed(plan, LOSSES["simpo"], {"beta": 1.5}, {"learning_rate": 1e-4})
    assert (other.loss.name, other.config["beta"], other.learning_rate, other.steps) == ("simpo", 1.5, 1e-4, 9)
