"""The data of a run for its page: loaded once on a thread, then row by row; refusals, failures and their repair."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint_lab.errors import ConfigError, DataError
from mint_lab.runs import Run
from mint_lab.ui import data_inspection
from mint_lab.ui.data_audit import audit
from mint_lab.ui.data_inspection import DataInspection
from mint_lab.ui.data_messages import DataReport
from tests.ui.scripted import ScriptedRun
from tests.waiting import Gate, until

PAIRS = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n + 2}"} for n in range(12)]


class Shown(list[DataReport]):
    """What was shown, in order."""

    def await_loaded(self) -> DataReport:
        until(lambda: self and self[-1]["status"] != "loading", lambda: f"still {self[-1:]}")
        return self[-1]


def inspected(run: Any) -> tuple[DataInspection, Shown]:
    shown = Shown()
    return DataInspection(run, shown.append), shown


def loaded(**arguments: Any) -> tuple[DataInspection, Shown]:
    inspection, shown = inspected(Run(**arguments))
    inspection.request({"type": "data"})
    assert shown.await_loaded()["status"] == "ready"
    return inspection, shown


def test_report_has_what_the_audit_has() -> None:
    rows = [*PAIRS, PAIRS[3]]
    _, shown = loaded(data=rows, max_length=6)
    assert [report["status"] for report in shown] == ["loading", "ready"]
    found, report = audit(rows, max_length=6, recipe="preference"), shown[-1]
    assert (report["heading"], report["about"], report["problem"]) == (found.summary, found.about, "")
    assert [(entry["name"], entry["value"]) for entry in report["numbers"]] == found.numbers
    assert [entry["message"] for entry in report["findings"]] == [one.message for one in found.findings]
    assert [(entry["name"], tuple(entry["counts"]), entry["limit"]) for entry in report["lengths"]] == [
        (one.name, one.counts, one.limit) for one in found.lengths
    ]
    assert (report["items"], report["item"], report["row"]) == (13, None, None)
    assert report["tokens"] == found.message(found.chosen)


def test_rows_are_shown_in_the_order_of_the_data() -> None:
    """A tenth is held out, and stands at its place among the others."""
    inspection, shown = loaded(data=PAIRS)
    rows: list[int | None] = []
    held_out: list[bool] = []
    for item in range(12):
        inspection.request({"type": "data", "item": item})
        rows.append(shown[-1]["row"])
        held_out.append(shown[-1]["held_out"])
        assert shown[-1]["item"] == item
    assert rows == list(range(12))
    assert sum(held_out) == 1
    inspection.request({"type": "data", "row": 7})
    report = shown[-1]
    tokens = report["tokens"]
    assert (report["item"], report["row"]) == (7, 7)
    assert tokens is not None
    chosen = tokens["rows"][0]
    weights = np.frombuffer(tokens["values"], dtype="<f4")[: chosen["length"]]
    texts = [tokens["texts"][piece] for piece in np.frombuffer(tokens["pieces"], dtype="<i4")[: chosen["length"]]]
    assert "".join(text for text, weight in zip(texts, weights, strict=True) if weight == 1) == " 8<|endoftext|>"
    inspection.request({"type": "data"})
    assert shown[-1]["item"] is None
    assert len(shown) == 2 + 12 + 2, "nothing is loaded again"


def test_rows_of_other_held_out_data_come_last_and_have_their_own_numbers() -> None:
    inspection, shown = loaded(data=PAIRS[:4], held_out=PAIRS[4:7])
    assert (shown[-1]["items"], shown[-1]["has_two_sources"]) == (7, True)
    inspection.request({"type": "data", "row": 1, "held_out": True})
    assert (shown[-1]["item"], shown[-1]["row"], shown[-1]["held_out"]) == (5, 1, True)
    inspection.request({"type": "data", "row": 1})
    assert (shown[-1]["item"], shown[-1]["held_out"]) == (1, False)


def test_items_beyond_the_ends_are_those_at_the_ends() -> None:
    inspection, shown = loaded(data=PAIRS)
    for item, expected in ((-1, 0), (12, 11)):
        inspection.request({"type": "data", "item": item})
        assert shown[-1]["item"] == expected


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"row": 12}, DataError, "datum 12: there is no such row"),
        ({"row": "7"}, ConfigError, "row is '7', expected a whole number"),
        ({"item": 1.5}, ConfigError, "item is 1.5"),
        ({"item": True}, ConfigError, "item is True"),
    ],
)
def test_rows_that_cannot_be_shown_are_refused(request_: dict[str, Any], error: type[Exception], message: str) -> None:
    inspection, shown = loaded(data=PAIRS)
    with pytest.raises(error, match=message):
        inspection.request({"type": "data", **request_})
    assert len(shown) == 2, "the page keeps what it shows"


def test_data_are_loaded_once_and_beside_the_caller() -> None:
    """While the data are read, further requests return at once and start nothing."""
    gate = Gate()
    threads: list[threading.Thread] = []

    def slow() -> Iterator[Any]:
        threads.append(threading.current_thread())
        gate()
        yield from PAIRS

    inspection, shown = inspected(Run(data=slow()))
    inspection.request({"type": "data"})
    inspection.request({"type": "data", "row": 3})
    gate.wait()
    assert [report["status"] for report in shown] == ["loading"]
    gate.open()
    assert shown.await_loaded()["items"] == 12
    assert threads != [threading.current_thread()]
    assert len(threads) == 1


def test_bad_data_are_told_and_read_again_on_request(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    inspection, shown = inspected(Run("sft", data=str(path)))
    inspection.request({"type": "data"})
    report = shown.await_loaded()
    assert report["status"] == "failed"
    assert "rows.jsonl is missing, expected a file" in report["problem"]
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n' * 4)
    inspection.request({"type": "data"})
    assert shown.await_loaded()["status"] == "ready"


def test_failure_that_is_not_of_this_package_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def prepare_data(self) -> Any:
            raise OSError("no such disk")

    inspection, shown = inspected(Broken())
    inspection.request({"type": "data"})
    assert shown.await_loaded()["problem"] == "OSError: no such disk"
    assert "could not be audited" in caplog.text


def test_failure_whose_text_cannot_be_sent_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def prepare_data(self) -> Any:
            raise OSError("half a pair \ud83d")

    # Not through logging: what pytest captures goes from a worker to the main process in UTF-8.
    logged: list[str] = []
    monkeypatch.setattr(data_inspection._log, "exception", lambda text, *_, **__: logged.append(text))
    inspection, shown = inspected(Broken())
    inspection.request({"type": "data"})
    assert shown.await_loaded()["problem"] == "OSError: half a pair \\ud83d"
    assert len(logged) == 1


def test_run_without_data_is_refused() -> None:
    inspection, shown = inspected(ScriptedRun())
    with pytest.raises(ConfigError, match="a ScriptedRun does not show its data"):
        inspection.request({"type": "data"})
    assert shown == []


def test_texts_of_rows_can_be_sent() -> None:
    """A reason for leaving a row out can hold half a surrogate pair, which UTF-8 cannot."""
    rows = [*PAIRS, {"prompt": "x", "chosen": "a", "rejected": "b", "\ud83d": 1, "chosen\ud83d": 2}, {"\ud83d": 1}]
    _, shown = loaded(data=rows, on_bad_row="skip")
    assert "\\ud83d" in "".join(entry["meaning"] for entry in shown[-1]["findings"])
    for entry in shown[-1]["findings"]:
        "".join(map(str, entry.values())).encode()
