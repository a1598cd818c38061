"""A step that fails is retried from the phase that failed: no gradient counts twice, no update is applied twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mint_lab.errors import ModelError
from mint_lab.runs import Run, load_run

from ..runs.bigram import BigramClient, BigramSampler
from ..runs.conftest import TIMEOUT, finish, timeless

PROMPTS = [{"prompt": f"{chr(97 + i % 26)}:"} for i in range(12)]
REQUESTS = (
    "forward",
    "forward_backward",
    "forward_backward_custom",
    "optim_step",
    "save_weights_and_get_sampling_client",
)


class Flaky(BigramClient):
    """Fails once, at request ``at`` of all (1-based), before it has done anything."""

    def __init__(self, at: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.at, self.requests = at, 0
        self.error = error or ConnectionError("the service hung up")

    def __getattribute__(self, name: str) -> Any:
        if name in REQUESTS:
            self.count_request()
        return super().__getattribute__(name)

    def count_request(self) -> None:
        self.requests += 1
        if self.requests == self.at:
            raise self.error

    def save_weights_and_get_sampling_client(self, name: str | None = None) -> BigramSampler:
        return FlakySampler(self)


class FlakySampler(BigramSampler):
    def __init__(self, client: Flaky) -> None:
        super().__init__(client.table.detach().clone(), client.calls)
        self.client = client

    def sample(self, *args: Any) -> Any:
        self.client.count_request()
        return super().sample(*args)


def low(response_text: str, example: Any) -> float:
    return sum(ord(c) < 64 for c in response_text) / max(len(response_text), 1)


RECIPES: dict[str, dict[str, Any]] = {
    "preference": {},
    "sft": {},
    "rl": {
        "data": PROMPTS,
        "held_out": PROMPTS[:2],
        "reward": low,
        "max_tokens": 3,
        "batch_size": 2,
        "updates_per_rollout": 2,
        "delay": 1,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_client_that_fails_once_at_any_request_changes_nothing(make_run: Callable[..., Run], recipe: str) -> None:
    def make(client: Flaky) -> Run:
        return make_run(recipe, **{"client": client, "steps": 4, "eval_every": 2, **RECIPES[recipe]})

    whole = finish(make(Flaky()))
    calls = whole.client.requests
    assert calls > 10
    for at in range(1, calls + 1):
        run = make(Flaky(at))
        run.start()
        assert run.wait(TIMEOUT, check=False)
        assert run.status == "paused", f"call {at}"
        assert "the service hung up" in run.error.message
        finish(run)
        assert run.client.calls.count("optim_step") == 4, f"call {at}"
        assert torch.equal(run.client.table, whole.client.table), f"call {at}"
        assert list(map(timeless, run.records)) == list(map(timeless, whole.records)), f"call {at}"


def failed_once(make_run: Callable[..., Run], call: str, step: int, **options: Any) -> Run:
    """Return a run that has failed once, in ``call`` of step ``step``."""
    run = make_run("sft", client=Flaky(), steps=4, eval_every=2, **options)
    assert run.step(step - 1).wait(TIMEOUT)
    run.client.at = run.client.requests + {"optim_step": 2, "forward": 3}[call]
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == ("paused", step - 1)
    return run


def test_updated_step_is_recorded_if_the_run_stops_before_its_evaluation(make_run: Callable[..., Run]) -> None:
    run = failed_once(make_run, "forward", 2)
    assert run.client.calls.count("optim_step") == 2
    run.stop()
    assert (run.status, run.steps_done) == ("stopped", 2)
    last = run.records[-1]
    assert (last.step, last.held_out) == (2, {})
    assert last.warnings[-1] == "The run was stopped before this step could be evaluated"
    assert last.metrics["loss"] > 0
    assert load_run(run.folder).records == run.records


def test_evaluation_is_given_up_once(make_run: Callable[..., Run]) -> None:
    trainer = failed_once(make_run, "forward", 2).trainer
    assert trainer is not None
    record = trainer.unevaluated(started=0.0)
    assert record is not None
    assert (record.step, trainer.retry_plan) == (2, None)
    assert trainer.unevaluated(started=0.0) is None


def test_unapplied_gradient_leaves_no_record(make_run: Callable[..., Run]) -> None:
    run = failed_once(make_run, "optim_step", 2).stop()
    assert (run.status, run.steps_done) == ("stopped", 1)
    assert run.client.calls.count("optim_step") == 1


@pytest.mark.parametrize("call", ["optim_step", "forward"])
def test_edit_before_a_retry_takes_effect_at_the_next_step(make_run: Callable[..., Run], call: str) -> None:
    run = failed_once(make_run, call, 2)
    run.set(learning_rate=0.5, batch_size=8, steps=3)
    finish(run)
    assert [r.settings["learning_rate"] for r in run.records] == [0.05, 0.05, 0.5]
    assert [len(batch) for batch in run.client.batches] == [4, 4, 8]
    assert [(e.step, e.label) for e in run.edits] == [(3, "learning_rate 0.5"), (3, "batch_size 8")]
    assert run.records[1].warnings == [
        "Step 2 ends with the loss and settings that it began with, because its gradient had been computed with them: "
        f"{change} takes effect at step 3"
        for change in ("learning_rate 0.5", "batch_size 8")
    ]
    assert run.records[2].warnings == []
    plain = make_run("sft", steps=3, eval_every=2)
    assert plain.step(2).wait(TIMEOUT)
    finish(plain.set(learning_rate=0.5, batch_size=8))
    assert torch.equal(run.client.table, plain.client.table)


def test_gradient_that_the_client_dropped_is_computed_again(make_run: Callable[..., Run]) -> None:
    """The local client drops a gradient that is not finite and raises a ModelError."""
    run = make_run("sft", client=Flaky(error=ModelError("the gradient's norm is nan; it was dropped")), steps=3)
    assert run.step().wait(TIMEOUT)
    run.client.at = run.client.requests + 2
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert "it was dropped" in run.error.message
    run.client.gradient = None
    finish(run.set(learning_rate=0.01))
    assert len(run.client.batches) == 4
    assert [r.settings["learning_rate"] for r in run.records] == [0.05, 0.01, 0.01]
    assert run.records[1].warnings == []


def test_step_that_cannot_be_measured_is_completed_with_a_warning(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("sft", steps=3)
    assert run.step().wait(TIMEOUT)
    monkeypatch.setattr(type(run.trainer.job), "measure", lambda *_: {}["margins"])
    assert run.step().wait(TIMEOUT)
    monkeypatch.undo()
    finish(run)
    assert run.client.calls.count("optim_step") == 3
    assert run.records[1].warnings == ["This step could not be measured: KeyError: 'margins'"]
    assert ["nll" in record.metrics for record in run.records] == [True, False, True]
    assert run.records[1].metrics["grad_norm"] > 0
    assert torch.equal(run.client.table, finish(make_run("sft", steps=3)).client.table)


def test_loss_cannot_report_metrics_of_the_trainer(make_run: Callable[..., Run]) -> None:
    def boasting(data: Any, logprobs_list: Any) -> Any:
        return -sum(lp.sum() for lp in logprobs_list), {"grad_norm": 0.0, "tokens_per_s": 1.0, "mine": 7.0}

    run = finish(make_run(loss=boasting, steps=2))
    assert list(run.history["mine"]) == [7.0, 7.0]
    assert (run.history["grad_norm"] > 0).all()
    assert (run.history["tokens_per_s"] != 1.0).all()
    notes = [note for record in run.records for note in record.warnings if "recorded as" in note]
    assert len(notes) == 1
    assert notes[0] == (
        "boasting v1 reports 'grad_norm' and 'tokens_per_s', which are metrics of the run: recorded as "
        "'loss/grad_norm' and 'loss/tokens_per_s'"
    )
    assert list(run.history["loss/grad_norm"]) == [0.0, 0.0]
