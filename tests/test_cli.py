"""The command line: what it writes, and that errors are one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from mint_lab import cli
from mint_lab.charts.chart_spec import ChartSpec, charts_of
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.runs import load_run

from .runs.bigram import BigramClient, letter_pairs


class Service:
    """Creates bigram clients, which accept any seed."""

    def create_lora_training_client(
        self, base_model: str, rank: int = 16, seed: int | None = None, *, lora: None = None
    ) -> BigramClient:
        return BigramClient(seed or 0)


@pytest.fixture
def bigram(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with the bigram client and letter pairs, so that only the command itself takes time."""
    monkeypatch.setattr("mint_lab.runs.loading.connect", Service)
    monkeypatch.setattr("mint_lab.recipes.preference.arithmetic_pairs", lambda n, split: letter_pairs(40))


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.mark.usefixtures("bigram")
def test_demo_writes_its_json(tmp_path: Path) -> None:
    result = run(
        "demo", "--steps", 40, "--seed", 3, "--json", tmp_path / "deep" / "out.json", "--folder", tmp_path / "r"
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert report["steps"] == 40
    assert (report["seed"], report["loss"], report["recipe"]) == (3, "pairwise_preference", "preference")
    assert report["after"]["pair_accuracy"] >= report["before"]["pair_accuracy"]
    assert {"pair_accuracy", "mean_margin"} <= set(report["before"]) & set(report["after"])
    recorded = load_run(tmp_path / "r")
    tokens = sum(record.tokens for record in recorded.records)
    assert report["tokens_per_s"] * report["seconds"] == pytest.approx(tokens, rel=0.01, abs=1)
    assert report["steps_per_s"] * report["seconds"] == pytest.approx(40, rel=0.02, abs=0.1)
    assert "torch" in report["versions"]
    assert "40 steps in" in result.output
    assert "\x1b" not in result.output  # no terminal, no bar
    assert len(load_run(tmp_path / "r").records) == 40


@pytest.mark.usefixtures("bigram")
def test_every_held_out_metric_is_reported_in_the_order_of_the_charts(tmp_path: Path) -> None:
    """A loss that reports margin_std has it in the table and in the JSON, after those that charts show."""

    def wide(data: Any, logprobs_list: Any) -> Any:
        loss = -torch.stack([row.sum() for row in logprobs_list]).mean()
        return loss, {"margin_std[x]": 2.0}

    LOSSES.register(LossSpec("wide", "preference", wide, unit="pair"))
    try:
        result = run("demo", "--loss", "wide", "--steps", 2, "--json", tmp_path / "out.json")
    finally:
        LOSSES._entries.pop("wide", None)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    charted = ["pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "loss"]
    for when in ("before", "after"):
        assert [name for name in report[when] if name in charted] == charted
        assert list(report[when])[-1] not in charted
    assert report["after"]["margin_std[x]"] == 2.0
    assert "margin_std[x]" in result.output
    assert "share of pairs" in result.output


def test_progress_shows_as_many_numbers_as_fit() -> None:
    charts = charts_of(["loss", ChartSpec("my_metric"), "pair_accuracy"])
    metrics = {"pair_accuracy": 0.5, "my_metric": 12.3456, "loss": 0.25, "other": 1.0}
    assert cli._numbers(metrics, charts, 80) == "loss 0.25  my_metric 12.3  pair_accuracy 0.5"
    assert cli._numbers(metrics, charts, 30) == "loss 0.25  my_metric 12.3"
    assert cli._numbers(metrics, charts, 25) == "loss 0.25  my_metric 12.3", "25 characters"
    assert cli._numbers(metrics, charts, 24) == "loss 0.25"
    assert cli._numbers(metrics, charts, 3) == ""


@pytest.mark.usefixtures("bigram")
def test_demo_sft(tmp_path: Path) -> None:
    result = run("demo", "--recipe", "sft", "--steps", 5, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["loss"] == "cross_entropy"
    assert report["after"]["nll"] < report["before"]["nll"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_rl_learns_arithmetic(tmp_path: Path) -> None:
    """The bundled model: half of the held-out sums are right before, nine in ten after 60 steps.

    The lesson on policy losses trains with the other losses.
    """
    options = ["--recipe", "rl", "--loss", "ppo", "--seed", 0, "--steps", 60]
    result = run("demo", *options, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["recipe"], report["evaluation"], report["steps"]) == ("rl", "greedy", 60)
    assert report["before"]["reward"] == 0.5
    assert report["after"]["reward"] >= 0.9
    assert report["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "dpoo"], "unknown loss 'dpoo'"),
        (["--recipe", "pref"], "unknown recipe 'pref'"),
        (["--recipe", "sft", "--loss", "hinge"], "hinge needs pairs of chosen and rejected"),
        (["--steps", "1", "--json", "/proc/nope/out.json"], "cannot write /proc/nope/out.json"),
    ],
)
@pytest.mark.usefixtures("bigram")
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    result = run("demo", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("mint-lab: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("group_size=4", {"group_size": 4}),
        ("temperature=0.5", {"temperature": 0.5}),
        ("weights=False", {"weights": False}),
        ("reward=low", {"reward": "low"}),
        ("stop=a=b", {"stop": "a=b"}),
        ("reward=", {"reward": ""}),
        ("max_tokens=None", {"max_tokens": None}),
    ],
)
def test_value_of_an_option_is_a_literal_or_a_text(text: str, options: dict[str, Any]) -> None:
    assert cli._recipe_options(["first=1", text]) == {"first": 1, **options}


@pytest.mark.parametrize("text", ["group_size", "=4", "group size=4", "1a=4"])
def test_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cli._recipe_options([text])
    assert str(caught.value) == f"--option {text!r}: expected NAME=VALUE, for example group_size=4"


def finished(*, seconds: float = 2.0, evaluation: str = "") -> Any:
    """What the report reads of a run: three steps of 10 tokens; the last evaluation is at step 2."""
    held_out = [{"pair_accuracy": 0.25}, {"pair_accuracy": 0.75, "nll": 1.5}, {}]
    records = [SimpleNamespace(tokens=10, held_out=values) for values in held_out]
    return SimpleNamespace(
        recipe="preference",
        loss=SimpleNamespace(name="hinge"),
        base_model="mint-tiny",
        seed=7,
        steps_done=3,
        seconds=seconds,
        records=records,
        baseline={"pair_accuracy": 0.5, "loss": 2.0},
        evaluation=evaluation,
        settings={"beta": 1.0},
    )


def test_report_has_the_last_evaluation_and_speeds() -> None:
    report = cli.demo_report(finished())
    versions = report.pop("versions")
    assert versions["torch"] == torch.__version__
    assert report == {
        "recipe": "preference",
        "loss": "hinge",
        "base_model": "mint-tiny",
        "seed": 7,
        "steps": 3,
        "seconds": 2.0,
        "steps_per_s": 1.5,
        "tokens_per_s": 15.0,
        "before": {"loss": 2.0, "pair_accuracy": 0.5},
        "after": {"pair_accuracy": 0.75, "nll": 1.5},
        "settings": {"beta": 1.0},
    }
    assert list(report["before"]) == ["pair_accuracy", "loss"], "a loss, in its own unit, comes last"
    assert cli.demo_report(finished(seconds=0.0))["steps_per_s"] == 3e9
    assert cli.demo_report(finished(evaluation="greedy"))["evaluation"] == "greedy"


@pytest.mark.parametrize("evaluation", ["", "greedy"])
def test_printed_report_word_for_word(evaluation: str) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    cli._print_report(cli.demo_report(finished(evaluation=evaluation)), console)
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert lines[0] == f"hinge, held-out data{', greedy answers' if evaluation else ''}"
    rows = {cells[0]: cells[1:] for line in lines if len(cells := line.replace("│", " ").split()) > 1}
    assert rows["pair_accuracy"][:2] == ["0.500", "0.750"]
    assert rows["loss"][0] == "2.000"
    assert rows["nll"][0] == "1.500"
    assert lines[-1] == "3 steps in 2.0 s (1.5 steps/s, 15 tokens/s)"


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("demo", "--steps", 0).exit_code == 2
    assert run("demo", "--steps", "many").exit_code == 2
    assert run("dance").exit_code == 2


@pytest.mark.usefixtures("bigram")
def test_failing_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def optim_step(self: Any, adam_params: Any) -> Any:
        raise OSError("the cable is out")

    monkeypatch.setattr(BigramClient, "optim_step", optim_step)
    result = run("demo", "--steps", 3)
    assert result.exit_code == 1
    assert result.stderr == "mint-lab: OSError: the cable is out\n"


@pytest.mark.usefixtures("bigram")
def test_interrupt_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(self: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("mint_lab.runs.run.Run.start", interrupt)
    result = run("demo", "--steps", 3, "--folder", tmp_path / "r")
    assert result.exit_code == 130
    assert result.stderr == "mint-lab: interrupted\n"


def lessons(folder: Path) -> Path:
    folder.mkdir()
    (folder / "01_first_run.ipynb").write_text("one")
    (folder / "02_losses.ipynb").write_text("two")
    (folder / "notes.txt").write_text("not a notebook")
    return folder


def test_notebooks_are_copied_and_not_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = lessons(tmp_path / "source")
    monkeypatch.setattr(cli, "notebooks_dir", lambda: source)
    assert run("notebooks", tmp_path / "mine").output == f"2 notebooks in {tmp_path / 'mine'}\n"
    assert sorted(f.name for f in (tmp_path / "mine").iterdir()) == ["01_first_run.ipynb", "02_losses.ipynb"]
    (tmp_path / "mine" / "01_first_run.ipynb").write_text("edited")
    refused = run("notebooks", tmp_path / "mine")
    assert refused.exit_code == 1
    assert "--force replaces them" in refused.stderr
    assert (tmp_path / "mine" / "01_first_run.ipynb").read_text() == "edited"
    assert run("notebooks", tmp_path / "mine", "--force").exit_code == 0
    assert (tmp_path / "mine" / "01_first_run.ipynb").read_text() == "one"


def test_lab_opens_the_first_lesson_with_further_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = lessons(tmp_path / "installed")
    calls: list[list[str]] = []
    monkeypatch.setattr(cli, "notebooks_dir", lambda: source)
    monkeypatch.setattr("subprocess.call", lambda command: calls.append(command) or 7)
    monkeypatch.chdir(tmp_path)
    assert run("lab", "--no-browser", "--port", 1234).exit_code == 7
    # The lessons are copied from the package into the current folder; edited copies stay unchanged.
    assert calls[0][1:] == [
        *("-m", "jupyterlab", str(Path("mint-lab-notebooks") / "01_first_run.ipynb")),
        *("--no-browser", "--port", "1234"),
    ]
    (tmp_path / "mint-lab-notebooks" / "02_losses.ipynb").write_text("edited")
    run("lab")
    assert (tmp_path / "mint-lab-notebooks" / "02_losses.ipynb").read_text() == "edited"


def test_installed_lessons_are_found_outside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list of installed files leads from site-packages to the shared data of the JupyterLab extension."""
    monkeypatch.setattr(cli, "CHECKOUT_NOTEBOOKS", tmp_path / "notebooks")
    site = tmp_path / "lib" / "site-packages"
    metadata = site / "mint_lab-9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: mint_lab\nVersion: 9\n")
    (metadata / "RECORD").write_text("mint_lab/cli.py,,\n../../share/lessons/01_first_run.ipynb,,\n")
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(ConfigError, match=r"no lessons; install mint_lab from its wheel"):
        cli.notebooks_dir()  # the list names a file that was deleted
    (tmp_path / "share").mkdir()
    expected = lessons(tmp_path / "share" / "lessons")
    assert cli.notebooks_dir() == expected
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first_run.ipynb").write_text("a checkout")
    assert cli.notebooks_dir() == tmp_path / "notebooks"


def test_lab_without_jupyterlab_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("lab")
    assert result.exit_code == 1
    assert "pip install 'mint_lab[notebook]'" in result.stderr


def test_build_tiny_passes_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr("subprocess.call", lambda command: calls.append(command) or 0)
    assert run("build-tiny", "--steps", 5).exit_code == 0
    assert calls[0][1:] == ["-m", "mint_lab.tiny.build", "--steps", "5"]


def test_resume_continues_a_run_to_its_end(tmp_path: Path) -> None:
    from mint_lab.runs import Run, load_run

    begun = Run("preference", steps=4, batch_size=2, eval_every=2, folder=tmp_path / "run")
    begun.step(2).wait()
    begun.stop()
    result = run("resume", tmp_path / "run", "--steps", 3)
    assert result.exit_code == 0, result.output
    assert "pair_accuracy" in result.output
    saved = load_run(tmp_path / "run")
    assert ([record.step for record in saved.records], saved.info.status) == ([1, 2, 3], "finished")
    again = run("resume", tmp_path / "run")
    assert (again.exit_code, "this run is finished" in again.output) == (1, True), again.output
    missing = run("resume", tmp_path / "no")
    assert (missing.exit_code, missing.output.count("\n"), "holds no run" in missing.output) == (1, 1, True)
