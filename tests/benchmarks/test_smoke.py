"""The benchmarks run, and their figures are plausible; speed is not asserted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mint_lab import tiny

from . import __main__ as bench
from . import memory, page
from .peers import compare
from .peers.agreement import Outcome, Training, agreement, train
from .peers.jobs import Job, Report, Stopwatch
from .timing import alternate


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves sockets open
def test_short_run_writes_table_and_figures(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    result = CliRunner().invoke(bench.app, ["--rounds", "2", "--pairs", "2", "--threads", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    assert rows[0]["what"].startswith("custom loss / built-in loss")
    assert len(rows) == 10
    assert all(0.05 < row["ratio"] < 50 for row in rows)


def test_page_bytes_are_measured(tmp_path: Path) -> None:
    figures = page.bytes_of_an_update((100, 1_000, 3_000))
    update, again, _, ratio, snapshot = figures
    assert 200 < update.value < 2_000
    assert ratio.value == pytest.approx(figures[2].value / update.value)
    assert again.met is None
    assert ratio.met
    assert snapshot.met
    result = CliRunner().invoke(bench.app, ["page", "--parts", "bites", "--out", str(tmp_path / "out.json")])
    assert result.exit_code == 2
    assert "'bites' is none of bytes, tasks, left, speed" in result.output


def test_slope_of_memory_by_hand() -> None:
    """Least squares through (0, 1), (1, 2), (2, 6): covariance 5 over variance 2."""
    assert memory.slope([(0.0, 1.0), (1.0, 2.0), (2.0, 6.0)]) == pytest.approx(2.5)
    found = memory.Soak(steps=4000, slope=3.0, points=[(0.0, 400.0), (4000.0, 412.0)], bytes=9)
    growth, end = memory.figures_of(found)
    assert (growth.value, growth.met, end.value) == (3.0, False, 412.0)
    assert "400 MB" in end.what


def test_memory_is_measured_over_steps_and_over_dropped_workbenches(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    result = CliRunner().invoke(bench.app, ["soak", "--minutes", "0.01", "--steps", "4", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert [figure["unit"] for figure in found["figures"]] == ["MB", "MB"]
    assert 50 < found["figures"][1]["value"] < 20_000
    assert found["points"][-1][0] >= 1
    assert found["bytes"] > 1000
    result = CliRunner().invoke(bench.app, ["soak", "--dropped", "3", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "3 workbenches dropped: " in result.output
    memory_growth, threads = json.loads(out.read_text())["figures"]
    assert abs(memory_growth["value"]) < 50
    assert (threads["what"], threads["value"]) == ("threads more", 0)


def test_variants_alternate() -> None:
    order: list[str] = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"


def test_peers_name_the_missing_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.jsonl.gz")
    result = CliRunner().invoke(bench.app, ["peers", "--pairs", missing, "--prompts", missing])
    assert result.exit_code == 2
    assert "there is no file" in result.output


def _bundled(folder: Path) -> None:
    shutil.copytree(tiny.path(), folder, dirs_exist_ok=True)


@pytest.mark.parametrize("kind", ["preference", "rl"])
def test_our_side_reports_every_step(kind: str, tmp_path: Path) -> None:
    pairs, prompts = tmp_path / "pairs.jsonl", tmp_path / "prompts.jsonl"
    _pairs_file(pairs, 4)
    prompts.write_text("".join(json.dumps({"question": f"What is {k} + 1?"}) + "\n" for k in range(4)))
    folder = tmp_path / "job"
    folder.mkdir()
    compare.prepare(folder, pairs=pairs, prompts=prompts, rows=4, max_length=64, model=_bundled)
    job = Job(kind, str(folder), steps=1, batch=2, samples=2, new_tokens=2, threads=1)
    report = compare.one_side(job, "ours")
    assert len(report.seconds) == len(report.tokens) == 1
    assert len(report.losses) == 2
    assert report.peak_mb >= report.start_mb > 100
    if kind == "preference":  # LoRA starts at B = 0: every margin is 0
        assert report.losses[0] == pytest.approx(0.693147, abs=1e-5)


def _pairs_file(path: Path, rows: int) -> Path:
    lines = [
        {"chosen": f"\n\nHuman: {k}\n\nAssistant: yes", "rejected": f"\n\nHuman: {k}\n\nAssistant: no, {k}"}
        for k in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_our_side_of_a_whole_training(tmp_path: Path) -> None:
    pairs = _pairs_file(tmp_path / "pairs.jsonl", 6)
    sizes = {"train": 4, "held_out": 2, "max_length": 64}
    compare.prepare_training(tmp_path / "data", model=tiny.path(), pairs=pairs, **sizes)
    outcome = train("ours", Training(str(tiny.path()), str(tmp_path / "data"), 0, pairs=4, batch=2, threads=1))
    assert outcome.loss_before == pytest.approx(0.693147, abs=1e-5), "log 2: the policy is the reference"
    assert 0 < outcome.loss < outcome.loss_before
    assert outcome.margin > 0
    with pytest.raises(compare.JobFailed, match="has 6 pairs of at most 64 tokens, the jobs need 7"):
        compare.prepare_training(tmp_path, model=tiny.path(), pairs=pairs, train=5, held_out=2, max_length=64)


def _outcome(side: str, seed: int, number: float) -> Outcome:
    return Outcome(side, seed, 0.7, number, number, number, minutes=1.0, peak_mb=1.0, versions={})


def test_complete_trainings_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def output(python: Path, module: str, arguments: list[str], *rest: Any) -> str:
        asked.append(f"{arguments[0]} {json.loads(arguments[1])['seed']}")
        return json.dumps(vars(_outcome(arguments[0], json.loads(arguments[1])["seed"], 0.5)))

    monkeypatch.setattr(compare, "peer_python", lambda folder: folder)
    monkeypatch.setattr(compare, "_output", output)
    todo = [Training("model", "folder", seed, 8) for seed in range(3)]
    compare.trainings(todo[:2], tmp_path, tmp_path / "outcomes.jsonl")
    assert len(compare.trainings(todo, tmp_path, tmp_path / "outcomes.jsonl")) == 6
    assert asked == ["ours 0", "theirs 0", "ours 1", "theirs 1", "ours 2", "theirs 2"]


def test_agreement_by_hand() -> None:
    numbers = {"ours": (0.1, 0.2, 0.3), "theirs": (0.2, 0.4, 0.6)}
    table = agreement([_outcome(side, k, n) for side, values in numbers.items() for k, n in enumerate(values)])
    # Sample variances 0.01 and 0.04: sqrt(0.05 / 3).
    assert table["loss"] == pytest.approx({"ours": 0.2, "theirs": 0.4, "difference": -0.2, "error": 0.1290994})
    assert agreement([_outcome("ours", 0, 0.5), _outcome("theirs", 0, 0.25)])["accuracy"]["error"] == 0


def test_figure_is_ratio_of_same_step() -> None:
    ours = Report(seconds=[1.0, 2.0], cpu=[2.0, 4.0], tokens=[10, 20], start_mb=100.0, peak_mb=200.0)
    theirs = Report(seconds=[3.0, 6.0], cpu=[4.0, 8.0], tokens=[10, 20], start_mb=100.0, peak_mb=900.0)
    speed, spent, peak, grown = compare.figures(Job("sft", "", 2), [ours], [theirs])
    assert speed.ratio == speed.low == speed.high == pytest.approx(3.0)
    assert speed.met
    assert spent.ratio == pytest.approx(2.0)
    assert peak.ratio == pytest.approx(4.5)
    assert grown.ratio == pytest.approx(8.0)


def test_arithmetic_against_matmul_by_hand() -> None:
    extra = {"arithmetic": [{"flops": 6e9}], "matmul_rates": {"mlp": 4e9, "mlp by processor": 2e9}}
    ours = Report(seconds=[2.0], cpu=[4.0], tokens=[10], start_mb=100.0, peak_mb=200.0, extra=extra)
    theirs = Report(seconds=[2.0], cpu=[4.0], tokens=[10], start_mb=100.0, peak_mb=200.0)
    *_, clock, processor = compare.figures(Job("preference", "", 1), [ours], [theirs])
    assert clock.ratio == pytest.approx(0.75)
    assert processor.ratio == pytest.approx(0.75)


def test_warmup_steps_are_dropped() -> None:
    watch = Stopwatch(warmup=1)
    watch.step_done()
    watch.step_done()
    assert len(watch.seconds) == 1
