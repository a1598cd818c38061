"""The workbench: its run, "New run", and what the page says of the data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.errors import ConfigError, RunError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.losses.preference import simpo_loss
from mint_lab.runs.run import Run
from mint_lab.ui.workbench import Workbench, describe_data
from tests.runs.bigram import BigramClient, letter_pairs
from tests.runs.by_hand import HandStep, train
from tests.ui.pages import Comm, comms
from tests.waiting import TIMEOUT, Gate, until

__all__ = ["comms"]


def test_creation_loads_nothing_and_shows_settings(comms: list[Comm]) -> None:
    lab = Workbench(steps=7)
    assert repr(lab) == "Workbench(recipe='preference', loss='pairwise_preference', base_model='mint-tiny')"
    assert (lab.run.status, lab.run.steps_total, lab.run.folder, lab.run.client) == ("ready", 7, None, None)
    state = lab.get_state("snapshot")["snapshot"]["state"]
    assert state["data"] == "arithmetic pairs"
    assert [control["name"] for control in state["controls"]] == ["learning_rate", "beta"]
    lab.close()


def test_adapter_is_as_requested_in_every_run(comms: list[Comm]) -> None:
    lora = LoraOptions(4, dropout=0.1, unembed=False)
    lab = Workbench(lora=lora)
    assert lab.run.lora == lora
    lab.run.stop()
    assert lab.new_run().lora == lora
    lab.close()
    with pytest.raises(ConfigError, match="rank is 8, but lora has rank 4"):
        Workbench(lora=lora, rank=8)


@pytest.mark.parametrize(
    ("data", "recipe", "words"),
    [
        (None, "preference", "arithmetic pairs"),
        (None, "rl", "two-digit additions"),
        ("folder/pairs.jsonl", "preference", "pairs.jsonl"),
        (Path("folder/rows.csv"), "sft", "rows.csv"),
        ([("a", "b")], "sft", "your data"),
        ({"a": 1}, "sft", "dict"),
    ],
)
def test_data_are_described_in_a_few_words(data: Any, recipe: str, words: str) -> None:
    assert describe_data(data, recipe) == words


def test_arguments_are_in_the_order_of_a_run(comms: list[Comm]) -> None:
    lab = Workbench("rl", "grpo")
    assert (lab.run.recipe, lab.run.loss.name, lab.run.base_model) == ("rl", "grpo", "mint-tiny")
    lab.close()
    first_two = [list(inspect.signature(each).parameters)[:2] for each in (Workbench, Run)]
    assert first_two == [["recipe", "loss"]] * 2


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((), {"loss": "no_such_loss"}, "unknown loss 'no_such_loss'"),
        (("no_such_recipe",), {}, "unknown recipe 'no_such_recipe'"),
        (("dpo",), {}, "unknown recipe 'dpo'.*loss='dpo'"),
        (("org/model",), {}, "a model is given as base_model='org/model'"),
        ((), {"base_model": "rl"}, "base_model is 'rl', which is not a model but a recipe: recipe='rl'"),
        ((), {"base_model": "dpo"}, "not a model but a loss: loss='dpo'"),
    ],
)
def test_invalid_name_is_refused_with_a_hint(
    comms: list[Comm], args: tuple[str, ...], options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Workbench(*args, **options)  # type: ignore[arg-type]
    assert comms == []


def test_new_run_keeps_loss_and_settings(comms: list[Comm], tmp_path: Path) -> None:
    lab = Workbench(steps=7, folder=tmp_path / "run")
    old = lab.run
    with pytest.raises(RunError, match="stop it"):
        lab.new_run()
    old.set_loss("simpo", gamma=2.0)
    old.set(learning_rate=1e-3, batch_size=16, steps=9)
    old.stop()
    old.wait(TIMEOUT)
    epoch = lab._publisher.epoch  # type: ignore[union-attr]
    assert comms[0].ask(type="new_run", request=4)[-1] == {"type": "reply", "request": 4, "error": ""}
    assert lab.run is not old
    assert (lab.run.status, lab.run.loss.name) == ("ready", "simpo")
    assert (lab.run.settings["learning_rate"], lab.run.loss_config["gamma"]) == (1e-3, 2.0)
    assert (lab.run.settings["batch_size"], lab.run.steps_total) == (16, 9)
    assert lab.run.folder == tmp_path / "run-2"
    assert comms[0].custom[-2]["epoch"] != epoch
    lab.close()


def test_a_run_of_a_folder_is_shown_and_continued(comms: list[Comm], tmp_path: Path) -> None:
    """What was given to it is what "New run" starts from."""
    first = Run("sft", seed=3, steps=6, batch_size=4, eval_every=2, folder=tmp_path / "run", name="mine")
    assert first.step(3).wait(TIMEOUT)
    assert first.stop().wait(TIMEOUT)
    lab = Workbench(run=Run.open(tmp_path / "run"))
    assert repr(lab) == "Workbench(recipe='sft', loss='cross_entropy', base_model='mint-tiny')"
    state = lab.get_state("snapshot")["snapshot"]["state"]
    assert (state["status"], state["steps_done"], state["steps_total"]) == ("paused", 3, 6)
    assert state["data"] == describe_data(None, "sft")
    assert lab.run.start().wait(TIMEOUT)
    assert (lab.run.status, len(lab.run.records)) == ("finished", 6)
    new = lab.new_run()
    assert (new.recipe, new.seed, new.eval_every, new.folder, new.name) == ("sft", 3, 2, tmp_path / "run-2", "mine")
    assert (new.status, new.steps_total, new.settings["batch_size"]) == ("ready", 6, 4)
    lab.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run": "runs/a"}, "run is str, expected a Run; to read a folder, call Run.open"),
        ({"run": Run(), "loss": "dpo"}, "run and loss are given"),
        ({"run": Run(), "seed": 1, "steps": 4}, "run and steps, base_model, seed are given"),
    ],
)
def test_a_run_has_its_arguments_already(options: dict[str, Any], words: str, comms: list[Comm]) -> None:
    with pytest.raises(ConfigError, match=words):
        Workbench(**options)
    assert comms == []


def test_new_run_is_refused_if_the_client_was_given(comms: list[Comm]) -> None:
    lab = Workbench(client=BigramClient())
    old = lab.run.stop()
    assert "make a new client" in comms[0].ask(type="new_run", request=1)[-1]["error"]
    assert lab.run is old
    lab.close()


def test_new_losses_are_sent_until_the_workbench_is_closed(comms: list[Comm]) -> None:
    lab = Workbench()

    def register(name: str) -> list[Any]:
        LOSSES.register(LossSpec(name=name, family="custom", fn=lambda data, logprobs: None, unit="pair"))
        return [message for message in comms[0].custom if message["type"] == "losses"]

    (message,) = register("mine")
    assert "mine" in [entry["name"] for entry in message["losses"]]
    lab.close()
    assert len(register("later")) == 1


def test_new_run_keeps_every_setting_of_the_step(comms: list[Comm], tmp_path: Path) -> None:
    """From a run that ended by itself; the third run's folder has a 3."""
    lab = Workbench("sft", seed=3, base_model="org/model", folder=tmp_path / "run", eval_every=4)
    for number in (2, 3):
        old = lab.run
        old.set(learning_rate=2e-3, warmup_steps=5, grad_clip_norm=0.5, batch_size=8, steps=11)
        old.set(schedule="cosine", weight_decay=0.1, betas=(0.8, 0.9), adam_eps=1e-8, accumulate=2)
        old.set_loss("cross_entropy")
        old.stop()
        run = lab.new_run()
        assert run is lab.run is not old
        kept = ("learning_rate", "warmup_steps", "grad_clip_norm", "batch_size")
        assert [run.settings[name] for name in kept] == [2e-3, 5, 0.5, 8]
        assert run.plan == old.plan
        assert (run.recipe, run.steps_total, run.base_model) == ("sft", 11, "org/model")
        assert (run.seed, run.eval_every) == (3, 4)
        assert run.folder == tmp_path / f"run-{number}"
        assert run.status == "ready"
    state = lab.get_state("snapshot")["snapshot"]["state"]
    assert (state["base_model"], state["recipe"]) == ("org/model", "sft")
    lab.close()


@pytest.mark.parametrize("status", ["ready", "running", "paused"])
def test_new_run_while_one_has_not_ended_is_refused(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    lab = Workbench()
    old = lab.run
    monkeypatch.setattr(Run, "status", status)
    (reply,) = comms[0].ask(type="new_run", request=3)
    assert reply == {
        **{"type": "reply", "request": 3, "error": f"the run is {status}; stop it before starting a new one"},
    }
    assert lab.run is old
    monkeypatch.setattr(Run, "status", "finished")
    assert comms[0].ask(type="new_run", request=4)[-1] == {"type": "reply", "request": 4, "error": ""}
    assert lab.run is not old
    lab.close()


def test_words_about_a_given_client(comms: list[Comm]) -> None:
    lab = Workbench(client=BigramClient())
    lab.run.stop()
    with pytest.raises(RunError) as caught:
        lab.new_run()
    assert str(caught.value) == (
        "this run was given a training client, whose weights are trained already; make a new client, and with it a new "
        "run"
    )
    lab.close()


def test_new_run_trains_with_what_was_edited(
    comms: list[Comm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first weights: the new run equals a loop by hand with the loss and all settings of the old one."""
    service = SimpleNamespace(create_lora_training_client=lambda **_: BigramClient())
    monkeypatch.setattr("mint_lab.runs.loading.connect", lambda: service)
    options: dict[str, Any] = {"data": letter_pairs(20), "held_out": letter_pairs(4), "steps": 4, "batch_size": 4}
    lab = Workbench(**options, learning_rate=0.05, folder=tmp_path / "run")
    assert lab.run.step(2).wait(TIMEOUT)
    edits = {"learning_rate": 0.2, "warmup_steps": 3, "grad_clip_norm": 0.05, "batch_size": 6}
    for request in (
        {"type": "set_loss", "name": "simpo"},
        *({"type": "set", "name": name, "value": value} for name, value in {**edits, "gamma": 0.5}.items()),
        {"type": "stop"},
        {"type": "new_run"},
    ):
        assert comms[0].ask(request=1, **request)[-1] == {"type": "reply", "request": 1, "error": ""}, request
    assert lab.run.settings.items() >= {**edits, "beta": 2.0, "gamma": 0.5}.items()
    assert comms[0].ask(type="start", request=2)[-1]["error"] == ""
    assert lab.run.wait(TIMEOUT)
    step = HandStep(simpo_loss, {"beta": 2.0, "gamma": 0.5}, 0.2, 6, 0.05)
    rates = [0.2 / 3, 0.4 / 3, 0.2, 0.2]
    client, trainer = BigramClient(), lab.run.trainer
    assert trainer is not None
    steps = [replace(step, learning_rate=rate) for rate in rates]
    records = train(client, trainer.job.data, steps, unit=2)  # type: ignore[attr-defined]
    assert [record.metrics["loss"] for record in lab.run.records] == [record.loss for record in records]
    assert torch.allclose(lab.run.client.table, client.table, atol=1e-6)  # type: ignore[union-attr]
    assert lab.run.edits == []
    lab.close()


def test_data_of_the_run_are_shown_before_it_starts_and_again_for_a_new_run(comms: list[Comm]) -> None:
    rows = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(12)]
    lab = Workbench("sft", data=rows)
    comm = comms[0]
    assert lab.audit is None
    assert comm.ask(type="data", request=1)[-1] == {"type": "reply", "request": 1, "error": ""}
    until(lambda: lab.audit["status"] == "ready")
    assert lab.audit["heading"].startswith("11 examples to train on, 1 held out")
    assert (lab.run.status, lab.run.client) == ("ready", None)
    error = comm.ask(type="data", row=40, request=2)[-1]["error"]
    assert error == "datum 40: there is no such row, expected one from 0 to 11"
    comm.ask(type="data", row=7, request=3)
    assert lab.audit["row"] == 7
    lab.run.stop()
    lab.new_run()
    assert lab.audit is None
    comm.ask(type="data", request=4)
    until(lambda: lab.audit["status"] == "ready")
    lab.close()


def idle(lab: Workbench) -> bool:
    return not lab._background.activity().text


@pytest.fixture
def paused(comms: list[Comm], tmp_path: Path) -> Iterator[Workbench]:
    """A workbench whose run has paused after 4 of 6 steps, with snapshots after 2 and 4."""
    lab = Workbench(steps=6, batch_size=4, eval_every=2, folder=tmp_path / "run", name="first")
    lab.run.step(4).wait()
    yield lab
    lab.close()


def test_a_page_rewinds_the_run_and_it_repeats_its_steps(paused: Workbench, comms: list[Comm]) -> None:
    before = [record.metrics["loss"] for record in paused.run.records]
    assert comms[0].ask(type="rewind", step=2, request=5)[-1] == {"type": "reply", "request": 5, "error": ""}
    until(lambda: idle(paused))
    run = paused.run
    assert (run.steps_done, run.status, [rewind.step for rewind in run.rewinds]) == (2, "paused", [2])
    snapshot = paused.get_state("snapshot")["snapshot"]
    assert [branch["label"] for branch in snapshot["branches"]] == ["before rewind to 2"]
    run.step(2).wait()
    assert [record.metrics["loss"] for record in run.records] == before


def test_a_page_forks_the_run_and_shows_the_fork(paused: Workbench, comms: list[Comm]) -> None:
    parent = paused.run
    before = [record.metrics["loss"] for record in parent.records]
    assert comms[0].ask(type="fork", step=2, loss="dpo", name=" other ", request=5)[-1]["error"] == ""
    until(lambda: idle(paused))
    fork = paused.run
    assert (fork.name, fork.loss.name, fork.steps_done, fork.status) == ("other", "dpo", 2, "paused")
    assert (paused.forks, fork.parent["name"], fork.parent["step"]) == ([fork], "first", 2)
    snapshot = paused.get_state("snapshot")["snapshot"]
    assert [(branch["label"], branch["step"]) for branch in snapshot["branches"]] == [("first", 2)]
    assert [record.metrics["loss"] for record in parent.records] == before
    tabs = [{"name": "first", "about": ""}, {"name": "other", "about": "fork of first after step 2"}]
    assert paused.runs == {"runs": tabs, "shown": 1}
    assert comms[0].ask(type="show_run", run=0, request=6)[-1]["error"] == ""
    assert (paused.run, paused.runs["shown"], paused.forks) == (parent, 0, [fork])
    # A fork that a cell makes joins the others; any other run replaces them.
    second = parent.fork(4)
    paused.show(second)
    assert ([run.name for run in paused.forks], paused.runs["shown"]) == (["other", "first@4"], 2)
    other = Run()
    paused.show(other)
    assert (paused.forks, [tab["name"] for tab in paused.runs["runs"]]) == ([], [other.name])


def test_a_running_run_is_paused_for_its_fork(paused: Workbench, comms: list[Comm]) -> None:
    parent = paused.run
    parent.set(steps=10_000)
    parent.start()
    comms[0].ask(type="fork", step=4, request=1)
    until(lambda: idle(paused))
    parent.wait(TIMEOUT)
    assert (parent.status, paused.run.name, paused.run.loss.name) == ("paused", "first@4", parent.loss.name)


def test_requests_that_are_impossible_are_refused_with_the_reason(paused: Workbench, comms: list[Comm]) -> None:
    def error_of(**request: Any) -> str:
        return comms[0].ask(request=1, **request)[-1]["error"]

    assert error_of(type="rewind", step="2") == "'rewind' needs a step from 0 up, got '2'"
    assert error_of(type="fork", step=-1) == "'fork' needs a step from 0 up, got -1"
    assert error_of(type="show_run", run=1) == "run 1 is not one of the 1 runs of this page"
    for request in ({"type": "rewind"}, {"type": "fork", "loss": "dpo"}):
        assert error_of(step=9, **request) == ""
        until(lambda: idle(paused))
        state = paused.get_state("snapshot")["snapshot"]["state"]
        assert "step 9 is not complete" in state["activity_error"]
    assert error_of(type="set", name="learning_rate", value=1e-4) == ""
    assert paused.get_state("snapshot")["snapshot"]["state"]["activity_error"] == ""
    assert (paused.run.steps_done, paused.forks) == (4, [])


def test_the_kernel_is_free_while_a_run_is_rewound(
    paused: Workbench, comms: list[Comm], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(holds=1)
    monkeypatch.setattr(paused.run, "rewind", lambda step: gate())
    comms[0].ask(type="rewind", step=2, request=1)
    gate.wait()
    state = paused.get_state("snapshot")["snapshot"]["state"]
    assert state["activity"].startswith("Returning to step 2")
    assert "Wait until that is done" in comms[0].ask(type="fork", step=2, request=2)[-1]["error"]
    gate.open()
    until(lambda: idle(paused))
