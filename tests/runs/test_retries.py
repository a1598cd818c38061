"""What a failure leaves behind, and what the next attempt starts from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.client import connect
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import hinge_loss, pairwise_preference_loss
from mint_lab.runs import Run

from ..waiting import TIMEOUT
from .by_hand import HandStep, train

# -- a thread that cannot start ----------------------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """``no_threads(action)``: the action fails because the system allows no further thread."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def attempt(action: Callable[[], Any]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                action()

    return attempt


def good(data: Any, logprobs_list: Any) -> Any:
    return pairwise_preference_loss(data, logprobs_list)


def bad(data: Any, logprobs_list: Any) -> Any:
    raise ValueError("a planted bug")


def test_run_without_a_thread_stays_ready_and_can_start_later(make_run: Any, no_threads: Any) -> None:
    run = make_run(steps=3)
    no_threads(run.start)
    no_threads(lambda: run.step(2))
    assert (run.status, run.error, run.seconds, run.client.calls) == ("ready", None, 0.0, [])
    assert run.start().wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", 3)


def test_failed_run_without_a_thread_keeps_its_error_and_what_it_waits_for(make_run: Any, no_threads: Any) -> None:
    register(name="mine", unit="pair")(bad)
    run = make_run(loss="mine", steps=5)
    assert run.step(3).wait(TIMEOUT, check=False)
    error = run.error
    no_threads(run.resume)
    assert (run.status, run.error) == ("paused", error)
    assert error.loss == "mine"
    no_threads(lambda: register(name="mine", unit="pair")(good))
    assert (run.status, run.error, run.loss.version) == ("paused", error, 2)
    register(name="mine", unit="pair")(good)
    assert run.wait(TIMEOUT)
    assert (run.status, run.error, run.steps_done) == ("paused", None, 3), "the three steps that were requested"


def test_call_without_a_thread_is_never_made(make_run: Any, no_threads: Any) -> None:
    run, calls = make_run(steps=2), []
    no_threads(lambda: run.call(lambda: calls.append("refused")))
    assert run.start().wait(TIMEOUT)
    run.call(lambda: calls.append("accepted")).result(TIMEOUT)
    assert calls == ["accepted"]


# -- a step that the loss refused --------------------------------------------------------------------------------------


def raises(data: Any, logprobs_list: Any) -> Any:
    raise ValueError("a planted bug")


def is_nan(data: Any, logprobs_list: Any) -> Any:
    return logprobs_list[0].sum() * float("nan"), {}


def has_a_nan_gradient(data: Any, logprobs_list: Any) -> Any:
    """The slope of sqrt at 0 is infinite, and 0 times that is nan; the value is 0."""
    return (logprobs_list[0] * 0).abs().sum().sqrt() * 0, {}


def test_refused_steps_leave_no_gradient_in_the_local_client(tmp_path: Path) -> None:
    """Three kinds of refused steps, each followed by an edit: the weights are those of the good steps alone."""
    data, held_out = arithmetic_pairs(40), arithmetic_pairs(4, split="held_out")
    run = Run(data=data, held_out=held_out, batch_size=4, steps=4, eval_every=100, folder=tmp_path / "run")
    rate = run.settings["learning_rate"]
    assert run.step().wait(TIMEOUT)
    for fault in (raises, is_nan, has_a_nan_gradient):
        assert run.set_loss(fault).resume().wait(TIMEOUT, check=False)
        assert (run.status, run.error is None) == ("paused", False), fault
    # One step more than was refused, with another batch: nothing of the refused batches is left.
    run.set_loss("pairwise_preference").set(batch_size=6)
    assert run.step().wait(TIMEOUT)
    assert run.set_loss("hinge").start().wait(TIMEOUT)
    first = HandStep(pairwise_preference_loss, {"beta": 1.0}, rate)
    second = HandStep(pairwise_preference_loss, {"beta": 1.0}, rate, 6)
    last = HandStep(hinge_loss, {"beta": 1.0}, rate, 6)
    client: Any = connect().create_lora_training_client(base_model="mint-tiny", rank=16, seed=0)
    records = train(client, run.trainer.job.data, [first, second, last, last], unit=2)
    assert [r.metrics["loss"] for r in run.records] == [r.loss for r in records]
    own, expected = (each._adapter.copy() for each in (run.client, client))
    assert all(torch.equal(own[name], expected[name]) for name in expected)
