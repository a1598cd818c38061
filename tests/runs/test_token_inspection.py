"""Tokens of a run, on request: between two steps, and never at the cost of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mint_lab.errors import RunError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.runs.run import Run
from mint_lab.ui.tokens import tokens_of

from .bigram import BigramClient, Gate
from .conftest import TIMEOUT, finish, timeless

Make = Callable[..., Run]


def test_there_is_nothing_to_see_before_there_is_a_model(make_run: Make) -> None:
    with pytest.raises(RunError, match="has not started"):
        make_run().held_out_tokens()


def test_gradients_are_those_of_the_loss_on_the_first_held_out_pairs(make_run: Make) -> None:
    run = finish(make_run(loss="pairwise_preference", steps=3))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert (seen.step, seen.loss, seen.pairs, len(seen.data)) == (3, "pairwise_preference v1", True, 8)
    assert seen.gradients is not None
    # d(-mean log sigmoid m)/d log p = -+ sigmoid(-m) / n on every token that counts, with n = 4 pairs.
    for i in range(0, 8, 2):
        weights = [seen.data[i + side].loss_fn_inputs["weights"].to_torch() for side in (0, 1)]
        margin = (weights[0] * seen.logprobs[i]).sum() - (weights[1] * seen.logprobs[i + 1]).sum()
        push = torch.sigmoid(-margin) / 4
        torch.testing.assert_close(seen.gradients[i], -push * weights[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(seen.gradients[i + 1], push * weights[1], rtol=1e-5, atol=1e-7)


def test_a_run_that_is_asked_makes_the_same_steps(make_run: Make) -> None:
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


def test_who_does_not_ask_pays_nothing(make_run: Make) -> None:
    quiet, asked = BigramClient(), BigramClient()
    finish(make_run(client=quiet))
    run = finish(make_run(client=asked))
    assert quiet.calls == asked.calls
    run.held_out_tokens().result(TIMEOUT)
    assert asked.calls == [*quiet.calls, "forward"]


def test_a_loss_that_fails_on_them_costs_the_gradients_only(make_run: Make) -> None:
    def picky(data: list, logprobs: list) -> tuple[torch.Tensor, dict[str, float]]:
        assert len(data) == 2, "takes one pair"
        return logprobs[1].sum() - logprobs[0].sum(), {}

    LOSSES.register(LossSpec(name="picky", family="custom", fn=picky))
    run = finish(make_run(loss="picky", batch_size=1, steps=2))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert seen.gradients is None
    assert len(seen.logprobs) == 8
    assert run.error is None


def test_an_error_of_the_model_is_the_askers(make_run: Make) -> None:
    run = finish(make_run(steps=2))
    run.client.forward = None  # type: ignore[union-attr,method-assign]
    with pytest.raises(TypeError):
        run.held_out_tokens().result(TIMEOUT)
    assert run.status == "finished"


def test_sft_shows_what_its_loss_sees(make_run: Make) -> None:
    run = finish(make_run("sft", steps=2))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert len(seen.data) == 4
    assert seen.gradients is not None
    for datum, gradient in zip(seen.data, seen.gradients, strict=True):
        torch.testing.assert_close(gradient, -datum.loss_fn_inputs["weights"].to_torch())


class Hanging:
    """A loss that does not return, or leaves, where it sees the eight datums of the view; no batch has as many."""

    def __init__(self, leaves: bool = False) -> None:
        self.entered = threading.Event()
        self.leaves = leaves

    def __call__(self, data: list, logprobs: list) -> tuple[torch.Tensor, dict[str, float]]:
        if len(data) == 8 and torch.is_grad_enabled():
            self.entered.set()
            if self.leaves:
                raise SystemExit
            while True:
                pass
        return logprobs[1].sum() - logprobs[0].sum(), {}


def hanging(make_run: Make, **options: Any) -> tuple[Run, Hanging]:
    fn = Hanging(**options)
    LOSSES.register(LossSpec(name="hanging", family="custom", fn=fn, pairs=True))
    return make_run(loss="hanging", batch_size=2, steps=100_000, eval_every=100_000), fn


@pytest.mark.parametrize("halt", ["pause", "stop"])
def test_a_loss_that_hangs_on_them_is_cancelled_as_in_a_step(make_run: Make, halt: str) -> None:
    run, fn = hanging(make_run)
    run.prepare().start()
    future = run.held_out_tokens()
    assert fn.entered.wait(TIMEOUT)
    getattr(run, halt)()
    assert run.wait(TIMEOUT)
    seen = future.result(TIMEOUT)
    assert (seen.gradients, len(seen.logprobs)) == (None, 8)
    assert (run.status, run.error) == ({"pause": "paused", "stop": "stopped"}[halt], None)


@pytest.mark.parametrize("end", ["stop", "mend"])
def test_a_loss_that_hangs_on_them_while_the_run_rests_ends_with_the_run_or_when_mended(
    make_run: Make, end: str
) -> None:
    run, fn = hanging(make_run)
    assert run.step().wait(TIMEOUT)
    future = run.held_out_tokens()
    assert fn.entered.wait(TIMEOUT)
    if end == "stop":
        run.stop()
    else:
        LOSSES.register(replace(LOSSES["simpo"], name="hanging", family="custom"))
    assert future.result(TIMEOUT).gradients is None


def test_a_loss_that_leaves_on_them_costs_the_gradients_only(make_run: Make) -> None:
    run, _ = hanging(make_run, leaves=True)
    run.prepare()
    assert run.held_out_tokens().result(TIMEOUT).gradients is None
    run.step(2).wait(TIMEOUT)
    assert (run.steps_done, run.error) == (2, None)


def test_what_is_asked_for_is_answered_even_where_it_leaves(make_run: Make) -> None:
    gate = Gate()
    run = make_run(client=BigramClient(gate=gate), steps=2).start()
    gate.wait()

    def leave() -> None:
        raise SystemExit(3)

    future = run.call(leave)
    gate.open(2)
    with pytest.raises(SystemExit):
        future.result(TIMEOUT)
    assert run.wait(TIMEOUT)
    assert (run.status, run.error) == ("finished", None)


def test_examples_are_no_pairs_whatever_the_loss_pairs(make_run: Make) -> None:
    """A copy of a pair loss trains on examples; three of them are no pairs, and neither are four."""
    examples = [("a1:", "ya"), ("b2:", "yb"), ("c3:", "yc")]
    LOSSES.register(replace(LOSSES["simpo"], name="copied", family="custom"))
    run = make_run("sft", "copied", data=examples * 4, held_out=examples, batch_size=2, steps=2).prepare()
    seen = run.held_out_tokens().result(TIMEOUT)
    assert (seen.pairs, len(seen.data)) == (False, 3)
    assert len(tokens_of(seen)["rows"]) == 3
