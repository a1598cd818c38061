"""Requests of a page: what they do to a run, the texts that they ask for, and the replies."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import plotly.io
import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.registry import UnknownNameError
from mint_lab.runs.run import Run
from mint_lab.runs.store import history_frame
from mint_lab.ui.requests import TEXT_REQUESTS, perform, reply_to, requested_text, unknown_request
from tests.ui.scripted import Growing, ScriptedRun, record


def answer(run: Any, request: dict[str, Any]) -> Any:
    return reply_to(request, lambda request: perform(run, request))


# -- requests that change a run ---------------------------------------------------------------------------------------


def test_buttons_call_the_run() -> None:
    run = ScriptedRun(5, rate=1000)
    for kind in ("start", "pause", "resume", "step", "stop"):
        perform(run, {"type": kind})
    assert run.calls == ["start", "pause", "resume", "step", "stop"]


def test_setting_and_loss_are_set() -> None:
    run = ScriptedRun()
    reply = answer(run, {"type": "set", "name": "beta", "value": 2.5, "request": 7})
    assert reply == {"type": "reply", "request": 7, "error": ""}
    assert run.settings["beta"] == 2.5
    perform(run, {"type": "set_loss", "name": "simpo"})
    assert run.loss.name == "simpo"


def test_refused_request_gets_the_reason_and_changes_nothing() -> None:
    run = ScriptedRun()
    reply = answer(run, {"type": "set", "name": "beta", "value": -1, "request": 3})
    assert reply["request"] == 3
    assert "expected a number" in reply["error"]
    assert run.settings["beta"] == 1.0
    assert "unknown loss" in answer(run, {"type": "set_loss", "name": "<img src=x>"})["error"]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"type": "wait"},
        {"type": "__init__"},
        {"type": ["start"]},
        {"type": "set", "value": 1},
        {"type": "set", "name": "beta", "value": "1"},
        {"type": "set", "name": "beta", "value": True},
        {"type": "set", "name": "beta"},
        {"type": "set_loss", "name": None},
        {"type": "tokens"},  # no widget to show them
        {"type": "data"},
    ],
)
def test_malformed_request_is_refused(request_: dict[str, Any]) -> None:
    run = ScriptedRun()
    with pytest.raises(ConfigError):
        perform(run, request_)
    assert run.calls == []


@pytest.mark.parametrize("name", ["self", "loss", "settings", "plan"])
def test_setting_with_the_name_of_an_argument_is_unknown(name: str) -> None:
    error = answer(Run(), {"type": "set", "name": name, "value": 1.0, "request": 1})["error"]
    assert f"unknown setting {name!r}" in error


def test_request_of_tokens_calls_back() -> None:
    requested: list[str] = []
    perform(ScriptedRun(), {"type": "tokens"}, lambda: requested.append("tokens"))
    assert requested == ["tokens"]


def test_request_of_data_is_passed_on_whole() -> None:
    requested: list[Any] = []
    perform(ScriptedRun(), {"type": "data", "row": 7}, None, requested.append)
    assert requested == [{"type": "data", "row": 7}]


# -- replies ----------------------------------------------------------------------------------------------------------


def test_bug_is_replied_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(_: Any) -> None:
        raise KeyError("no such thing \ud83d")

    reply = reply_to({"type": "start", "request": 5}, breaks)
    assert reply == {"type": "reply", "request": 5, "error": "KeyError: 'no such thing \\ud83d'"}
    assert "no such thing" in caplog.text
    assert reply_to({"type": "start", "request": "?"}, lambda _: None)["request"] == 0


def test_name_that_is_not_utf8_comes_back_escaped() -> None:
    error = answer(ScriptedRun(), {"type": "set", "name": "\ud83d", "value": 1.0})["error"]
    assert error.encode("utf-8")


# -- requests of a text -----------------------------------------------------------------------------------------------


@pytest.fixture
def run() -> ScriptedRun:
    run = ScriptedRun(40)
    run.append(*(record(step, 40) for step in range(1, 21)))
    return run


def test_cell_defines_the_loss_under_a_new_name(run: ScriptedRun) -> None:
    cell = requested_text(run, {"type": "cell", "name": "simpo"})
    magic, _, body = cell.partition("\n")
    assert magic == "%%loss my_simpo --from simpo"
    scope: dict[str, object] = {}
    exec(compile(body, "cell", "exec"), scope)
    assert callable(scope["my_simpo"])


def test_csv_has_every_step(run: ScriptedRun) -> None:
    frame = pd.read_csv(io.StringIO(requested_text(run, {"type": "csv"})), index_col=0)
    expected = history_frame(run.records)
    assert list(frame.index) == list(range(1, 21))
    assert set(frame.columns) == set(expected.columns)
    assert frame["loss"].to_list() == expected["loss"].to_list()  # to the last digit


def test_a_step_that_completes_meanwhile_is_left_out_of_the_csv(run: ScriptedRun) -> None:
    expected = requested_text(run, {"type": "csv"})
    run.records = Growing(run.records, record(21, 40), record(22, 40))
    assert requested_text(run, {"type": "csv"}) == expected


def test_figure_is_plotly_json(run: ScriptedRun) -> None:
    figure = plotly.io.from_json(requested_text(run, {"type": "figure"}))
    losses = next(trace for trace in figure.data if trace.name == "training")
    assert list(losses.x) == list(range(1, 21))
    assert list(losses.y) == pytest.approx([r.metrics["loss"] for r in run.records], rel=1e-12)


@pytest.mark.parametrize("kind", ["csv", "figure"])
def test_run_without_steps_has_texts_too(kind: str) -> None:
    text = requested_text(ScriptedRun(), {"type": kind})
    assert text.strip()
    if kind == "figure":
        assert "no steps yet" in str(plotly.io.from_json(text).layout.annotations[0].text)


def test_cell_of_an_unknown_loss_is_refused_with_a_suggestion(run: ScriptedRun) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown loss 'simop'.*simpo"):
        requested_text(run, {"type": "cell", "name": "simop"})
    with pytest.raises(UnknownNameError):
        requested_text(run, {"type": "cell"})


def test_cell_of_a_loss_that_needs_its_surroundings_is_refused(run: ScriptedRun) -> None:
    scale = 2.0

    def inner(data: object, logprobs_list: list[float]) -> tuple[float, dict[str, float]]:
        return scale * sum(logprobs_list), {}

    source = "def inner(data, logprobs_list):\n    return scale * sum(logprobs_list), {}\n"
    LOSSES.register(LossSpec(name="inner", family="custom", fn=inner, source=source))
    with pytest.raises(ConfigError, match="uses scale of a function around it"):
        requested_text(run, {"type": "cell", "name": "inner"})


def test_other_requests_are_not_texts(run: ScriptedRun) -> None:
    assert TEXT_REQUESTS == ("cell", "csv", "figure")
    with pytest.raises(ConfigError, match="unknown request 'picture'"):
        requested_text(run, {"type": "picture"})


def test_reply_repeats_the_number_and_names_a_bug_without_words(caplog: pytest.LogCaptureFixture) -> None:
    """An error without a message is its name alone; the log names the request and has the traceback."""

    def breaks(_: Any) -> None:
        raise RuntimeError

    assert reply_to({"type": "pause", "request": 8}, breaks) == {"type": "reply", "request": 8, "error": "RuntimeError"}
    assert caplog.messages == ["a page's request 'pause' failed"]
    assert caplog.records[0].exc_info is not None
    assert reply_to({"type": "pause"}, lambda _: None) == {"type": "reply", "request": 0, "error": ""}


def test_error_of_a_run_is_utf8_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def refuses(_: Any) -> None:
        raise ConfigError("no \ud83d")

    assert reply_to({"request": 1}, refuses) == {"type": "reply", "request": 1, "error": "no \\ud83d"}
    assert caplog.records == []


def test_unknown_request_is_quoted_up_to_60_characters() -> None:
    assert str(unknown_request("x" * 61)) == f"unknown request {'x' * 60!r}"
    assert str(unknown_request(None)) == "unknown request 'None'"


def test_each_button_is_one_call_without_arguments() -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **options: calls.append((name, args, options))

    run: Any = Recorder()
    for kind in ("start", "pause", "resume", "step", "stop"):
        perform(run, {"type": kind, "name": "beta", "value": 3})
    perform(run, {"type": "set", "name": "beta", "value": 0})
    perform(run, {"type": "set_loss", "name": "simpo", "value": 3})
    assert calls == [
        *((kind, (), {}) for kind in ("start", "pause", "resume", "step", "stop")),
        ("set", (), {"beta": 0}),
        ("set_loss", ("simpo",), {}),
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"type": "set", "name": "beta", "value": "1"}, "beta is '1', expected a number"),
        ({"type": "set", "name": "beta", "value": True}, "beta is True, expected a number"),
        ({"type": "set", "value": 1}, "'set' needs a name, got None"),
        ({"type": "set_loss", "name": ""}, "'set_loss' needs a name, got ''"),
        ({"type": "tokens"}, "unknown request 'tokens'"),
    ],
)
def test_words_of_a_refusal(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        perform(ScriptedRun(), request_)
    assert str(caught.value) == message
