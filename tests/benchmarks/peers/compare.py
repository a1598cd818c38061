"""Alternating blocks of both sides, so that a machine that slows down slows both; ratios of the same step."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engine import medium_model
from .agreement import Outcome, Training
from .environment import ROOT, peer_python
from .jobs import Job, Report

__all__ = ["Figure", "JobFailed", "compare", "figures", "one_side", "prepare", "prepare_training", "trainings"]

# Largest relative difference of the first losses, which are the same sums in another order.
MAX_LOSS_DIFFERENCE = 2e-3


class JobFailed(RuntimeError):
    """A side's process ended with an error, or the two sides did different jobs."""


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``ratio`` is how many times better ours is, ``low`` and ``high`` its quartiles."""

    what: str
    ours: str
    theirs: str
    ratio: float
    low: float
    high: float
    target: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.target


def prepare(
    folder: Path,
    *,
    pairs: Path,
    prompts: Path,
    rows: int,
    max_length: int,
    model: Callable[[Path], object] = medium_model,
) -> None:
    """Write the model (saved by ``model``) and the data of all jobs: seeded rows, and pairs that fit ``max_length``.

    Longer pairs are left out, because the two engines truncate them differently.
    """
    (folder / "model").mkdir()
    model(folder / "model")
    fit = _fitting(folder / "model", pairs, rows, max_length)
    questions = [json.loads(line)["question"] for line in prompts.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(questions)
    _write(folder / "pairs.jsonl", fit)
    _write(folder / "prompts.jsonl", [{"prompt": f"Question: {q}\nAnswer:"} for q in questions[:rows]])


def prepare_training(folder: Path, *, model: Path, pairs: Path, train: int, held_out: int, max_length: int) -> None:
    """Write the pairs to train on and the pairs to hold out: seeded rows that fit ``max_length``."""
    fit = _fitting(model, pairs, train + held_out, max_length)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.jsonl", fit[:train])
    _write(folder / "held_out.jsonl", fit[train:])


def _fitting(model: Path, pairs: Path, rows: int, max_length: int) -> list[dict[str, Any]]:
    """Return the first ``rows`` of the shuffled pairs that fit ``max_length`` in the model's tokens."""
    from transformers import AutoTokenizer

    import mint_lab as ml

    tokenizer = AutoTokenizer.from_pretrained(model)
    found = ml.data.load_pairs(pairs)
    random.Random(0).shuffle(found)
    fit: list[dict[str, Any]] = []
    for pair in found:
        longest = max(len(ml.data.encode(tokenizer, pair.prompt, text)[0]) for text in (pair.chosen, pair.rejected))
        if longest <= max_length:
            fit.append(asdict(pair))
        if len(fit) == rows:
            return fit
    raise JobFailed(f"{pairs} has {len(fit)} pairs of at most {max_length} tokens, the jobs need {rows}")


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def compare(jobs: Sequence[Job], venv: Path, blocks: int) -> tuple[list[Figure], dict[str, Any]]:
    """Run each job on both sides, in ``blocks`` alternating blocks, and return the figures and all measurements.

    Raises:
        NoPeer: If TRL cannot be installed.
        JobFailed: If a side failed, or the first losses differ.
    """
    python = peer_python(venv)
    found: list[Figure] = []
    raw: dict[str, Any] = {}
    for job in jobs:
        ours: list[Report] = []
        theirs: list[Report] = []
        for _ in range(blocks):
            ours.append(_run(Path(sys.executable), "ours", job))
            theirs.append(_run(python, "theirs", job))
        if job.kind != "rl" and abs(ours[0].losses[0] - theirs[0].losses[0]) > MAX_LOSS_DIFFERENCE * abs(
            theirs[0].losses[0]
        ):
            raise JobFailed(f"{job.kind}: first loss {ours[0].losses[0]:.5f}, TRL's {theirs[0].losses[0]:.5f}")
        name = _name(job)
        raw[name] = {"job": asdict(job), "ours": [asdict(r) for r in ours], "theirs": [asdict(r) for r in theirs]}
        found += figures(job, ours, theirs)
    return found, raw


def one_side(job: Job, side: str, venv: Path | None = None) -> Report:
    """Run one side alone, for profiling and for tests."""
    return _run(Path(sys.executable) if side == "ours" else peer_python(venv or Path()), side, job)


def trainings(
    todo: Sequence[Training], venv: Path, out: Path, report: Callable[[Outcome], object] = lambda outcome: None
) -> list[Outcome]:
    """Run each training on both sides; ``out`` has a line for each that is complete, and those are not run again.

    Raises:
        NoPeer: If TRL cannot be installed.
        JobFailed: If a side failed.
    """
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    found = [Outcome(**json.loads(line)) for line in lines]
    done = {(outcome.side, outcome.seed) for outcome in found}
    pythons = {"ours": Path(sys.executable), "theirs": peer_python(venv)}
    for training in todo:
        for side, python in pythons.items():
            if (side, training.seed) not in done:
                arguments = [side, json.dumps(asdict(training))]
                what = f"seed {training.seed}, {side}"
                output = _output(python, "agreement", arguments, training.threads, training.folder, what)
                found.append(Outcome(**json.loads(output.strip().splitlines()[-1])))
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found[-1])) + "\n")
                report(found[-1])
    return found


def _run(python: Path, side: str, job: Job) -> Report:
    return Report.read(_output(python, side, [job.write()], job.threads, job.folder, f"{job.kind}, {side}"))


def _output(  # noqa: PLR0917 - a process and what to call it
    python: Path, module: str, arguments: list[str], threads: int, folder: str, what: str
) -> str:
    """Run a module of this package in a process of its own and return its standard output."""
    quiet = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": f"{folder}/datasets",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [python, "-m", f"tests.benchmarks.peers.{module}", *arguments],
        cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise JobFailed(f"{what}: the process ended with {done.returncode}:\n{last}")
    return done.stdout


def _name(job: Job) -> str:
    extra = (", padding-free" if job.packed else "") + (f", accumulating by {job.micro}" if job.micro else "")
    return f"{job.kind}{extra}"


def figures(job: Job, ours: list[Report], theirs: list[Report]) -> list[Figure]:
    """Return the speed of the same step on both sides, and the highest memory peak of each side."""
    a, b = [s for r in ours for s in r.seconds], [s for r in theirs for s in r.seconds]
    speed, memory, unit, what = {
        "preference": (5.0, 4.0, "pairs/s", "preference step (DPO)"),
        "sft": (2.0, 0.0, "tokens/s", "SFT step"),
        "rl": (4.0, 4.0, "s a step", "RL step (sample, then update)"),
    }[job.kind]
    if job.packed:
        what += ", TRL padding-free"
    if job.micro:
        what += f", TRL by {job.micro}"
    tokens = [t for r in ours for t in r.tokens]
    work = {"preference": [job.batch] * len(a), "sft": tokens, "rl": [1] * len(a)}[job.kind]
    shown = [_rate(s, w, invert=job.kind == "rl") for s, w in ((a, work), (b, work))]
    low, middle, high = _quartiles([y / x for x, y in zip(a, b, strict=True)])
    found = [Figure(f"{what}: {unit}", shown[0], shown[1], middle, low, high, speed)]
    spent = [[s for r in side for s in r.cpu] for side in (ours, theirs)]
    low, middle, high = _quartiles([y / x for x, y in zip(*spent, strict=True)])
    shown = [f"{statistics.median(side):.3g}" for side in spent]
    found.append(Figure(f"{what}: processor seconds", shown[0], shown[1], middle, low, high, 0.0))
    peaks = [max(r.peak_mb for r in side) for side in (ours, theirs)]
    grown = [max(r.peak_mb - r.start_mb for r in side) for side in (ours, theirs)]
    for label, (x, y) in (("peak memory of the process", peaks), ("  of it above the loaded model", grown)):
        ratio = y / max(x, 1e-9)
        found.append(Figure(f"{what}: {label}", f"{x:.0f} MB", f"{y:.0f} MB", ratio, ratio, ratio, memory))
    if job.kind == "preference":
        found += _against_matmul(ours)
    return found


def _against_matmul(ours: list[Report]) -> list[Figure]:
    """Compare the arithmetic of a step with the rate at which the same process multiplies matrices of these shapes.

    By wall time, and by processor time, which a busy machine does not affect but which does not see an idle core.
    """
    found: list[Figure] = []
    for label, clock, limit in (("", "seconds", "mlp"), (", by processor time", "cpu", "mlp by processor")):
        done = [
            (a["flops"] / s, r.extra["matmul_rates"][limit])
            for r in ours
            for a, s in zip(r.extra["arithmetic"], getattr(r, clock), strict=True)
        ]
        low, middle, high = _quartiles([rate / most for rate, most in done])
        rate, most = (statistics.median(column) / 1e9 for column in zip(*done, strict=True))
        what = f"arithmetic of that step / matrix multiplication{label}"
        found.append(Figure(what, f"{rate:.0f} GFLOP/s", f"{most:.0f} GFLOP/s", middle, low, high, 0.6))
    return found


def _rate(seconds: list[float], work: Sequence[float], *, invert: bool) -> str:
    values = [s / w if invert else w / s for s, w in zip(seconds, work, strict=True)]
    low, middle, high = _quartiles(values)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
