"""Kill a run at a random moment, continue it, and compare it with a run that was never interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mint_lab.runs.store import load_run

from ..waiting import until
from .power_cut import CALLS, restore

__all__ = ["Outcome", "calls_of", "contents", "cut_and_continue", "differences", "kill_and_continue", "run_to_end"]

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 1800.0  # of one run on a machine that does much else
TIMES = ("time", "step_time")
MEASURED = ("tokens_per_s", "sampling_time")


@dataclass(frozen=True)
class Outcome:
    """What became of one run that was killed.

    Attributes:
        job: Name of the job.
        killed_after: Records that the folder had when the process was killed.
        differences: Where the continued run differs from the one that was never interrupted; empty if nowhere.
    """

    job: str
    killed_after: int
    differences: list[str]


def start(job: str, folder: Path, steps: int, *cut: object) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.jobs", job, str(folder), str(steps)]
    command += map(str, cut)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def run_to_end(job: str, folder: Path, steps: int) -> None:
    """Run a job, or continue it, to its end.

    Raises:
        AssertionError: If the process failed.
    """
    process = start(job, folder, steps)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]


def kill_and_continue(job: str, folder: Path, reference: dict[str, Any], steps: int, rng: random.Random) -> Outcome:
    """Kill a run once it has a random number of records, and a random while later; then continue it to its end."""
    records = folder / "records.jsonl"
    process = start(job, folder, steps)
    target, spins = rng.randrange(steps), rng.randrange(300_000)

    def is_due() -> bool:
        return process.poll() is not None or (records.exists() and records.read_bytes().count(b"\n") >= target)

    until(is_due, limit=LIMIT_SECONDS)
    for _ in range(spins):  # somewhere inside a step, an evaluation or the writing of a snapshot
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_after = records.read_bytes().count(b"\n") if records.exists() else 0
    try:
        run_to_end(job, folder, steps)
    except AssertionError as error:
        return Outcome(job, killed_after, [str(error)])
    return Outcome(job, killed_after, differences(contents(folder), reference))


def calls_of(job: str, folder: Path, steps: int) -> int:
    """Run a job to its end; return the number of moments at which :func:`cut_and_continue` can cut the power."""
    shadow = folder.with_name(f"{folder.name}-shadow")
    process = start(job, folder / "run", steps, shadow, 0)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    return int((shadow / CALLS).read_bytes())


def cut_and_continue(job: str, folder: Path, reference: dict[str, Any], steps: int, call: int) -> Outcome:
    """Kill a run before a call that flushes or renames, drop what was not flushed, and continue it to its end."""
    shadow, run = folder.with_name(f"{folder.name}-shadow"), folder / "run"
    folder.mkdir(exist_ok=True)
    process = start(job, run, steps, shadow, call)
    _, errors = process.communicate()
    if process.returncode != -signal.SIGKILL:
        return Outcome(job, 0, [f"it was not killed: {errors.decode()[-3000:]}"])
    restore(folder, shadow)
    records = run / "records.jsonl"
    killed_after = records.read_bytes().count(b"\n") if records.exists() else 0
    try:
        run_to_end(job, run, steps)
    except AssertionError as error:
        return Outcome(job, killed_after, [str(error)])
    return Outcome(job, killed_after, differences(contents(run), reference))


def contents(folder: Path) -> dict[str, Any]:
    """Return what two runs must have in common: records without times, the weights of the last snapshot, file names."""
    saved = load_run(folder)
    last = max(path.name for path in (folder / "snapshots").iterdir())
    weights = {
        f"{last}/{name}": (folder / "snapshots" / last / name).read_bytes()
        for name in ("adapter_model.safetensors", "optimizer.safetensors", "trainer.safetensors")
    }
    names = {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))}
    records = {f"record {record.step}": _plain(record.entries()) for record in saved.records}
    return records | weights | names | {"notes": saved.notes, "status": saved.info.status}


def _plain(record: dict[str, Any]) -> str:
    kept = {name: value for name, value in record.items() if name not in TIMES}
    kept["metrics"] = {name: value for name, value in record["metrics"].items() if name not in MEASURED}
    return json.dumps(kept, sort_keys=True)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return what differs, in words."""
    keys = sorted(found.keys() | expected.keys())
    return [
        f"{key}: {str(found.get(key))[:300]} is not {str(expected.get(key))[:300]}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
