"""The training loop: what is allowed when, what a failure leaves, who is notified."""

from __future__ import annotations

import _thread
import gc
import sys
import threading
import weakref
from typing import Any

import pytest
import torch

from mint_lab.errors import ConfigError, LossError, RunError
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.runs import Run, loop

from ..waiting import TIMEOUT, Gate, join
from .bigram import BigramClient, letter_pairs
from .conftest import finish, in_state, timeless

# -- the state machine --------------------------------------------------------------------------------------------


# (state, control) -> the status at once, and the status and number of steps after wait(); None: refused.
EXPECTED: dict[tuple[str, str], tuple[str, str, int] | None] = {
    ("ready", "start"): ("running", "finished", 4),
    ("ready", "resume"): ("running", "finished", 4),
    ("ready", "step"): ("running", "paused", 1),
    ("ready", "pause"): ("ready", "ready", 0),
    ("ready", "stop"): ("stopped", "stopped", 0),
    ("running", "start"): ("running", "finished", 4),
    ("running", "resume"): ("running", "finished", 4),
    ("running", "step"): ("running", "paused", 1),
    ("running", "pause"): ("running", "paused", 1),
    ("running", "stop"): ("running", "stopped", 1),
    ("paused", "start"): ("running", "finished", 4),
    ("paused", "resume"): ("running", "finished", 4),
    ("paused", "step"): ("running", "paused", 2),
    ("paused", "pause"): ("paused", "paused", 1),
    ("paused", "stop"): ("stopped", "stopped", 1),
    ("stopped", "start"): None,
    ("stopped", "resume"): None,
    ("stopped", "step"): None,
    ("stopped", "pause"): ("stopped", "stopped", 1),
    ("stopped", "stop"): ("stopped", "stopped", 1),
    ("finished", "start"): None,
    ("finished", "resume"): None,
    ("finished", "step"): None,
    ("finished", "pause"): ("finished", "finished", 4),
    ("finished", "stop"): ("finished", "finished", 4),
}


@pytest.mark.parametrize(("state", "control"), EXPECTED)
def test_every_control_in_every_status(make_run: Any, state: str, control: str) -> None:
    run = in_state(make_run, state)
    expected = EXPECTED[state, control]
    if expected is None:
        with pytest.raises(RunError, match=state):
            getattr(run, control)()
        assert run.status == state
        return
    at_once, at_last, steps = expected
    gate = run.client.gate
    if gate is None and at_once == "running":
        run.client.gate = gate = Gate()  # so that the status right after the call can be checked
    assert getattr(run, control)() is run
    assert run.status == at_once
    if gate is not None:
        gate.open(10)
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == (at_last, steps)


def test_resume_withdraws_a_pause_but_not_a_stop(make_run: Any) -> None:
    run = in_state(make_run, "running")
    run.pause().resume()
    run.client.gate.open(1)
    run.client.gate.wait()
    assert run.steps_done == 1
    run.stop().resume().pause()
    run.client.gate.open(10)
    assert run.wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("stopped", 2)


def test_finished_run_resumes_with_more_steps(make_run: Any) -> None:
    run = finish(make_run(steps=3))
    with pytest.raises(ConfigError, match="steps=2, but 3 steps are already complete"):
        run.set(steps=2)
    run.set(steps=5)
    assert run.status == "paused"
    finish(run)
    assert [r.step for r in run.records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("state", ["paused", "running"])
def test_run_cannot_end_at_a_step_without_its_last_evaluation(make_run: Any, state: str) -> None:
    """In both cases step 1 of 4 is complete or in progress, without an evaluation."""
    run = in_state(make_run, state)
    message = r"steps=1, but 1 step is already complete or in progress.*give 2 or more, or stop"
    with pytest.raises(ConfigError, match=message):
        run.set(steps=1)
    assert run.steps_total == 4
    run.set(steps=2)
    if run.client.gate is not None:
        run.client.gate.open(10)
    if state == "paused":
        run.start()
    assert run.wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", 2)
    assert run.records[-1].held_out
    assert run.set(steps=2, learning_rate=0.1).status == "finished", "the same number is no edit"


def test_number_of_steps_is_free_until_one_is_in_progress(make_run: Any) -> None:
    failing = make_run(loss=failing_at(1, raises), steps=4)
    failing.start()
    assert failing.wait(TIMEOUT, check=False)
    for run in (make_run(steps=4), failing):
        run.set(steps=1)
        finish(run)
        assert [bool(record.held_out) for record in run.records] == [True]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_step_expects_a_whole_number(make_run: Any, n: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        make_run().step(n)


def test_wait_times_out_and_can_be_interrupted(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C reaches the main thread while it waits. No single wait is long: some platforms interrupt only its end."""
    run = in_state(make_run, "running")
    assert run.wait(0.01) is False
    slices: list[float] = []

    def interrupted_at_the_third(seconds: float) -> None:
        slices.append(seconds)
        if len(slices) == 3:
            _thread.interrupt_main()

    monkeypatch.setattr(run._loop._changed, "wait", interrupted_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run.wait(TIMEOUT)
    monkeypatch.undo()
    assert slices == [0.5] * 3
    assert run.status == "running"  # the interrupt does not reach the run
    run.client.gate.open(10)
    assert run.wait(TIMEOUT)
    assert run.status == "finished"


def test_end_of_the_run_wakes_who_waits(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the next slice of the wait is over."""
    monkeypatch.setattr(loop, "WAIT_SLICE_SECONDS", TIMEOUT / 2)
    run = in_state(make_run, "running")
    woken: list[bool] = []
    wait = run._loop._changed.wait
    waits = threading.Event()

    def watched(seconds: float) -> bool:
        waits.set()
        woken.append(wait(seconds))
        return woken[-1]

    monkeypatch.setattr(run._loop._changed, "wait", watched)
    waiting = threading.Thread(target=run.wait, args=(TIMEOUT,))
    waiting.start()
    assert waits.wait(TIMEOUT)
    run.client.gate.open(10)
    join(waiting)
    assert woken == [True]


def test_forgotten_run_is_collected() -> None:
    client = BigramClient()
    run = Run(client=client, data=letter_pairs(8))
    gone = weakref.ref(run._loop)
    gc.collect()
    subscribers = len(LOSSES._subscribers)
    del run
    gc.collect()
    assert gone() is None
    assert len(LOSSES._subscribers) == subscribers - 1


# -- failures -----------------------------------------------------------------------------------------------------


def failing_at(step: int, how: Any) -> Any:
    """``pairwise_preference``, except for its ``step``-th gradient call."""
    calls = iter(range(1, 10**6))

    def fragile(data: Any, logprobs_list: Any) -> Any:
        if logprobs_list[0].requires_grad and next(calls) == step:
            return how(data, logprobs_list)
        return pairwise_preference_loss(data, logprobs_list)

    return fragile


def raises(data: Any, logprobs_list: Any) -> Any:
    raise ZeroDivisionError("a planted bug")


def is_nan(data: Any, logprobs_list: Any) -> Any:
    return logprobs_list[0].sum() * float("nan"), {}


def exits(data: Any, logprobs_list: Any) -> Any:
    raise LossError("no gradient reaches datum 3", index=3)


def test_wait_raises_if_the_run_failed_or_never_started(make_run: Any) -> None:
    run = make_run(loss=failing_at(4, raises))
    with pytest.raises(RunError, match=r"never started.*run\.start\(\)\.wait\(\)"):
        run.wait(TIMEOUT)
    with pytest.raises(RunError, match="a planted bug"):
        run.start().wait(TIMEOUT)
    assert run.wait(TIMEOUT, check=False)
    assert run.resume().wait(TIMEOUT)


@pytest.mark.parametrize(
    ("how", "message", "index"),
    [(raises, "a planted bug", None), (is_nan, "the loss is nan", None), (exits, "no gradient reaches datum 3", 3)],
)
def test_failed_step_changes_nothing_and_is_retried(make_run: Any, how: Any, message: str, index: Any) -> None:
    run = make_run(loss=failing_at(4, how))
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done, len(run.history)) == ("paused", 3, 3)
    assert run.error is not None
    assert message in run.error.message
    assert run.error.index == index
    assert "error" in repr(run)
    with pytest.raises(RunError, match=message):
        run.wait()
    expected = make_run(steps=3)
    finish(expected)
    assert torch.equal(run.client.table, expected.client.table)  # as after three good steps
    run.resume()
    assert run.wait(TIMEOUT)
    assert run.error is None
    assert run.status == "finished"
    assert run.client.batches[3] == run.client.batches[4]  # the failed step's batch again
    whole = finish(make_run(steps=12))
    assert torch.equal(run.client.table, whole.client.table)
    assert [timeless(r).metrics for r in run.records] == [timeless(r).metrics for r in whole.records]


def test_failure_names_and_shows_the_line(make_run: Any) -> None:
    def planted(data: Any, logprobs_list: Any) -> Any:
        if logprobs_list[0].requires_grad:
            wrong = 1 / 0
            return wrong, {}
        return pairwise_preference_loss(data, logprobs_list)

    run = make_run(loss=planted)
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.error.line == 3
    assert run.loss.source.splitlines()[run.error.line - 1].strip() == "wrong = 1 / 0"
    assert run.error.message == "planted v1, line 3: ZeroDivisionError: division by zero"
    assert "-->   3" in run.error.traceback
    assert "trainer.py" not in run.error.traceback


def test_registering_the_fixed_loss_resumes_the_run(make_run: Any) -> None:
    register(name="fixed")(failing_at(3, raises))
    run = make_run(loss="fixed")
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    register(name="fixed")(lambda data, logprobs_list: pairwise_preference_loss(data, logprobs_list))
    assert run.wait(TIMEOUT, check=True)  # registering it was enough
    assert run.status == "finished"
    assert [r.loss_version for r in run.records] == [1] * 2 + [2] * 10
    assert [e.label for e in run.edits] == ["fixed v2"]


def test_batch_with_an_odd_datum_pauses_before_any_update(make_run: Any) -> None:
    run = make_run()
    run.prepare()
    whole = run._trainer.job.batch
    run._trainer._job = OddJob(run._trainer.job)
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert "got 7 datums" in run.error.message
    assert "optim_step" not in run.client.calls
    run._trainer._job = run._trainer.job.inner
    assert run._trainer.job.batch == whole
    finish(run)


class OddJob:
    """A job whose batches lose their last datum."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def batch(self, items: Any) -> Any:
        return self.inner.batch(items)[:-1]


def test_system_exit_does_not_end_the_worker_silently(make_run: Any) -> None:
    class Client(BigramClient):
        def optim_step(self, adam_params: Any) -> Any:
            sys.exit("out")

    run = make_run(client=Client())
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert "SystemExit" in run.error.message


def test_bad_data_pauses_and_raises_from_prepare(make_run: Any) -> None:
    run = make_run(data="no/such/file.jsonl")
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert "no/such/file.jsonl" in run.error.message
    with pytest.raises(ValueError, match=r"no/such/file\.jsonl"):
        run.prepare()


def test_stopping_while_a_step_fails_is_a_stop(make_run: Any) -> None:
    run = make_run(loss=failing_at(1, raises), client=BigramClient(gate=Gate()))
    run.start()
    run.client.gate.wait()
    run.stop()
    run.client.gate.open(1)
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "stopped"
    assert run.error is not None


# -- subscribers and the folder -----------------------------------------------------------------------------------


def test_subscriber_is_notified_after_the_record_is_on_disk(make_run: Any) -> None:
    """Whenever it is notified, every record that it sees is a line of the file; the last time it sees all 12."""
    run = make_run()
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        status, records = run.status, len(run.records)
        file = run.folder / "records.jsonl"
        seen.append((records, len(file.read_text().splitlines()) if file.exists() else 0))
        if status == "finished":
            done.set()

    dispose = run.subscribe(look)
    finish(run)
    assert done.wait(TIMEOUT)
    dispose()
    assert all(records <= lines for records, lines in seen)
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_subscribers_that_raise_or_never_return_do_not_hurt(make_run: Any) -> None:
    """The run ends while one of them is stuck. Once that one returns, the next sees the end, whatever the others do."""
    run = make_run()
    stuck, raised, seen = Gate(), threading.Event(), threading.Event()

    def broken() -> None:
        raised.set()
        raise ValueError("a broken page")

    def healthy() -> None:
        if (run.status, len(run.records)) == ("finished", 12):
            seen.set()

    disposers = [run.subscribe(callback) for callback in (broken, stuck, healthy)]
    finish(run)
    stuck.wait()
    assert raised.is_set()
    assert not seen.is_set()
    stuck.open(1000)
    assert seen.wait(TIMEOUT)
    assert (run.steps_done, run.error) == (12, None)
    for dispose in disposers:
        dispose()
        dispose()
    assert run._loop.notifier._subscribers == []


def test_no_call_after_dispose_and_the_same_function_twice(make_run: Any) -> None:
    """The gate is the last that is called in each round, and the thread waits there for the next one."""
    run = make_run()
    heard: list[float] = []
    end_of_round = Gate()

    def hear() -> None:
        heard.append(run.settings["beta"])

    first, second, last = run.subscribe(hear), run.subscribe(hear), run.subscribe(end_of_round)
    run.set(beta=0.5)
    end_of_round.wait()
    assert heard == [0.5, 0.5]
    first()
    first()  # does not end the other subscription of the same function
    heard.clear()
    run.set(beta=0.25)
    end_of_round.open()
    end_of_round.wait()
    assert heard == [0.25]
    second()
    last()
    end_of_round.open(1000)
    assert run._loop.notifier._subscribers == []


def test_folder_with_a_run_is_refused(make_run: Any, tmp_path: Any) -> None:
    finish(make_run(folder=tmp_path / "one", steps=1))
    client = BigramClient()
    again = make_run(folder=tmp_path / "one", steps=1, client=client)
    again.start()
    assert again.wait(TIMEOUT, check=False)
    assert "already holds a run" in again.error.message
    assert client.calls == [], "before anything is loaded"
    with pytest.raises(RunError, match="already holds a run"):
        again.prepare()


def test_the_worker_prints_nothing(make_run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = make_run(loss=failing_at(4, raises))
    run.start()
    assert run.wait(TIMEOUT, check=False)
    finish(run)
    assert capfd.readouterr() == ("", "")
