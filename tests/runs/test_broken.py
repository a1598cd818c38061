"""Broken losses in a run: none changes a weight, the run survives all of them, and a fixed loss resumes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mint_lab.cells.loss_cell import run_cell
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.errors import LossError
from mint_lab.losses import LOSSES
from mint_lab.runs import Run

from ..preflight.broken import HEAD, REFUSED, WARNED
from ..waiting import TIMEOUT, until
from .bigram import BigramClient
from .cells import GOOD, LOOP, cell, in_the_loss, patient, training_only
from .conftest import finish, timeless

__all__ = ["patient"]

SEEN = {name: case for name, case in REFUSED.items() if case.at_run is not None}


# -- the whole table, on the bundled model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of the bundled model that has completed a step with a good loss called ``mine``."""
    before = dict(LOSSES._entries)
    cell(GOOD)
    run = Run(
        loss="mine",
        data=arithmetic_pairs(60),
        held_out=arithmetic_pairs(8, split="held_out"),
        steps=10_000,
        batch_size=4,
        eval_every=10_000,
        folder=tmp_path_factory.mktemp("tiny") / "run",
    )
    assert run.step().wait(120, check=True)
    yield run
    run.stop()
    LOSSES._entries.clear()
    LOSSES._entries.update(before)


def state(run: Run) -> list[torch.Tensor]:
    """Weights, and the optimizer's moments."""
    client: Any = run.client
    return [*client._adapter.copy().values(), *client._optimizer.state().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", SEEN)
def test_broken_loss_without_preflight_changes_no_weight(tiny: Run, name: str) -> None:
    before, steps = state(tiny), tiny.steps_done
    cell(SEEN[name].cell.removeprefix(HEAD))
    assert tiny.step().wait(TIMEOUT, check=False)
    assert tiny.status == "paused"
    assert tiny.error is not None
    assert SEEN[name].at_run in tiny.error.message
    assert tiny.error.loss == "mine"
    assert same(state(tiny), before)
    # Registering a good version resumes the run.
    cell(GOOD)
    assert tiny.wait(TIMEOUT, check=True)
    assert (tiny.status, tiny.steps_done) == ("paused", steps + 1)
    assert not same(state(tiny), before)


@pytest.mark.parametrize("name", REFUSED)
def test_cell_refuses_a_broken_loss_and_the_run_keeps_the_good_one(tiny: Run, name: str) -> None:
    cell(GOOD)
    good = LOSSES["mine"]
    before = state(tiny)
    with pytest.raises(LossError, match="mine is not registered") as caught:
        cell(REFUSED[name].cell.removeprefix(HEAD), "")
    assert REFUSED[name].fix.partition(" have ")[0] in str(caught.value)
    assert LOSSES["mine"] is good
    assert tiny.loss is good
    assert same(state(tiny), before)


def test_doubtful_loss_is_registered_with_its_warning(tiny: Run) -> None:
    steps = tiny.steps_done
    shown = repr(cell(WARNED["ignores weights"].cell.removeprefix(HEAD), ""))
    assert "warn  weights" in shown
    assert tiny.step().wait(TIMEOUT, check=True)
    assert tiny.steps_done == steps + 1
    cell(GOOD)


# -- failures in the middle of a run ---------------------------------------------------------------------------------


def test_fixed_loss_continues_as_if_it_had_never_raised(patient: Any, make_run: Any) -> None:
    run = patient(training_only("if len(kept) == 7:\n    raise ValueError('a planted bug')"))
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == ("paused", 6)
    line = run.loss.source.splitlines().index("            raise ValueError('a planted bug')") + 1
    assert run.error.message == f"mine v1, line {line}: ValueError: a planted bug"
    assert f"-->  {line} " in run.error.traceback
    assert "guarded_loss.py" not in run.error.traceback
    cell(GOOD)
    assert run.wait(TIMEOUT, check=True)
    assert run.status == "finished"
    whole = finish(make_run(loss="mine", client=BigramClient()))
    assert torch.equal(run.client.table, whole.client.table)
    assert [timeless(r).metrics for r in run.records] == [timeless(r).metrics for r in whole.records]
    assert [(e.step, e.label) for e in run.edits] == [(7, "mine v2")]


def test_nan_names_the_datum_and_its_values(patient: Any) -> None:
    body = (
        "if len(kept) >= 3:\n"
        "    bad = data[5].model_input.to_ints() if len(data) > 5 else bad_one[0]\n"
        "    bad_one[:] = [bad]\n"
        "    terms = [torch.log(lp.sum() * 0 - 1) if d.model_input.to_ints() == bad else lp.sum()\n"
        "             for d, lp in zip(data, logprobs_list, strict=True)]\n"
        "    return -torch.stack(terms).mean(), {}"
    )
    run = patient("bad_one = []\n" + training_only(body))
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done, run.error.index) == ("paused", 2, 5)
    line = LOSSES["mine"].source[: LOSSES["mine"].source.index("torch.log(")].count("\n") + 1
    assert run.error.line == line
    place = f"mine v1, line {line}: the loss is nan: datum 5 alone gives nan"
    assert run.error.message.startswith(place)
    assert "log makes the first nan" in run.error.message
    assert "datum 5 alone gives nan (log-probabilities -" in run.error.message


def test_run_that_a_person_paused_stays_paused(patient: Any) -> None:
    run = patient(GOOD)
    assert run.step(2).wait(TIMEOUT)
    cell(GOOD)
    assert run.status == "paused"
    # Also after a failure, if a person then calls pause().
    cell("def mine(data, logprobs_list):\n    raise ValueError('no')\n")
    assert run.step(3).wait(TIMEOUT, check=False)
    assert run.error is not None
    assert run.error.loss == "mine"
    run.pause()
    assert run.error is not None
    assert run.error.loss is None
    cell(GOOD)
    assert (run.status, run.steps_done) == ("paused", 2)
    assert run.resume().wait(TIMEOUT, check=True)
    assert run.status == "finished"


def test_resumed_run_completes_the_requested_steps(patient: Any) -> None:
    run = patient(training_only("if len(kept) == 2:\n    raise ValueError('no')"))
    assert run.step(5).wait(TIMEOUT, check=False)
    assert (run.steps_done, run.status) == (1, "paused")
    cell(GOOD)
    assert run.wait(TIMEOUT, check=True)
    assert (run.steps_done, run.status) == (5, "paused")


def test_another_loss_does_not_resume_the_run(patient: Any) -> None:
    run = patient("def mine(data, logprobs_list):\n    raise ValueError('no')\n")
    run.start()
    assert run.wait(TIMEOUT, check=False)
    run_cell("other --no-preflight", HEAD + GOOD.replace("mine", "other"), {})
    assert (run.status, run.steps_done) == ("paused", 0)
    assert run.error is not None
    assert run.error.loss == "mine"


def test_failure_of_the_data_is_not_the_losss(make_run: Any) -> None:
    cell(GOOD)
    run = make_run(loss="mine", data="no/such/file.jsonl")
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.error.loss is None
    cell(GOOD)
    assert run.status == "paused"


def test_version_registered_while_the_old_one_fails_is_used(patient: Any) -> None:
    run = patient(training_only("kept.append('in')\ngate.acquire()\nraise ValueError('the old one')"))
    run._trainer.cancel_after = 10 * TIMEOUT
    old = run.loss.fn.__globals__["gate"]
    run.start()
    until(lambda: in_the_loss(run))
    cell(GOOD)
    old.release()
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, {r.loss_version for r in run.records}) == ("finished", {2})


def test_every_loss_version_has_its_source(patient: Any) -> None:
    run = patient(GOOD)
    for version in (2, 3):
        assert run.step(2).wait(TIMEOUT)
        cell(f"# version {version}\n{GOOD}")
    finish(run)
    assert [(x.step, x.name, x.version) for x in run.losses] == [(1, "mine", 1), (3, "mine", 2), (5, "mine", 3)]
    assert "# version 3" in run.losses[2].source
    assert "# version" not in run.losses[0].source
    assert [(e.step, e.label) for e in run.edits] == [(3, "mine v2"), (5, "mine v3")]
    (moments,) = run.client.optimizer.state.values()
    assert int(moments["step"]) == 12  # the same optimizer throughout


def test_client_is_usable_after_a_cancelled_loss(tiny: Run) -> None:
    """On the bundled model: weights and moments are unchanged, and the next call is served."""
    tiny._trainer.cancel_after = 0.1
    before = state(tiny)
    cell(training_only(LOOP))
    tiny.step()
    until(lambda: in_the_loss(tiny))
    tiny.pause()
    assert tiny.wait(TIMEOUT, check=False)
    assert "had not returned" in tiny.error.message
    assert tiny.error.loss is None  # a person paused the run: registering the loss again does not resume it
    assert same(state(tiny), before)
    tokens = tiny.client.forward(tiny._trainer.job.batch([0]), "cross_entropy").result(TIMEOUT)
    assert len(tokens.loss_fn_outputs) == 2
    cell(GOOD)
    assert tiny.step().wait(TIMEOUT, check=True)


# -- losses that call a model -----------------------------------------------------------------------------------------


def test_loss_may_call_the_client(tiny: Run) -> None:
    threads: list[str] = []
    client: Any = tiny.client

    def asks(data: Any, logprobs_list: Any) -> Any:
        assert threading.current_thread() is not client._worker._thread
        base = client.reference_logprobs(data).result(TIMEOUT)
        client._worker.submit(lambda: threads.append(threading.current_thread().name)).result(TIMEOUT)
        scale = 1.0 if torch.is_grad_enabled() else 0.0
        return scale * sum((lp - b.to_torch()).sum() for lp, b in zip(logprobs_list, base, strict=True)), {}

    tiny.set_loss(asks)
    assert tiny.step().wait(TIMEOUT, check=True)
    assert threads == [client._worker._thread.name]
    tiny.set_loss("mine")
