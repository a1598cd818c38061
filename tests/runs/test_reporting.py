"""Reports to trackers: the numbers of the records, edits and rewinds, and trackers that fail or are slow."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.runs import Comparison, Run
from mint_lab.runs.reporting import metrics_of

from ..waiting import until
from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT
from .continued import close


class Notebook:
    """A tracker that writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def start(self, config: Mapping[str, Any]) -> None:
        self.calls.append(("start", dict(config)))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls.append(("log", step, dict(metrics)))

    def edit(self, step: int, text: str) -> None:
        self.calls.append(("edit", step, text))

    def finish(self, status: str) -> None:
        self.calls.append(("finish", status))

    def names(self) -> list[Any]:
        return [call[:2] if call[0] in ("log", "finish") else call for call in self.calls if call[0] != "start"]


def make(folder: Path, report_to: Any, **options: Any) -> Run:
    given: dict[str, Any] = {"client": BigramClient(), "data": letter_pairs(40), "steps": 4, "batch_size": 4}
    return Run("preference", folder=folder, eval_every=2, report_to=report_to, **given | options)


def test_trackers_get_what_is_recorded(tmp_path: Path) -> None:
    """The evaluation before training is step 0; an edit comes before the first step that uses it."""
    notebook = Notebook()
    run = make(tmp_path / "run", notebook, tags=["a"])
    assert run.step(2).wait(TIMEOUT)
    assert notebook.calls[-1][1] == 2, "a wait returns when the trackers have everything"
    assert run.set(learning_rate=0.25).start().wait(TIMEOUT)
    kind, config = notebook.calls[0]
    assert kind == "start"
    assert config == {**run.config, "folder": str(tmp_path / "run")} | {
        "optimizer/learning_rate": config["optimizer/learning_rate"]
    }
    assert notebook.names() == [
        *(("log", 0), ("log", 1), ("log", 2), ("edit", 3, "learning_rate 0.25")),
        *(("log", 3), ("log", 4), ("finish", "finished")),
    ]
    assert notebook.calls[1][2] == {f"held_out/{name}": value for name, value in run.baseline.items()}
    logged = [call[2] for call in notebook.calls if call[0] == "log"][1:]
    assert logged == [metrics_of(record) for record in run.records]
    assert logged[3]["held_out/loss"] == run.records[3].held_out["loss"]
    assert (logged[2]["loss"], logged[2]["settings/learning_rate"]) == (run.records[2].metrics["loss"], 0.25)
    assert threading.current_thread().name not in notebook.threads
    assert not any(run.name in name for name in notebook.threads), "not the thread that trains"


def test_a_finished_run_can_be_continued_and_opened(tmp_path: Path) -> None:
    notebook = Notebook()
    run = make(tmp_path / "run", [notebook], client=None, steps=2)
    assert run.start().wait(TIMEOUT)
    assert run.set(steps=3).start().wait(TIMEOUT)
    assert [call[0] for call in notebook.calls] == [
        *("start", "log", "log", "log", "finish"),
        *("start", "log", "finish"),
    ]
    run.set(steps=5).step().wait(TIMEOUT)
    later = Notebook()
    opened = Run.open(close(run), data=letter_pairs(40), report_to=later)
    assert opened.start().wait(TIMEOUT)
    assert [call[:2] for call in later.calls if call[0] == "log"] == [("log", 5)]


def test_a_rewind_reports_its_steps_again(tmp_path: Path) -> None:
    notebook = Notebook()
    run = make(tmp_path / "run", notebook, client=None, steps=6)
    assert run.step(4).wait(TIMEOUT)
    run.rewind(2)
    assert run.step(1).wait(TIMEOUT)
    assert notebook.names()[-2:] == [("edit", 2, "rewind to step 2"), ("log", 3)]


class Broken(Notebook):
    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__()
        self._failing, self._error = method, error

    def __getattribute__(self, name: str) -> Any:
        if name in ("start", "log", "edit", "finish") and name == self._failing:
            raise self._error
        return super().__getattribute__(name)


@pytest.mark.parametrize("method", ["start", "log", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("no network\nat all"), SystemExit(3)])
def test_a_tracker_that_fails_costs_one_note(method: str, error: BaseException, tmp_path: Path) -> None:
    broken, other = Broken("", error), Notebook()
    run = make(tmp_path / "run", [broken, other])
    broken._failing = method
    assert run.start().wait(TIMEOUT)
    assert (run.status, run.error, run.steps_done) == ("finished", None, 4)
    failed = [note for note in run.notes if "gets no more reports" in note]
    text = "no network" if isinstance(error, RuntimeError) else "3"
    assert failed == [f"Broken failed and gets no more reports: {type(error).__name__}: {text}"]
    assert other.names()[-1] == ("finish", "finished")


def test_a_slow_tracker_delays_no_step(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(Notebook):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            assert gate.wait(TIMEOUT)
            super().log(step, metrics)

    slow = Slow()
    run = make(tmp_path / "run", slow)
    run.start()
    until(lambda: run.status == "finished")
    assert slow.names() == []
    gate.set()
    assert run.wait(TIMEOUT)
    assert slow.names()[-1] == ("finish", "finished")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wandbb", "report_to is 'wandbb'; expected one of: tensorboard, trackio, wandb; did you mean 'wandb'"),
        (["tensorbord"], "did you mean 'tensorboard'"),
        (3, "report_to is 3, expected a name .* or an object with the methods start, log, edit and finish"),
        (Notebook, "expected a name .* or an object"),
    ],
)
def test_what_is_no_tracker(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "run", given)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package wandb: pip install 'mint_lab\[wandb\]'"):
        make(tmp_path / "run", "wandb")


def test_runs_of_a_comparison_share_no_tracker() -> None:
    with pytest.raises(ConfigError, match="expected names: each run gets its own trackers"):
        Comparison(["simpo", "hinge"], report_to=[Notebook()])
