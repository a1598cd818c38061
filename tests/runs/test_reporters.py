"""The trackers with their real packages, offline: what each library reads back are the numbers of the records."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mint_lab.runs import Run
from mint_lab.runs.reporters import REPORTERS, Reporter, TrackioReporter, WandbReporter
from mint_lab.runs.reporting import metrics_of

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT

# What the libraries do at import and at exit is theirs.
pytestmark = pytest.mark.filterwarnings("default")


def trained(folder: Path, report_to: Any) -> Run:
    """Four steps, an edit before the third, and a fifth step after the run had finished."""
    run = Run(
        "preference",
        client=BigramClient(),
        data=letter_pairs(40),
        folder=folder,
        report_to=report_to,
        tags=["first"],
        **{"steps": 4, "batch_size": 4, "eval_every": 2, "learning_rate": 0.05},
    )
    assert run.step(2).wait(TIMEOUT)
    assert run.set(learning_rate=0.25).start().wait(TIMEOUT)
    assert run.set(steps=5).start().wait(TIMEOUT)
    assert not [note for note in run.notes if "failed" in note], run.notes
    return run


def assert_same_numbers(found: dict[int, dict[str, float]], run: Run) -> None:
    """Every number of every record; TensorBoard keeps 32 bits."""
    for record in run.records:
        expected = metrics_of(record)
        ours = {name: found[record.step][name] for name in expected}
        assert ours == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert found[0]["held_out/loss"] == pytest.approx(run.baseline["loss"], rel=1e-6)


def test_reporters_have_the_methods_of_the_protocol() -> None:
    assert all(isinstance(kind(), Reporter) for kind in REPORTERS.values())


def test_tensorboard_reads_the_numbers_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'mint_lab[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    assert_same_numbers(found, run)
    texts = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    (edit,) = texts["edits/text_summary"]
    assert (edit.step, edit.tensor_proto.string_val[0].decode()) == (3, "learning_rate 0.25")
    config = texts["config/text_summary"][0].tensor_proto.string_val[0].decode()
    assert "| recipe | preference |" in config
    assert texts["status/text_summary"][-1].tensor_proto.string_val[0] == b"finished"


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: LevelDB's log format after a header of 7 bytes.

    Blocks of 32768 bytes hold chunks of a checksum (4 bytes), a length (2) and a kind (1): whole, first, middle, last.
    """
    assert content.startswith(b":W&B")
    place, record = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_has_the_numbers_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'mint_lab[wandb]'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    run = trained(tmp_path / "run", WandbReporter("tests", mode="offline"))
    found: dict[int, dict[str, float]] = {}
    config: dict[str, Any] = {}
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                row = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
                numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float | str)}
                found.setdefault(int(row["step"]), {}).update(numbers)
            updates = record.run.config.update if record.HasField("run") else record.config.update
            config |= {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in updates}
    assert_same_numbers(found, run)
    assert config["recipe"] == "preference"
    assert config["edits"] == ["step 3: learning_rate 0.25"]


def test_trackio_has_the_numbers_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio", reason="trackio is not installed: pip install 'mint_lab[trackio]'")
    from trackio.sqlite_storage import SQLiteStorage

    for module in (trackio, __import__("trackio.sqlite_storage"), __import__("trackio.utils")):
        if hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    run = trained(tmp_path / "run", TrackioReporter("tests"))
    (name,) = SQLiteStorage.get_runs("tests")
    found: dict[int, dict[str, float]] = {}
    edits = []
    for row in SQLiteStorage.get_logs("tests", name):
        numbers = {key: float(v) for key, v in row.items() if isinstance(v, int | float)}
        found.setdefault(int(row["step"]), {}).update(numbers)
        edits += [(row["step"], row["edit"])] if "edit" in row else []
    assert_same_numbers(found, run)
    assert edits == [(3, "learning_rate 0.25")]
    assert not math.isnan(found[5]["loss"])
