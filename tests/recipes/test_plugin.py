"""A recipe, an option, a metric and a chart that only this file knows, in every part of the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mint_lab as ml
from mint_lab import cli
from mint_lab.charts.chart_spec import ChartSpec
from mint_lab.data import to_datum
from mint_lab.errors import ConfigError
from mint_lab.metrics import MetricSpec, register_metric
from mint_lab.recipes import BatchJob, Measured, Recipe, option
from mint_lab.recipes.record import StepRecord
from mint_lab.runs import Comparison, Run, load_run

from ..runs.bigram import BigramClient
from ..runs.conftest import TIMEOUT, finish
from ..ui.pages import Comm, comms

__all__ = ["comms"]

VOWELS = MetricSpec("vowel_nll", "Mean of -log p over vowels only.", unit="nats a token", range=(0.0, None))


@dataclass(frozen=True)
class SpellOptions:
    """The options of :class:`Spell`."""

    words: int = option(12, "words to train on")

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ConfigError(f"words is {self.words}, expected 1 or more")


class SpellJob(BatchJob):
    """Words; measures the vowels separately."""

    def measure(self, data: list[Any], logprobs: list[torch.Tensor]) -> Measured:
        values = [
            -float(value)
            for datum, row in zip(data, logprobs, strict=True)
            for token, value in zip(datum.loss_fn_inputs["target_tokens"].tolist(), row, strict=True)
            if chr(token) in "aeiou"
        ]
        return Measured({"vowel_nll": sum(values) / max(1, len(values))})


class Spell(Recipe):
    """Learn to spell: the next letter of a word."""

    name = "spell"
    summary = "Learn to spell."
    default_loss = "cross_entropy"
    default_steps = 6
    default_learning_rate = 0.1
    default_data = "a few words"
    charts = ("loss", ChartSpec("vowel_nll", title="vowels"))
    headlines = ("vowel_nll", "loss")
    Options = SpellOptions

    def prepare(
        self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> SpellJob:
        words = data or ["banana", "papaya", "orange", "lemon"] * 9
        datums = [to_datum(tokenizer.encode(word), 1) for word in words]
        return SpellJob(datums[: self.options.words], datums[-4:])

    def advice(self, recent: Sequence[StepRecord]) -> dict[str, str]:
        last = recent[-1]
        return {"vowels": f"vowel_nll is {last.metrics['vowel_nll']:.3g} at step {last.step}" if last.step == 2 else ""}


@pytest.fixture
def spell(monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        def create_lora_training_client(
            self, base_model: str, rank: int = 16, seed: int | None = None, *, lora: None = None
        ) -> BigramClient:
            return BigramClient(seed or 0)

    monkeypatch.setattr("mint_lab.runs.loading.connect", Service)
    register_metric(VOWELS)
    ml.recipe(Spell)


pytestmark = pytest.mark.usefixtures("spell")


def test_run_trains_and_records_the_metric(tmp_path: Path) -> None:
    run = finish(Run("spell", words=8, eval_every=2, folder=tmp_path / "run"))
    assert run.data_sizes == (8, 4)
    assert run.options == {"words": 8}
    assert run.records[-1].metrics["vowel_nll"] < run.records[0].metrics["vowel_nll"]
    assert run.records[-1].held_out["vowel_nll"] < run.baseline["vowel_nll"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"] == {"words": 8}
    assert {record.metrics["vowel_nll"] for record in load_run(tmp_path / "run").records} == {
        record.metrics["vowel_nll"] for record in run.records
    }


def test_run_warns_with_the_advice_of_the_recipe(tmp_path: Path) -> None:
    run = finish(Run("spell", steps=3, folder=tmp_path / "run"))
    expected = f"vowel_nll is {run.records[1].metrics['vowel_nll']:.3g} at step 2"
    assert [expected in record.warnings for record in run.records] == [False, True, False]


def test_options_are_checked_like_the_bundled_ones() -> None:
    with pytest.raises(ConfigError, match="unknown option 'wrods': did you mean words="):
        Run("spell", wrods=3)
    with pytest.raises(ConfigError, match="words is 0, expected 1 or more"):
        Run("spell", words=0)
    with pytest.raises(ConfigError, match="'words' is an option of the spell recipe, and this is sft"):
        Run("sft", words=3)


def test_losses_that_fit_are_decided_by_the_data(comms: list[Comm]) -> None:
    with pytest.raises(ConfigError, match="dpo needs pairs of chosen and rejected"):
        Run("spell", "dpo")
    lab = ml.Workbench("spell")
    reasons = {entry["name"]: entry["reason"] for entry in lab.get_state("snapshot")["snapshot"]["losses"]}
    assert reasons["cross_entropy"] == ""
    assert reasons["dpo"] == "needs pairs of chosen and rejected"
    assert reasons["ppo"] == "needs logprobs and advantages, which this data does not have"
    lab.close()


def test_workbench_shows_its_charts_and_options(comms: list[Comm], tmp_path: Path) -> None:
    lab = ml.Workbench("spell", words=5, folder=tmp_path / "run")
    assert lab.run.start().wait(TIMEOUT)
    snapshot = lab.get_state("snapshot")["snapshot"]
    charts = {chart["name"]: chart for chart in snapshot["charts"]}
    assert list(charts) == ["loss", "vowel_nll"]
    assert charts["vowel_nll"]["title"] == "vowels"
    assert charts["vowel_nll"]["unit"] == "nats a token"
    assert charts["vowel_nll"]["definition"] == VOWELS.definition
    assert "vowel_nll" in {series["name"] for series in snapshot["series"]}
    state = snapshot["state"]
    assert state["data"].endswith("a few words") or "a few words" in state["data"]
    assert state["options"] == [{"name": "words", "value": "5", "doc": "words to train on"}]
    assert state["headlines"] == ["vowel_nll", "loss"]
    lab.close()


def test_figure_has_its_chart(tmp_path: Path) -> None:
    run = finish(Run("spell", folder=tmp_path / "run"))
    titles = [annotation.text for annotation in run.figure().layout.annotations]
    assert "vowels" in titles


def test_comparison_trains_and_draws_it(tmp_path: Path) -> None:
    both = Comparison({"one": "cross_entropy", "two": "cross_entropy"}, recipe="spell", words=4, folder=tmp_path)
    assert both.start().wait(TIMEOUT)
    assert "final/vowel_nll" in both.table().columns
    titles = [annotation.text for annotation in both.figure().layout.annotations]
    assert any("vowels" in str(title) for title in titles)


def test_command_line_trains_it(tmp_path: Path) -> None:
    arguments = ["demo", "--recipe", "spell", "--option", "words=7", "--json", str(tmp_path / "out.json")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["recipe"] == "spell"
    assert report["after"]["vowel_nll"] < report["before"]["vowel_nll"]
    assert "vowel_nll" in result.output
    refused = CliRunner().invoke(cli.app, ["demo", "--recipe", "spell", "--option", "words"])
    assert refused.exit_code == 1
    assert "expected NAME=VALUE" in refused.output


def test_table_of_runs_shows_it(comms: list[Comm], tmp_path: Path) -> None:
    finish(Run("spell", folder=tmp_path / "one"))
    table = ml.RunTable(tmp_path)
    (row,) = table.listing["rows"]
    assert (row["recipe"], row["problem"]) == ("spell", "")
    assert "vowel_nll" in row["final"]
    assert table.to_frame()["final/vowel_nll"].notna().all()
    table.close()
