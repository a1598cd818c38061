"""Losses that do not return, or print without end: they are cancelled or limited, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .bigram import BigramClient
from .cells import GOOD, LOOP, cell, in_the_loss, patient, training_only, until
from .conftest import TIMEOUT, finish

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
    run = patient(training_only("kept.append('in')\ntime.sleep(0.02)"), steps=3)
    run.start()
    until(lambda: in_the_loss(run))
    run.pause()
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("paused", 1)


def test_stop_abandons_a_loss_in_c(patient: Any) -> None:
    run = patient(training_only("kept.append('in')\ntime.sleep(4)\nkept.append('out')"))
    run.start()
    until(lambda: in_the_loss(run))
    kept = run.loss.fn.__globals__["kept"]
    before = table(run)
    run.stop()
    assert run.wait(TIMEOUT, check=False)
    assert kept[-1] == "in"  # it has not returned
    assert run.status == "stopped"
    assert "time.sleep(4)" in run.loss.source.splitlines()[run.error.line - 1]
    assert "it was abandoned, because code in C" in run.error.message
    assert torch.equal(run.client.table, before)


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
    [note] = [note for note in record.warnings if "on held-out data: the loss had not returned" in note]
    assert "No weight was changed" not in note  # the update comes before the evaluation


def test_cancel_never_interrupts_the_trainer(patient: Any) -> None:
    """Losses that return just when they are cancelled, many times: a step completes or changes nothing."""
    run = patient(training_only("kept.append('in')\ntime.sleep(0.0005)"), steps=200)
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
        training_only("kept.append('in')\nfor i in range(1000):\n    print('loss')\ntime.sleep(0.2)"), steps=1
    )
    run.start()
    until(lambda: in_the_loss(run))
    for _ in range(30):
        print("mine")
    assert run.wait(TIMEOUT, check=True)
    out = capfd.readouterr().out.split()
    assert (out.count("mine"), out.count("loss")) == (30, 20)
