"""The table of runs: what it lists, reads and deletes, and its replies to the page."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mint_lab as ml
from mint_lab.errors import RunError
from mint_lab.recipes.record import Edit
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.folder import RunSummary
from mint_lab.runs.store import RunStore
from mint_lab.ui import run_table as module
from mint_lab.ui.run_table import MAX_TICKED, RunTable, _row, html_of
from tests.ui.pages import Comm, comms
from tests.ui.scripted import record

__all__ = ["comms"]

HOSTILE = "<img src=x onerror=window.hacked=1>"


def write(folder: Path, steps: int = 20, **extra: float) -> None:
    store = RunStore(folder)
    baseline = {"pair_accuracy": 0.5, "loss": float("nan")}
    store.write_info(RunInfo(name=HOSTILE, recipe="preference", steps=40, status="finished", baseline=baseline))
    for step in range(1, steps + 1):
        store.append(record(step, 40, **extra), edits=[Edit(5, "setting", HOSTILE)] if step == 5 else [])
    store.close()


@pytest.fixture
def table(comms: list[Comm], tmp_path: Path) -> Iterator[RunTable]:
    for name in ("a", "b", "c"):
        write(tmp_path / name)
    (tmp_path / "foreign").mkdir()
    table = ml.RunTable(tmp_path)
    yield table
    table.close()


def test_rows_are_the_folders(table: RunTable, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in table.listing["rows"]}
    assert set(rows) == {"a", "b", "c", "foreign"}
    assert (rows["a"]["title"], rows["a"]["steps"], rows["a"]["steps_total"]) == (HOSTILE, 20, 40)
    assert rows["a"]["final"] == pytest.approx(record(20, 40).held_out)
    assert rows["a"]["before"] == {"pair_accuracy": 0.5}
    assert rows["foreign"]["problem"].startswith("holds no run")
    assert repr(table) == f"RunTable({str(tmp_path)!r})"
    assert list(table.to_frame().index) == [row["name"] for row in table.listing["rows"]]
    assert [r.step for r in table.load("a").records] == list(range(1, 21))


def test_folder_need_not_exist_yet(comms: list[Comm], tmp_path: Path) -> None:
    table = RunTable(tmp_path / "runs")
    assert table.listing["rows"] == []
    write(tmp_path / "runs" / "first")
    assert [row["name"] for row in table.refresh().listing["rows"]] == ["first"]
    table.close()


def test_newest_runs_are_listed_and_the_others_counted(
    comms: list[Comm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    for name in ("a", "b", "c"):
        write(tmp_path / name, steps=1)
    table = RunTable(tmp_path)
    assert (len(table.listing["rows"]), table.listing["more"]) == (2, 1)
    table.close()


HUGE = "1" + "0" * 400  # JSON holds it, a float does not


@pytest.mark.parametrize("settings", ["[]", "{", '{"baseline": [1]}', f'{{"steps": {HUGE}}}', '{"steps": null}'])
@pytest.mark.parametrize("line", ['{"step": 21}', "null", '{"step": %s}'])
def test_page_gets_a_reply_whatever_the_files_contain(
    comms: list[Comm], table: RunTable, tmp_path: Path, settings: str, line: str
) -> None:
    (tmp_path / "a" / "run.json").write_text(settings)
    records = tmp_path / "a" / "records.jsonl"
    last = records.read_text().splitlines()[-1]
    huge = last.replace('"step": 20', f'"step": {HUGE}')
    assert huge != last
    records.write_text(records.read_text() + (huge if "%s" in line else line) + "\n")
    table.refresh()
    for number, request in enumerate(({"type": "open", "name": "a"}, {"type": "show", "names": ["a", "b"]})):
        reply = comms[0].ask(request=number, **request)[-1]
        assert (reply["type"], reply["request"]) == ("reply", number)
        assert reply["error"] == ""  # numbers that the page cannot hold are left out, and the rest is drawn


def test_ticked_runs_have_their_curves(comms: list[Comm], table: RunTable) -> None:
    comm = comms[0]
    assert comm.ask(type="show", names=["b", "a"], request=1)[-1]["error"] == ""
    assert [run["name"] for run in table.shown] == ["b", "a"]
    snapshot = table.shown[0]["snapshot"]
    series = {data["name"]: data for data in snapshot["series"]}
    assert struct.unpack("<20d", series["loss"]["steps"]) == tuple(range(1, 21))
    kept = table.shown[1]
    assert comm.ask(type="show", names=["a"], request=2)[-1]["error"] == ""
    assert table.shown == [kept]  # not read again
    assert "has no run 'x'" in comm.ask(type="show", names=["a", "x"], request=3)[-1]["error"]
    assert table.shown == [kept]
    with pytest.raises(RunError, match="9 runs are too many to tell apart"):
        table.show([str(number) for number in range(9)])


def test_open_run_has_its_recorded_state(comms: list[Comm], table: RunTable) -> None:
    assert comms[0].ask(type="open", name="c", request=1)[-1]["error"] == ""
    state = table.opened["snapshot"]["state"]
    assert (state["status"], state["steps_done"], state["steps_total"]) == ("finished", 20, 40)
    assert state["marks"] == [{"step": 5, "kind": "setting", "label": HOSTILE}]
    assert state["baseline"] == {"pair_accuracy": 0.5}
    assert state["histograms"][0]["step"] == 20
    assert table.opened["snapshot"]["charts"][0]["name"] == "loss"
    assert comms[0].ask(type="open", name="", request=2)[-1]["error"] == ""
    assert table.opened is None
    assert "holds no run" in comms[0].ask(type="open", name="foreign", request=3)[-1]["error"]


def test_notes_and_deletions_are_listed_at_once(comms: list[Comm], table: RunTable, tmp_path: Path) -> None:
    comm = comms[0]
    table.show(["a", "b"])
    table._perform({"type": "open", "name": "b"})
    assert comm.ask(type="note", name="a", text=HOSTILE, request=1)[-1]["error"] == ""
    assert next(row for row in table.listing["rows"] if row["name"] == "a")["note"] == HOSTILE
    assert (tmp_path / "a" / "note.txt").read_text() == HOSTILE
    assert comm.ask(type="delete", name="b", request=2)[-1]["error"] == ""
    assert not (tmp_path / "b").exists()
    assert "b" not in [row["name"] for row in table.listing["rows"]]
    assert [run["name"] for run in table.shown] == ["a"]
    assert table.opened is None
    (tmp_path / "a" / "mine.txt").write_text("mine")
    assert (
        "its folder stays, because it also contains mine.txt"
        in comm.ask(type="delete", name="a", request=3)[-1]["error"]
    )
    assert [row["problem"][:12] for row in table.listing["rows"] if row["name"] == "a"] == ["holds no run"]


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "delete", "name": "../a"},
        {"type": "delete", "name": "foreign"},
        {"type": "delete"},
        {"type": "note", "name": "..", "text": "x"},
        {"type": "note", "name": "a", "text": 3},
        {"type": "show", "names": "abc"},
        {"type": "show", "names": [None]},
        {"type": "open", "name": ["a"]},
        {"type": "nonsense"},
        {},
    ],
)
def test_malformed_request_is_refused_and_changes_nothing(
    comms: list[Comm], table: RunTable, tmp_path: Path, request_: dict[str, object]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    (reply,) = [m for m in comms[0].ask(request=7, **request_) if m["type"] == "reply"]
    assert reply["request"] == 7
    assert reply["error"]
    assert sorted(tmp_path.rglob("*")) == before
    comms[0].receive({"content": {"data": {"method": "custom", "content": "no mapping"}}, "buffers": []})


def test_readers_without_a_kernel_get_a_table(table: RunTable) -> None:
    table.note("a", HOSTILE)
    bundle, _ = table._repr_mimebundle_()
    assert "<img" not in bundle["text/html"]
    assert "&lt;img src=x" in bundle["text/html"]
    assert "<td>pair_accuracy</td><td>0.5</td>" in bundle["text/html"]
    assert bundle["text/plain"].startswith("RunTable(")


def summary(**fields: Any) -> RunSummary:
    return RunSummary(**{"name": "a-run", "main": "loss", "steps": 3, "steps_total": 7, **fields})


def test_row_by_hand() -> None:
    """The margin is chosen minus rejected, whatever the loss reports under that name."""
    held_out = {"mean_margin": 9.0, "logps/chosen": -3.0, "logps/rejected": -5.0}
    row = _row(
        summary(
            name="half \ud83d",
            title="a title",
            recipe="sft",
            losses=[f"loss v{i}" for i in range(25)],
            status="finished",
            changed=12.5,
            before={"loss": 2.0},
            final=held_out,
            curve=[2.0, 1.0],
            note="a note",
            problem="half \ud83d",
        )
    )
    assert row == {
        **{
            "name": "half \\ud83d",
            "title": "a title",
            "recipe": "sft",
            "status": "finished",
            "steps": 3,
            "steps_total": 7,
        },
        **{"losses": [f"loss v{i}" for i in range(20)], "changed": 12.5, "before": {"loss": 2.0}},
        **{"final": {**held_out, "mean_margin": 2.0}, "main": "loss", "curve": [2.0, 1.0], "note": "a note"},
        **{"problem": "half \\ud83d"},
    }


def test_table_for_readers_without_a_kernel_by_hand() -> None:
    """One row with numbers, one with a problem; of 53 listed and 4 further runs 50 are shown."""
    good = _row(summary(losses=["dpo v1", "<b> v2"], before={"loss": 0.123456}, note="two\n  lines " + "x" * 200))
    bad = _row(summary(name="bad\u202e", main="", steps=0, steps_total=0, note="hidden", problem="holds no run"))
    text = html_of({"folder": "runs", "rows": [good, bad, *[bad] * 51], "more": 4})
    assert text.startswith(
        "<table><thead><tr><th>run</th><th>losses</th><th>steps</th><th>metric</th><th>before</th><th>final</th>"
        "<th>note</th></tr></thead><tbody><tr><td>a-run</td><td>dpo v1, &lt;b&gt; v2</td><td>3/7</td><td>loss</td>"
        f"<td>0.1235</td><td></td><td>two lines {'x' * 90}</td></tr>"
        "<tr><td>bad⟨U+202E⟩</td><td></td><td>0/0</td><td></td><td></td><td></td><td>holds no run</td></tr><tr>"
    )
    assert text.count("<tr>") == 1 + 50
    assert text.endswith("</tbody></table><p>and 7 more</p>")
    assert html_of({"folder": "runs", "rows": [good] * 50, "more": 0}).endswith("</tbody></table>")


def test_the_same_name_twice_is_one_run_and_eight_are_not_too_many(
    table: RunTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.show(["a", "b", "a"])
    assert [run["name"] for run in table.shown] == ["a", "b"]
    table.show(["c", "a"])
    assert [run["name"] for run in table.shown] == ["c", "a"], "in the order of the request"
    table.show([])
    assert table.shown == []
    read: list[str] = []
    monkeypatch.setattr(table, "_read", lambda name: read.append(name) or {"name": name, "snapshot": {}})
    table.show([str(number) for number in range(MAX_TICKED)])
    assert read == [str(number) for number in range(8)]


def test_run_that_can_no_longer_be_read_is_neither_shown_nor_open(table: RunTable, tmp_path: Path) -> None:
    table.show(["a", "b"])
    table.opened = table._read("b")
    kept = table.shown[0]
    shutil.rmtree(tmp_path / "b")
    assert table.refresh() is table
    assert (table.shown, table.opened) == ([kept], None)
    table.opened = table._read("c")
    table.refresh()
    assert table.opened["name"] == "c"


def test_words_of_a_refusal(comms: list[Comm], table: RunTable) -> None:
    def error(**request: Any) -> str:
        (reply,) = [message for message in comms[0].ask(request=5, **request) if message["type"] == "reply"]
        assert reply["request"] == 5
        return reply["error"]

    assert error(type="note", name="a", text=3) == "the request 'note' has a name, names or a text of the wrong type"
    assert error(type="x" * 70, name=[]).startswith(f"the request {'x' * 60!r} has")
    assert error(type="nonsense") == "unknown request 'nonsense'"
    assert error(type="show", names=[str(i) for i in range(9)]) == (
        "9 runs are too many to tell apart in one chart; tick 8 at most"
    )
    assert error(type="list") == ""


def test_request_to_list_reads_the_folder_again(comms: list[Comm], table: RunTable, tmp_path: Path) -> None:
    write(tmp_path / "d", steps=1)
    assert "d" not in [row["name"] for row in table.listing["rows"]]
    assert comms[0].ask(type="list", request=1)[-1]["error"] == ""
    assert "d" in [row["name"] for row in table.listing["rows"]]
    assert table.listing["folder"] == str(tmp_path)


def test_default_folder_is_that_of_a_run(comms: list[Comm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs" / "mine", steps=1)
    table = RunTable()
    assert [row["name"] for row in table.listing["rows"]] == ["mine"]
    assert repr(table) == "RunTable('runs')"
    table.close()
