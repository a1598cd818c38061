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
from mint_lab.recipes.record import StepRecord
from mint_lab.runs import Run
from mint_lab.runs.advice import RunAdvice

from ..waiting import TIMEOUT
from .bigram import BigramClient
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


def test_version_of_a_loss_that_did_not_fail_resumes_nothing(make_run: Any) -> None:
    """The run has changed to another loss since, and nobody has told it to go on."""
    for name, fn in (("mine", bad), ("other", good)):
        register(name=name, unit="pair")(fn)
    run = make_run(loss="mine", steps=2)
    assert run.step().wait(TIMEOUT, check=False)
    run.set_loss("other")
    register(name="other", unit="pair")(lambda data, logprobs_list: good(data, logprobs_list))
    assert (run.status, run.loss.label, run.steps_done) == ("paused", "other v2", 0)
    assert run.resume().wait(TIMEOUT)
    assert [record.loss_name for record in run.records] == ["other", "other"]


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


# -- a step that failed after its gradient -----------------------------------------------------------------------------


class FailsOnce(BigramClient):
    """Raises at the next request ``armed``."""

    armed = ""

    def optim_step(self, adam_params: Any) -> Any:
        self._check("optim_step")
        return super().optim_step(adam_params)

    def forward(self, *args: Any, **options: Any) -> Any:
        self._check("forward")
        return super().forward(*args, **options)

    def _check(self, request: str) -> None:
        if self.armed == request:
            self.armed = ""
            raise ConnectionError(f"planted failure of {request}")


@pytest.mark.parametrize("request_", ["optim_step", "forward"])
@pytest.mark.parametrize(("steps", "evaluated"), [(2, [2]), (3, [3]), (4, [4])])
def test_retried_step_is_the_last_one_or_not_as_the_run_says_now(
    make_run: Any, request_: str, steps: int, evaluated: list[int]
) -> None:
    """Step 2 of 2 or of 4 fails; then the run gets ``steps`` steps. Only the last step is evaluated."""
    run = make_run(client=FailsOnce(), steps=4 if request_ == "optim_step" else 2, eval_every=100)
    assert run.step().wait(TIMEOUT)
    run.client.armed = request_
    assert run.step().wait(TIMEOUT, check=False)
    assert (run.steps_done, run.error is None) == (1, False)
    assert run.set(steps=steps).start().wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", steps)
    assert [record.step for record in run.records if record.held_out] == evaluated
    assert run.client.calls.count("optim_step") == steps


def test_advice_after_another_loss_knows_no_peak_of_the_old_one() -> None:
    """A loss that blew up from 1 to 50 is said to; after the swap, 10 is where the new loss starts, and no recovery."""

    def record(step: int, loss: float, name: str) -> StepRecord:
        settings = {"batch_size": 32.0, "learning_rate": 0.1}
        return StepRecord(step, 0.0, 0.0, 1, name, 1, metrics={"loss": loss}, settings=settings)

    advice, records = RunAdvice(), []
    texts: list[list[str]] = []
    for step, (loss, name) in enumerate([(1.0, "old")] * 10 + [(50.0, "old")] * 20 + [(10.0, "new")] * 20, 1):
        records.append(record(step, loss, name))
        texts.append(advice.update(records[-RunAdvice.window :]))
    assert ["diverge" in " ".join(text) for text in texts[:10]] == [False] * 10
    assert "up from 1 at the start: it diverges" in " ".join(texts[29])
    assert texts[30:] == [[]] * 20
    assert advice._earlier.peak == 0.0
    assert [r.step for r in advice._earlier.first] == list(range(31, 31 + len(advice._earlier.first)))
    # Back to the old loss: it starts again, too.
    for step in (51, 52):
        records.append(record(step, 60.0, "old"))
        texts.append(advice.update(records[-RunAdvice.window :]))
    assert texts[50:] == [[]] * 2
