"""Tokens of a run, on request: computed between two steps, without changing any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mint_lab.errors import RunError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.runs import token_inspection
from mint_lab.runs.run import Run
from mint_lab.ui.tokens import tokens_of

from ..waiting import Gate
from .bigram import BigramClient
from .conftest import TIMEOUT, finish, timeless

Make = Callable[..., Run]


def test_run_that_has_not_started_has_no_tokens(make_run: Make) -> None:
    with pytest.raises(RunError, match="has not started"):
        make_run().held_out_tokens()


def test_gradients_are_those_of_the_loss_on_the_first_held_out_pairs(make_run: Make) -> None:
    run = finish(make_run(loss="pairwise_preference", steps=3))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert (seen.step, seen.loss, seen.pairs, len(seen.data)) == (3, "pairwise_preference v1", True, 8)
    assert seen.gradients is not None
    # d(-mean log sigmoid m)/d log p = -+ sigmoid(-m) / n on every token with weight 1, with n = 4 pairs.
    for i in range(0, 8, 2):
        weights = [seen.data[i + side].loss_fn_inputs["weights"].to_torch() for side in (0, 1)]
        margin = (weights[0] * seen.logprobs[i]).sum() - (weights[1] * seen.logprobs[i + 1]).sum()
        push = torch.sigmoid(-margin) / 4
        torch.testing.assert_close(seen.gradients[i], -push * weights[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(seen.gradients[i + 1], push * weights[1], rtol=1e-5, atol=1e-7)


def test_requests_change_no_step(make_run: Make) -> None:
    undisturbed = finish(make_run(client=BigramClient(), seed=3))
    gate = Gate()
    run = make_run(client=BigramClient(gate=gate), seed=3).start()
    futures = []
    for _ in range(12):
        gate.wait()
        futures.append(run.held_out_tokens())  # in the middle of a step
        gate.open()
    assert run.wait(TIMEOUT)
    assert [future.result(TIMEOUT).step for future in futures] == list(range(1, 13))
    assert [timeless(record) for record in run.records] == [timeless(record) for record in undisturbed.records]


def test_run_without_requests_makes_no_extra_call(make_run: Make) -> None:
    quiet, requested = BigramClient(), BigramClient()
    finish(make_run(client=quiet))
    run = finish(make_run(client=requested))
    assert quiet.calls == requested.calls
    run.held_out_tokens().result(TIMEOUT)
    assert requested.calls == [*quiet.calls, "forward"]


def test_failing_loss_costs_the_gradients_only(make_run: Make) -> None:
    def picky(data: list, logprobs: list) -> tuple[torch.Tensor, dict[str, float]]:
        assert len(data) == 2, "takes one pair"
        return logprobs[1].sum() - logprobs[0].sum(), {}

    LOSSES.register(LossSpec(name="picky", family="custom", fn=picky))
    run = finish(make_run(loss="picky", batch_size=1, steps=2))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert seen.gradients is None
    assert len(seen.logprobs) == 8
    assert run.error is None


def test_error_of_the_model_is_raised_to_the_caller(make_run: Make) -> None:
    run = finish(make_run(steps=2))
    run.client.forward = None  # type: ignore[union-attr,method-assign]
    with pytest.raises(TypeError):
        run.held_out_tokens().result(TIMEOUT)
    assert run.status == "finished"


def test_sft_gives_the_datums_that_its_loss_sees(make_run: Make) -> None:
    run = finish(make_run("sft", steps=2))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert len(seen.data) == 4
    assert seen.gradients is not None
    for datum, gradient in zip(seen.data, seen.gradients, strict=True):
        torch.testing.assert_close(gradient, -datum.loss_fn_inputs["weights"].to_torch())


class Hanging:
    """A loss that does not return, or raises SystemExit, on eight datums; no batch has as many."""

    def __init__(self, exits: bool = False) -> None:
        self.entered = threading.Event()
        self.exits = exits

    def __call__(self, data: list, logprobs: list) -> tuple[torch.Tensor, dict[str, float]]:
        if len(data) == 8 and torch.is_grad_enabled():
            self.entered.set()
            if self.exits:
                raise SystemExit
            while True:
                pass
        return torch.cat(logprobs[1::2]).sum() - torch.cat(logprobs[::2]).sum(), {}


def hanging(make_run: Make, **options: Any) -> tuple[Run, Hanging]:
    fn = Hanging(**options)
    LOSSES.register(LossSpec(name="hanging", family="custom", fn=fn, unit="pair"))
    return make_run(loss="hanging", batch_size=2, steps=100_000, eval_every=100_000), fn


@pytest.mark.parametrize("halt", ["pause", "stop"])
def test_hanging_loss_is_cancelled_as_in_a_step(make_run: Make, halt: str) -> None:
    run, fn = hanging(make_run)
    run.prepare().start()
    future = run.held_out_tokens()
    assert fn.entered.wait(TIMEOUT)
    getattr(run, halt)()
    assert run.wait(TIMEOUT)
    seen = future.result(TIMEOUT)
    assert (seen.gradients, len(seen.logprobs)) == (None, 8)
    assert (run.status, run.error) == ({"pause": "paused", "stop": "stopped"}[halt], None)


@pytest.mark.parametrize("end", ["stop", "register"])
def test_hanging_loss_of_a_paused_run_is_cancelled_by_stop_or_a_new_version(make_run: Make, end: str) -> None:
    run, fn = hanging(make_run)
    assert run.step().wait(TIMEOUT)
    future = run.held_out_tokens()
    assert fn.entered.wait(TIMEOUT)
    if end == "stop":
        run.stop()
    else:
        LOSSES.register(replace(LOSSES["simpo"], name="hanging", family="custom"))
    assert future.result(TIMEOUT).gradients is None


def test_loss_that_exits_costs_the_gradients_only(make_run: Make) -> None:
    run, _ = hanging(make_run, exits=True)
    run.prepare()
    assert run.held_out_tokens().result(TIMEOUT).gradients is None
    run.step(2).wait(TIMEOUT)
    assert (run.steps_done, run.error) == (2, None)


def test_system_exit_of_a_call_is_raised_to_the_caller(make_run: Make) -> None:
    gate = Gate()
    run = make_run(client=BigramClient(gate=gate), steps=2).start()
    gate.wait()

    def exit_() -> None:
        raise SystemExit(3)

    future = run.call(exit_)
    gate.open(2)
    with pytest.raises(SystemExit):
        future.result(TIMEOUT)
    assert run.wait(TIMEOUT)
    assert (run.status, run.error) == ("finished", None)


def test_examples_are_not_pairs_whatever_the_loss(make_run: Make) -> None:
    """A loss of unknown unit trains on examples; neither three nor four of them are pairs."""
    examples = [("a1:", "ya"), ("b2:", "yb"), ("c3:", "yc")]
    LOSSES.register(replace(LOSSES["simpo"], name="copied", family="custom", unit=""))
    run = make_run("sft", "copied", data=examples * 4, held_out=examples, batch_size=2, steps=2).prepare()
    seen = run.held_out_tokens().result(TIMEOUT)
    assert (seen.pairs, len(seen.data)) == (False, 3)
    assert len(tokens_of(seen)["rows"]) == 3


@pytest.mark.parametrize("end", ["set_loss", "stop"])
def test_loss_that_was_edited_before_the_request_is_not_cancelled(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Only what happens after the request cancels it: the last step used another loss, which does not matter."""
    run = make_run(steps=4)
    assert run.step(2).wait(TIMEOUT)
    answers: list[bool] = []
    inner = token_inspection.token_gradients

    def watched(*args: Any, cancel_requested: Any) -> Any:
        answers.append(cancel_requested())
        _ = run.set_loss("simpo") if end == "set_loss" else run.stop()
        answers.append(cancel_requested())
        return inner(*args, cancel_requested=lambda: False)

    monkeypatch.setattr(token_inspection, "token_gradients", watched)
    assert run.set_loss("hinge").held_out_tokens().result(TIMEOUT).loss == "hinge v1"
    assert answers == [False, True]
