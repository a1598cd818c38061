"""Entries of a run's files: what is damaged is left out with the reason, and the rest is read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.recipes.record import Edit, StepRecord
from mint_lab.runs.entries import RunInfo, read_edit, read_evaluation, read_record, read_run_info
from mint_lab.runs.folder import RunFolder
from mint_lab.runs.store import RunStore, load_run

from .test_store import RECORDS, write

# Folders as version 0.1.0 wrote them before pydantic read them: the content of each file, by path.
SAVED_FOLDERS = Path(__file__).with_name("saved_folders.json")


def line(record: StepRecord) -> dict[str, Any]:
    return json.loads(json.dumps(record.entries()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": None}, "step is null, expected a whole number"),
        ({"step": True}, "step is true, expected a whole number"),
        ({"step": "3"}, 'step is "3", expected a whole number'),
        ({"step": 10**400}, f"step is 1{'0' * 39}..., expected a whole number of 64 bits"),
        ({"time": "late"}, 'time is "late", expected a number'),
        ({"tokens": 1.5}, "tokens is 1.5, expected a whole number"),
        ({"loss_name": 3}, "loss_name is 3, expected a text"),
        ({"metrics": None}, "metrics is null, expected an object"),
        ({"metrics": {"loss": "much"}}, 'metrics/loss is "much", expected a number'),
        ({"metrics": {"loss": None}}, "metrics/loss is null, expected a number"),
        ({"metrics": {"loss": True}}, "metrics/loss is true, expected a number"),
        ({"held_out": {"nll": 10**400}}, f"held_out/nll is 1{'0' * 39}..., expected a number"),
        ({"histograms": {"margin": 3}}, "histograms/margin is 3, expected a list"),
        ({"histograms": {"margin": [1, "many"]}}, 'histograms/margin/1 is "many", expected a whole number'),
        ({"warnings": "one"}, 'warnings is "one", expected a list'),
        ({"samples": [3]}, "samples/0 is 3, expected an object"),
        ({"clip": 0.8}, "clip is 0.8, expected a list"),
        ({"clip": [0.8]}, "clip/1 is missing"),
        ({"clip": [0.8, "high"]}, 'clip/1 is "high", expected a number'),
    ],
)
def test_damaged_record_is_left_out_with_the_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write(tmp_path / "run")
    file = tmp_path / "run" / "records.jsonl"
    entry = json.loads(file.read_text().splitlines()[1]) | change
    file.write_text(file.read_text() + json.dumps(entry) + "\n")
    saved = load_run(tmp_path / "run")
    assert saved.records == RECORDS
    assert saved.notes == [f"records.jsonl: line 4 cannot be read ({reason}); it was left out"]
    name = next(iter(change))
    del entry[name]
    file.write_text(json.dumps(entry) + "\n")
    saved = load_run(tmp_path / "run")
    if name in ("step", "time", "tokens", "loss_name"):
        assert saved.notes == [f"records.jsonl: line 1 cannot be read ({name} is missing); it was left out"]
    else:  # fields that records have gained over time
        assert (len(saved.records), saved.notes) == (
            1,
            ["records.jsonl: 1 of 2 steps can be read, the others are missing"],
        )


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("run.json", "[]", "run.json cannot be read (it is [], expected an object); the run's settings are unknown"),
        ("run.json", "[" * 100_000, "run.json cannot be read (it is nested too deeply, expected an object)"),
        ("run.json", '{"baseline": 3}', "run.json: baseline is 3, expected an object; this entry was left out"),
        ("run.json", '{"baseline": {"nll": []}}', "run.json: baseline/nll is [], expected a number; this entry was"),
        ("run.json", '{"seed": 1.5}', "run.json: seed is 1.5, expected a whole number; this entry was left out"),
        (
            "edits.jsonl",
            '{"step": "one"}\n',
            'edits.jsonl: line 1 cannot be read (step is "one", expected a whole number); it was left out',
        ),
        (
            "edits.jsonl",
            '{"step": 1, "kind": "seed", "label": "seed 3"}\n',
            "line 1 cannot be read (kind is \"seed\", expected 'loss', 'reward' or 'setting')",
        ),
        ("losses.jsonl", '{"step": 1, "name": 3}\n', "line 1 cannot be read (name is 3, expected a text)"),
        ("losses.jsonl", '{"step": 1, "name": "x", "version": 1}\n', "line 1 cannot be read (file is missing)"),
        ("losses.jsonl", "[" * 100_000 + "\n", "losses.jsonl: line 1 cannot be read (it is nested too deeply"),
    ],
)
def test_damaged_file_is_noted_and_the_rest_is_drawn(tmp_path: Path, file: str, content: str, note: str) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    saved = load_run(tmp_path / "run")
    assert len(saved.notes) == 1
    assert note in saved.notes[0]
    assert saved.records == RECORDS
    assert len(saved.history) == len(RECORDS)
    assert saved.figure().data


def test_file_that_cannot_be_opened_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run")
    real = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "records.jsonl":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    saved = load_run(tmp_path / "run")
    assert saved.records == []
    assert saved.notes == ["records.jsonl cannot be read ([Errno 13] Permission denied); it was left out"]


def test_fields_of_a_newer_version_are_ignored() -> None:
    record = replace(RECORDS[2], clip=(0.8, 1.2))
    assert read_record(json.dumps(line(record) | {"colour": "red"}).encode()) == record
    edit = {"step": 1, "kind": "loss", "label": "x", "author": {"name": "me"}}
    assert read_edit(json.dumps(edit).encode()) == Edit(1, "loss", "x")
    assert read_run_info(b'{"seed": 3, "place": [1]}') == (RunInfo(seed=3), [])


def test_what_run_json_does_not_say_is_empty_or_0() -> None:
    texts = dict.fromkeys(("name", "recipe", "base_model", "loss", "status", "description"), "")
    numbers = dict.fromkeys(("steps", "steps_done", "rank", "eval_every", "seconds"), 0)
    unknown = dict.fromkeys(("seed", "data_sizes", "error", "keep_snapshots"))
    several = {
        "lora": {},
        "settings": {},
        "options": {},
        "baseline": {},
        "notes": [],
        "versions": {},
        "data": {},
        "limits": {},
        "early_stopping": {},
        "parent": {},
        "tags": [],
    }
    other = {"loss_version": 1, "schedule": "constant", "reference": "start"}
    info, reasons = read_run_info(b"{}")
    assert vars(info) == texts | numbers | unknown | several | other
    assert reasons == []


def test_one_bad_entry_of_run_json_leaves_the_others() -> None:
    content = {"steps": "many", "name": ["x"], "seed": 7, "baseline": {"a": [], "b": []}, "data_sizes": [3], "rank": 8}
    info, reasons = read_run_info(json.dumps(content).encode())
    assert info == RunInfo(seed=7, rank=8)
    assert reasons == [
        'name is ["x"], expected a text',
        'steps is "many", expected a whole number',
        "data_sizes/1 is missing",
        "baseline/a is [], expected a number",
    ]


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    numbers = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "half": 0.5, "whole": 3}
    record = replace(RECORDS[0], metrics=numbers, clip=(0.0, math.inf))
    store = RunStore(tmp_path / "run")
    store.write_info(RunInfo(baseline=numbers))
    store.append(record)
    store.close()
    saved = load_run(tmp_path / "run")
    assert saved.notes == []
    assert saved.records[0].clip == (0.0, math.inf)
    for read in (saved.records[0].metrics, saved.baseline):
        assert math.isnan(read.pop("nan"))
        assert read == {name: value for name, value in numbers.items() if name != "nan"}
        assert [type(value) for value in read.values()] == [float, float, float, int]


def test_half_a_surrogate_pair_comes_back(tmp_path: Path) -> None:
    """JSON holds it, UTF-8 does not, and a loss may report a metric with such a name."""
    record = replace(RECORDS[0], metrics={"\ud83d": 1.0}, warnings=["\ude00"], samples=[{"response": "\ud83d"}])
    store = RunStore(tmp_path / "run")
    store.append(record)
    store.close()
    assert load_run(tmp_path / "run").records == [record]


def test_an_evaluation_needs_no_other_field() -> None:
    found = read_evaluation(b'{"step": 3, "held_out": {"nll": "nan"}, "tokens": "unchecked"}')
    assert found.step == 3
    assert math.isnan(found.held_out["nll"])
    with pytest.raises(ValueError, match=r"held_out/nll is \[\], expected a number"):
        read_evaluation(b'{"held_out": {"nll": []}}')


# -- folders of earlier versions ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name, content in json.loads(SAVED_FOLDERS.read_text(encoding="utf-8")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["preference", "rl"])
def test_folder_of_an_earlier_version_is_read_unchanged(saved_folders: Path, name: str, tmp_path: Path) -> None:
    """What is read is written again word for word, but for fields that the earlier version did not have."""
    saved = load_run(saved_folders / name)
    assert saved.notes == []
    store = RunStore(tmp_path / "copy")
    store.write_info(saved.info)
    for record in saved.records:
        edits, losses = (
            [entry for entry in entries if entry.step == record.step] for entries in (saved.edits, saved.losses)
        )
        store.append(record, edits=edits, losses=losses)
    store.close()
    for file in ("run.json", "records.jsonl", "edits.jsonl", "losses.jsonl"):
        if not (saved_folders / name / file).exists():
            assert not (tmp_path / "copy" / file).exists()
            continue
        before = (saved_folders / name / file).read_text(encoding="utf-8")
        after = (tmp_path / "copy" / file).read_text(encoding="utf-8")
        for new in (
            ', "clip": null',
            ', "schedule": "constant", "steps_total": 0',
            ', "described": {}',
            *(f'  "{name}": {{}},\n' for name in ("lora", "data", "limits", "early_stopping")),
            *('  "keep_snapshots": null,\n', '  "schedule": "constant",\n'),
            *(',\n  "parent": {}', ',\n  "tags": []', ',\n  "description": ""', ',\n  "reference": "start"'),
        ):
            after = after.replace(new, "")
        assert after == before
    for source in (saved_folders / name / "losses").iterdir():
        assert (tmp_path / "copy" / "losses" / source.name).read_text(encoding="utf-8") == source.read_text("utf-8")


def test_folder_of_an_earlier_version_has_the_numbers_of_its_run(saved_folders: Path) -> None:
    run = load_run(saved_folders / "preference")
    assert (run.info.name, run.info.recipe, run.info.seed, run.info.data_sizes) == (
        "old <b>run</b>",
        "preference",
        0,
        (12, 4),
    )
    assert [(record.step, record.loss_version) for record in run.records] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert math.isnan(run.records[0].metrics["never_known"])
    assert run.records[0].metrics["without_end"] == -math.inf
    assert run.records[0].clip is None
    assert [(edit.step, edit.kind, edit.label) for edit in run.edits] == [
        (3, "loss", "Mine v2"),
        (3, "setting", "beta 0.5"),
    ]
    assert [(loss.step, loss.version, loss.config) for loss in run.losses] == [
        (1, 1, {"beta": 1.0}),
        (3, 2, {"beta": 0.5}),
    ]
    assert "def mine_1" in run.losses[0].source
    rl = load_run(saved_folders / "rl")
    assert rl.info.options["group_size"] == 4
    assert rl.records[-1].samples[0]["clipped"] == [False] * 6
    titles = {summary.name: summary for summary in RunFolder(saved_folders).list()}
    assert (titles["rl"].status, titles["rl"].losses, titles["rl"].main) == ("finished", ["ppo v1"], "reward")
    assert titles["preference"].losses == ["Mine v1", "Mine v2"]
