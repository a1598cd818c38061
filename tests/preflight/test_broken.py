"""A table of broken losses: each gets its one right message."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mint_lab.data.render import to_datum
from mint_lab.preflight import Report, preflight, probe
from mint_lab.types import Datum
from tests.waiting import TIMEOUT, until

from .broken import HEAD, REFUSED, WARNED, Broken


@pytest.fixture
def data() -> list[Datum]:
    """Four pairs whose prompts differ, so that no two datums are equal."""
    lengths = np.random.default_rng(0).integers(2, 5, size=8)
    return [to_datum([10 + i // 2, 5, 6, 7, *range(20 + i, 20 + i + n)], 4) for i, n in enumerate(lengths.tolist())]


def function(case: Broken) -> Any:
    """The cell's function, with source lines that a traceback finds."""
    from mint_lab.usercode.compile_cell import compile_cell

    return compile_cell(case.cell, "mine", 1, {}).fn


def only(report: Report, verdict: str) -> Any:
    (line,) = [line for line in report.lines if line.verdict == verdict]
    return line


def test_the_tables_have_a_row_for_each_check_that_can_refuse_or_warn() -> None:
    refused = {"returns", "inputs", "fields", "loss", "metrics", "gradient", "numerical gradient"}
    assert {case.line for case in REFUSED.values()} >= refused
    warned = {"loss", "metrics", "gradient", "repeatable", "memory", "weights", "numerical gradient", "pairs", "output"}
    assert {case.line for case in WARNED.values()} >= warned
    assert all(case.found and case.fix for case in (REFUSED | WARNED).values()), "an empty word is in every message"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_loss_gets_its_one_right_message(data: list[Datum], name: str) -> None:
    case = REFUSED[name]
    report = preflight(function(case), data)
    assert not report.ok
    line = only(report, "fail")
    assert line.name == case.line
    assert case.found in line.message
    assert case.fix in line.fix
    assert report.lines[-1] is line  # no check follows a failure
    assert all(x.verdict in ("ok", "info", "warn") for x in report.lines[:-1])


@pytest.mark.parametrize("name", WARNED)
def test_a_loss_to_look_at_gets_its_one_right_message(data: list[Datum], name: str) -> None:
    case = WARNED[name]
    report = preflight(function(case), data)
    assert report.ok, report
    line = only(report, "warn")
    assert line.name == case.line
    assert case.found in line.message
    assert case.fix in line.fix


@pytest.mark.parametrize("name", [*REFUSED, *WARNED])
def test_the_data_are_as_before(data: list[Datum], name: str) -> None:
    before = [{k: v.to_numpy().copy() for k, v in d.loss_fn_inputs.items()} for d in data]
    preflight(function((REFUSED | WARNED)[name]), data)
    for datum, fields in zip(data, before, strict=True):
        assert datum.loss_fn_inputs.keys() == fields.keys()
        assert all(np.array_equal(datum.loss_fn_inputs[k].to_numpy(), v) for k, v in fields.items())


def test_random_generators_are_left_as_they_were(data: list[Datum]) -> None:
    import random

    import torch

    torch.manual_seed(0)
    random.seed(0)
    expected = torch.rand(3), random.random()
    torch.manual_seed(0)
    random.seed(0)
    preflight(function(WARNED["random"]), data)
    preflight(function(WARNED["random in Python"]), data)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_an_odd_number_of_datums(data: list[Datum]) -> None:
    case = Broken("return pairwise_preference_loss(data, logprobs_list)", "", "", "")
    assert preflight(function(case), data).ok
    line = only(preflight(function(case), data[:7]), "fail")
    assert (line.name, line.fix) == ("pairs", "give both sides of each pair")
    assert line.message.startswith("7 datums, an odd number: DataError: got 7 datums")


def test_wrong_arity(data: list[Datum]) -> None:
    line = only(preflight(lambda data: None, data), "fail")
    assert "takes 1 positional argument but 2 were given" in line.message
    assert "define it as (data, logprobs_list)" in line.fix


# -- losses that do not return -----------------------------------------------------------------------------------------

ENDLESS = {
    "a loop": "while True:\n    pass",
    "a loop that holds on": "while True:\n    try:\n        time.time()\n    except Exception:\n        pass",
    "a loop that swallows everything": "while len(kept) < 2:\n    try:\n        time.time()\n    except:\n        pass",
    "a loop in torch": "x = torch.zeros(4)\nwhile True:\n    x = x + 1",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loss_that_never_returns_is_cancelled(data: list[Datum], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    swallows = name == "a loop that swallows everything"
    monkeypatch.setattr("mint_lab.usercode.guarded_call.CANCEL_TIMEOUT_SECONDS", 0.05 if swallows else TIMEOUT)
    fn = function(Broken(ENDLESS[name], "", "", ""))
    report = preflight(fn, data, limit=0.3)
    line = only(report, "fail")
    assert line.name == "time"
    assert line.message.startswith("did not return within 0.3 s (it was at line ")
    # A bare except catches the exception where it stands inside of the try, which is chance.
    assert "look for a loop that does not end" in line.fix or (swallows and "its thread ends when that" in line.fix)
    # The next one is checked as if nothing had been.
    assert preflight(function(Broken("return weighted(data, logprobs_list), {}", "", "", "")), data).ok
    fn.__globals__["kept"] += [1, 2]  # the end of the loop that swallows the exception
    until(lambda: not abandoned())


def test_a_loss_stuck_in_c_is_abandoned(data: list[Datum], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint_lab.usercode.guarded_call.CANCEL_TIMEOUT_SECONDS", 0.05)
    body = "kept.append(1)\ngate.acquire()\nkept.append(2)\nreturn weighted(data, logprobs_list), {}"
    fn = function(Broken(body, "", "", ""))
    line = only(preflight(fn, data, limit=0.2), "fail")
    assert "gate.acquire()" in line.message
    assert "its thread ends when that returns" in line.fix
    assert [thread.is_alive() for thread in abandoned()] == [True]
    fn.__globals__["gate"].release()
    until(lambda: not abandoned())
    assert fn.__globals__["kept"] == [1]  # cancelled as soon as it returned from C


def abandoned() -> list[threading.Thread]:
    from mint_lab.usercode.guarded_call import _idle

    return [t for t in threading.enumerate() if t.name == "mint_lab loss" and t not in _idle]


def test_a_slow_loss_is_checked_as_far_as_time_allows(data: list[Datum], monkeypatch: pytest.MonkeyPatch) -> None:
    """A call takes 20 s by the clock of the checks: the fourth begins after 60 s of 60, the fifth would after 80."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    calls: list[float] = []

    def slow(data: Any, logprobs_list: Any) -> Any:
        calls.append(clock.now)
        clock.now += 20.0
        return sum(lp.sum() for lp in logprobs_list), {}

    report = preflight(slow, data, limit=60.0)
    line = only(report, "warn")
    assert (report.ok, line.name) == (True, "time")
    assert line.message == "the limit of 60 s is over; the remaining checks were skipped"
    assert report.reduction is None
    assert calls == [0.0, 20.0, 40.0, 60.0]


def test_a_flood_of_output_is_captured_and_truncated(data: list[Datum], capfd: pytest.CaptureFixture[str]) -> None:
    fn = function(Broken("for i in range(10**6):\n    print(i)\nreturn weighted(data, logprobs_list), {}", "", "", ""))
    report = preflight(fn, data, limit=60.0)
    line = next(line for line in report.lines if line.name == "output")
    assert (line.verdict, line.message) == ("fail", "1,000,000 lines printed in one call")
    assert capfd.readouterr() == ("", "")
    assert len(report.printed.splitlines()) == 50
    assert len(repr(report).splitlines()) < 30


def test_a_satisfied_hinge_and_kinks_are_no_false_alarm(data: list[Datum]) -> None:
    kinks = {
        "abs at 0": "return sum(((lp - lp.detach()).abs() * 0 + lp.abs()).sum() for lp in logprobs_list), {}",
        "relu at 0": "return sum(torch.relu(lp - lp.detach().clone().fill_(-1.0)).sum() + 0.1 * lp.sum()\n"
        "           for lp in logprobs_list), {}",
        "clamp": "return sum(lp.clamp(-1, -0.5).sum() + 0.01 * lp.sum() for lp in logprobs_list), {}",
        "maximum": "return torch.stack([lp.sum() for lp in logprobs_list]).max() + 0.1 * total(logprobs_list), {}",
    }
    import torch

    flat = [torch.full((d.model_input.length,), -1.0) for d in data]  # right on the kinks of three of them
    for body in kinks.values():
        fn = function(Broken(body, "", "", ""))
        for logprobs in (None, flat):
            lines = {x.name: x.verdict for x in preflight(fn, data, logprobs).lines}
            assert lines["numerical gradient"] == "ok", body


def test_no_tensor_of_the_calls_stays_alive(data: list[Datum]) -> None:
    import torch

    fn = function(Broken("return weighted(data, logprobs_list), {}", "", "", ""))
    preflight(fn, data)
    gc.collect()
    before = sum(type(x) is torch.Tensor for x in gc.get_objects())
    preflight(fn, data)
    gc.collect()
    assert sum(type(x) is torch.Tensor for x in gc.get_objects()) <= before


def test_what_the_rows_share_computes_what_it_says(data: list[Datum]) -> None:
    """Sums 1 + 2 + 3; with weights 0 on three positions, the number of the others; x squared with a slope of 1."""
    import torch

    scope: dict[str, Any] = {}
    exec(HEAD, scope)
    assert float(scope["total"]([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])) == 6.0
    ones = [torch.ones(datum.model_input.length) for datum in data]
    assert float(scope["weighted"](data, ones)) == sum(len(one) - 3 for one in ones)
    x = torch.tensor(3.0, requires_grad=True)
    value = scope["Wrong"].apply(x)
    value.backward()
    assert (float(value.detach()), float(x.grad)) == (9.0, 1.0)  # type: ignore[arg-type]
    assert not scope["gate"].acquire(blocking=False), "code that asks for the gate waits"
