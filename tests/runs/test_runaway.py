"""Losses that do not return, or print without end: they are cancelled or limited, and nothing else changes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from ..waiting import TIMEOUT, join, until
from .bigram import BigramClient
from .cells import GOOD, LOOP, cancel_polls, cell, in_the_loss, open_gate, patient, training_only
from .conftest import finish

__all__ = ["patient"]

FROM_STEP_3 = "if len(kept) == 3:\n" + "\n".join(f"    {line}" for line in LOOP.splitlines())


def table(run: Any) -> torch.Tensor:
    return run.client.table.detach().clone()


@pytest.mark.parametrize(("control", "status"), [("pause", "paused"), ("stop", "stopped")])
def test_pause_and_stop_cancel_a_runaway_loss(patient: Any, make_run: Any, control: str, status: str) -> None:
    run = patient(training_only(FROM_STEP_3))
    run.start()
    until(lambda: in_the_loss(run))
    getattr(run, control)()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == (status, 2)
    line = run.error.line
    assert run.loss.source.splitlines()[line - 1].strip() in ("while True:", "time.time()")
    assert f"mine v1, line {line}: the loss had not returned after" in run.error.message
    assert "No weight was changed. Look for a loop that does not end" in run.error.message
    expected = make_run(loss=None, steps=2)
    finish(expected)
    assert torch.equal(run.client.table, expected.client.table)
    if control == "pause":
        cell(GOOD)
        assert run.status == "paused"  # because a person paused it
        finish(run)
        whole = finish(make_run(loss="mine", client=BigramClient()))
        assert torch.equal(run.client.table, whole.client.table)


def test_fixed_version_replaces_a_runaway_loss_at_once(patient: Any) -> None:
    run = patient(training_only(FROM_STEP_3))
    run.start()
    until(lambda: in_the_loss(run))
    cell(GOOD)
    assert run.wait(TIMEOUT, check=True)
    assert run.status == "finished"
    assert [r.loss_version for r in run.records] == [1] * 2 + [2] * 10


def test_a_loss_that_takes_its_time_is_not_cancelled(patient: Any) -> None:
    """It is asked to end, and returns within its time."""
    run = patient(training_only("kept.append('in')\ngate.acquire()"), steps=3)
    run._trainer.cancel_after = 10 * TIMEOUT
    polls = cancel_polls(run)
    run.start()
    until(lambda: in_the_loss(run))
    run.pause()
    for _ in range(2):  # by the second one, the first one has had its effect
        assert polls.acquire(timeout=TIMEOUT)
    open_gate(run)
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("paused", 1)


def test_stop_abandons_a_loss_in_c(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint_lab.usercode.guarded_call.CANCEL_TIMEOUT_SECONDS", 0.05)
    run = patient(training_only("kept.append('in')\ngate.acquire()\nkept.append('out')"))
    run.start()
    until(lambda: in_the_loss(run))
    kept = run.loss.fn.__globals__["kept"]
    before = table(run)
    run.stop()
    assert run.wait(TIMEOUT, check=False)
    assert kept[-1] == "in"  # it has not returned
    assert run.status == "stopped"
    assert run.loss.source.splitlines()[run.error.line - 1].strip() == "gate.acquire()"
    assert "it was abandoned, because code in C" in run.error.message
    assert torch.equal(run.client.table, before)
    [worker] = [thread for thread in threading.enumerate() if thread.name == "mint_lab loss abandoned"]
    open_gate(run)
    join(worker)  # it ends with the thread of the loss
    assert kept[-1] == "in"  # cancelled as soon as it returned from C


def test_runaway_loss_on_held_out_data_costs_only_its_metric(patient: Any) -> None:
    body = (
        "def mine(data, logprobs_list):\n"
        "    if not logprobs_list[0].requires_grad:\n"
        "        kept.append(1)\n"
        "        if len(kept) > 2:\n"
        "            kept.append('in')\n"
        "            while True:\n"
        "                time.time()\n"
        "    return pairwise_preference_loss(data, logprobs_list)\n"
    )
    run = patient(body, steps=12, eval_every=5)
    run.start()
    until(lambda: in_the_loss(run))
    run.pause()
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("paused", 5)  # the step is complete and recorded
    record = run.records[-1]
    assert "loss" not in record.held_out
    assert "pair_accuracy" in record.held_out
    begin = f"{run.loss.label}, on held-out data: the loss had not returned"
    [note] = [note for note in record.warnings if note.startswith(begin)]
    assert "No weight was changed" not in note  # the update comes before the evaluation


def test_cancel_never_interrupts_the_trainer(patient: Any) -> None:
    """Losses that return just when they are cancelled, many times: a step completes or changes nothing."""
    run = patient(training_only("kept.append('in')\nfor _ in range(20_000):\n    pass"), steps=200)
    run._trainer.cancel_after = 0.0
    while run.status not in ("finished", "stopped"):
        run.start()
        done = run.steps_done
        until(lambda done=done: run.steps_done > done or run.status != "running")
        run.pause()
        assert run.wait(TIMEOUT)
        assert run.error is None or "had not returned" in run.error.message
    assert [r.step for r in run.records] == list(range(1, 201))
    (moments,) = run.client.optimizer.state.values()
    assert int(moments["step"]) == 200


# -- printed lines ----------------------------------------------------------------------------------------------------


def test_printed_lines_of_a_call_are_limited_and_counted(patient: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = patient(training_only("for i in range(100_000):\n    print('value', i)"), steps=1)
    print("before")
    finish(run)
    print("after")
    out = capfd.readouterr().out.splitlines()
    assert out == ["before", *(f"value {i}" for i in range(20)), "after"]
    assert "mine v1 printed 100,000 lines in one call, of which 20 are shown" in run.records[0].warnings


def test_lines_of_others_are_not_limited(patient: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = patient(
        training_only(
            "for i in range(500):\n    print('loss')\n"
            "kept.append('in')\ngate.acquire()\n"
            "for i in range(500):\n    print('loss')"
        ),
        steps=1,
    )
    run.start()
    until(lambda: in_the_loss(run))
    for _ in range(30):
        print("mine")
    open_gate(run)
    assert run.wait(TIMEOUT, check=True)
    out = capfd.readouterr().out.split()
    assert (out.count("mine"), out.count("loss")) == (30, 20)
