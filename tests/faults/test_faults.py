"""A few runs are killed and continued; ``make faults`` does it a hundred times."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import calls_of, contents, cut_and_continue, differences, kill_and_continue, run_to_end
from .jobs import JOBS
from .power_cut import restore

STEPS = 10


@pytest.mark.slow
@pytest.mark.parametrize(("job", "kills"), [("preference", 1), ("sft", 1), ("rl", 2), ("custom", 2)])
def test_a_killed_run_continues_as_if_nothing_had_happened(job: str, kills: int, tmp_path: Path) -> None:
    run_to_end(job, tmp_path / "reference", STEPS)
    reference = contents(tmp_path / "reference")
    for number in range(kills):
        outcome = kill_and_continue(job, tmp_path / str(number), reference, STEPS, random.Random(number))
        assert outcome.differences == [], f"killed after record {outcome.killed_after}"


@pytest.mark.slow
def test_a_power_cut_loses_no_snapshot(tmp_path: Path) -> None:
    """Before any snapshot, in the middle, and while the last one gets its name."""
    (tmp_path / "reference").mkdir()
    calls = calls_of("preference", tmp_path / "reference", STEPS)
    reference = contents(tmp_path / "reference" / "run")
    completed = []
    for call in (1, calls // 2, calls - 2):
        outcome = cut_and_continue("preference", tmp_path / str(call), reference, STEPS, call)
        assert outcome.differences == [], f"cut before call {call} of {calls}, after record {outcome.killed_after}"
        completed.append(outcome.killed_after)
    assert completed == sorted(completed)
    assert completed[0] == 0 < completed[1], "what was flushed is still there"


def test_a_power_cut_keeps_what_was_flushed(tmp_path: Path) -> None:
    """Content and name are flushed separately: of a file, the name is lost, or the content, or neither."""
    root = tmp_path / "root"
    script = f"""
import os
from pathlib import Path
from tests.faults.power_cut import watch

root = Path({str(root)!r})
watch(root, Path({str(tmp_path / "shadow")!r}), 5)

def flush(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)

(root / "sub").mkdir()
(root / "sub" / "both").write_text("both")
(root / "empty").write_text("content that is lost")
flush(root / "sub" / "both")
flush(root / "sub")
flush(root)
(root / "nameless").write_text("name that is lost")
flush(root / "nameless")
os.replace(root / "nameless", root / "empty")
"""
    root.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL
    restore(root, tmp_path / "shadow")
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == {"sub/both": "both", "empty": ""}


def test_differences_are_named() -> None:
    assert set(JOBS) == {"preference", "sft", "rl", "custom"}
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b: 2 is not 3", "c: None is not 4"]
