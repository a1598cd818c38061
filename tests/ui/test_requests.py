from __future__ import annotations

from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.runs.run import Run
from mint_lab.ui.requests import perform, reply_to
from tests.ui.scripted import ScriptedRun


def answer(run: Any, request: dict[str, Any]) -> Any:
    return reply_to(request, lambda asked: perform(run, asked))


def test_buttons_reach_the_run() -> None:
    run = ScriptedRun(5, rate=1000)
    for kind in ("start", "pause", "resume", "step", "stop"):
        perform(run, {"type": kind})
    assert run.calls == ["start", "pause", "resume", "step", "stop"]


def test_a_setting_and_a_loss_reach_the_run() -> None:
    run = ScriptedRun()
    assert answer(run, {"type": "set", "name": "beta", "value": 2.5, "request": 7}) == {
        "type": "reply",
        "request": 7,
        "error": "",
    }
    assert run.settings["beta"] == 2.5
    perform(run, {"type": "set_loss", "name": "simpo"})
    assert run.loss.name == "simpo"


def test_a_refusal_is_an_answer_and_changes_nothing() -> None:
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
    ],
)
def test_what_no_page_would_send_is_refused(request_: dict[str, Any]) -> None:
    run = ScriptedRun()
    with pytest.raises(ConfigError):
        perform(run, request_)
    assert run.calls == []


@pytest.mark.parametrize("name", ["self", "loss", "settings", "plan"])
def test_a_setting_that_is_called_like_an_argument_is_an_unknown_one(name: str) -> None:
    error = answer(Run(), {"type": "set", "name": name, "value": 1.0, "request": 1})["error"]
    assert f"unknown setting {name!r}" in error


def test_the_page_gets_an_answer_to_what_went_wrong_in_here(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(_: Any) -> None:
        raise KeyError("no such thing \ud83d")

    reply = reply_to({"type": "start", "request": 5}, breaks)
    assert reply == {"type": "reply", "request": 5, "error": "KeyError: 'no such thing \\ud83d'"}
    assert "no such thing" in caplog.text
    assert reply_to({"type": "start", "request": "?"}, lambda _: None)["request"] == 0


def test_a_name_that_cannot_travel_comes_back_as_one_that_can() -> None:
    error = answer(ScriptedRun(), {"type": "set", "name": "\ud83d", "value": 1.0})["error"]
    assert error.encode("utf-8")
