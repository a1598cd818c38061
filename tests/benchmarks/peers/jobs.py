"""A job that both sides read, and the report of a side. Standard library only: both environments import this."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

__all__ = ["Job", "Memory", "Report", "Stopwatch", "read_rows", "reward", "versions"]

Kind = Literal["preference", "sft", "rl"]

MEGABYTE = 1024.0  # kB


@dataclass(frozen=True)
class Job:
    """A job, with the same numbers for both sides.

    Attributes:
        folder: Has ``model/``, ``pairs.jsonl`` (prompt, chosen, rejected) and ``prompts.jsonl`` (prompt).
        steps: Timed steps, after ``warmup`` untimed ones.
        batch: Pairs, sequences or prompts a step.
        samples: Samples of each prompt of an RL step.
        new_tokens: Tokens of each sample.
        micro: Sequences in a micro-batch of the peer; 0 for the whole batch.
        packed: Whether the peer packs without padding, if it can.
    """

    kind: Kind
    folder: str
    steps: int
    warmup: int = 1
    batch: int = 8
    max_length: int = 512
    samples: int = 8
    new_tokens: int = 64
    rank: int = 16
    alpha: int = 32
    beta: float = 0.1
    learning_rate: float = 1e-4
    threads: int = 2
    micro: int = 0
    packed: bool = False

    @classmethod
    def read(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def write(self) -> str:
        return json.dumps(asdict(self))

    @property
    def all_steps(self) -> int:
        return self.steps + self.warmup


@dataclass
class Report:
    """What one process measured.

    Attributes:
        seconds: Wall time of each timed step, from the end of the step before it.
        cpu: Processor seconds of each timed step, all threads, which a busy machine distorts least.
        tokens: Tokens of each timed step's sequences, without padding.
        losses: Loss of every step, warm-up included, as the side itself reports it.
        start_mb: Resident memory before the first step, with model and data loaded.
        peak_mb: Highest resident memory during the steps.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    start_mb: float = 0.0
    peak_mb: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def print(self) -> None:
        """Write the report as the last line of standard output, which :mod:`.compare` reads."""
        sys.stdout.write("\n" + json.dumps(asdict(self)) + "\n")
        sys.stdout.flush()

    @classmethod
    def read(cls, output: str) -> Report:
        return cls(**json.loads(output.strip().splitlines()[-1]))


class Memory:
    """Resident memory of this process, MB. On Linux the peak can be reset; elsewhere it is the whole process's."""

    def __init__(self) -> None:
        self.start = self._status("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> float:
        return self._status("VmHWM")

    @staticmethod
    def _status(name: str) -> float:
        # Not getrusage, if possible: its peak survives exec, so a child would begin with its parent's.
        try:
            found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.M)
        except OSError:
            found = None
        if found:
            return int(found[1]) / MEGABYTE
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (MEGABYTE**2 if sys.platform == "darwin" else MEGABYTE)


class Stopwatch:
    """Seconds from the end of one step to the end of the next, without the first ``warmup`` steps."""

    def __init__(self, warmup: int) -> None:
        self._skip = warmup
        self._last = (time.perf_counter(), time.process_time())
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def step_done(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._skip:
            self._skip -= 1
        else:
            self.seconds.append(now[0] - self._last[0])
            self.cpu.append(now[1] - self._last[1])
        self._last = now


def read_rows(job: Job, name: str) -> list[dict[str, str]]:
    """Rows of ``name`` in the job's folder, as many as its steps take."""
    lines = (Path(job.folder) / name).read_text(encoding="utf-8").splitlines()
    wanted = job.batch * job.all_steps
    if len(lines) < wanted:
        raise SystemExit(f"{name} has {len(lines)} rows, {job.all_steps} steps of {job.batch} need {wanted}")
    return [json.loads(line) for line in lines[:wanted]]


def reward(tokens: Sequence[int]) -> float:
    """A cheap reward with some spread: the share of even token ids. Random weights write no text worth judging."""
    return sum(t % 2 == 0 for t in tokens) / max(len(tokens), 1)


def versions(*names: str) -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3])), "cores": str(os.cpu_count())}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
