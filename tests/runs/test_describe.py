"""What is written of a run besides its records: tags, a description, and the table of all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mint_lab as ml
from mint_lab.cli import app
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.errors import ConfigError
from mint_lab.runs import EarlyStopping, Run, load_run
from mint_lab.runs.describe import describe_run
from mint_lab.runs.folder import RunFolder
from mint_lab.runs.loading import ClientModel, DataLimits
from mint_lab.types import GetInfoResponse, ModelData

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT


def make(folder: Path, **options: Any) -> Run:
    given: dict[str, Any] = {"client": BigramClient(), "data": letter_pairs(20), "steps": 2, "batch_size": 3}
    run = Run("preference", folder=folder, **given | options)
    assert run.start().wait(TIMEOUT)
    return run


def test_a_run_is_described_before_it_is_loaded() -> None:
    run = Run("preference", "dpo", steps=9, rank=4, seed=3, loss_config={"beta": 0.3}, learning_rate=2e-4, name="mine")
    given = (Path("rows.jsonl"), arithmetic_pairs(4))
    info = describe_run(run, ClientModel(), given, DataLimits(max_length=64), keep_snapshots=5)
    assert (info.name, info.recipe, info.loss, info.loss_version) == ("mine", "preference", "dpo", 1)
    assert (info.steps, info.steps_done, info.status, info.error) == (9, 0, "ready", None)
    assert (info.rank, info.lora["rank"], info.seed, info.keep_snapshots) == (4, 4, 3, 5)
    assert (info.settings["beta"], info.settings["learning_rate"]) == (0.3, 2e-4)
    assert info.data == {"train": "rows.jsonl", "held_out": None, "in_memory": ["held_out"]}
    assert info.limits == {"max_length": 64, "max_rows": None, "on_bad_row": "raise"}
    assert (info.data_sizes, info.baseline, info.parent) == (None, {}, {})


def test_config_has_every_setting_before_the_start_and_afterwards(tmp_path: Path) -> None:
    early = EarlyStopping(9)
    run = make(tmp_path / "run", tags=["a", "b", "a"], description="A first try.", early_stopping=early, max_rows=18)
    config = run.config
    expected = {
        **{"recipe": "preference", "loss": "pairwise_preference", "loss_version": 1, "loss/beta": 1.0, "steps": 2},
        **{"optimizer/batch_size": 3, "optimizer/schedule": "constant", "optimizer/beta2": 0.95, "seed": 0},
        **{"data/train_items": 16, "data/held_out_items": 2, "data/in_memory": ["train"], "limit/max_rows": 18},
        **{"lora/rank": 16, "early_stopping/patience": 9, "tags": ["a", "b"], "description": "A first try."},
    }
    assert {name: config[name] for name in expected} == expected
    assert config["version/torch"]
    saved = load_run(tmp_path / "run")
    assert saved.config == config | {"early_stopping/higher_is_better": None}
    assert Run("rl", group_size=4).config["option/group_size"] == 4


class Hosted(BigramClient):
    """A client whose model is on a server, as far as it is described there."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def get_info(self) -> GetInfoResponse:
        if isinstance(self.answer, BaseException):
            raise self.answer
        model = ModelData(arch="qwen3", model_name=self.answer[0], tokenizer_id="t")
        return GetInfoResponse(type="get_info", model_data=model, model_id="m", is_lora=True, lora_rank=self.answer[1])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("Qwen/Qwen3-8B", 32), ("Qwen/Qwen3-8B", 32, {})),
        ((None, None), ("mint-tiny", 16, {"rank": 16})),
        (ConnectionError("no network"), ("mint-tiny", 16, {"rank": 16})),
    ],
)
def test_model_and_rank_are_those_of_a_given_client(
    tmp_path: Path, answer: Any, expected: tuple[str, int, Any]
) -> None:
    run = make(tmp_path / "run", client=Hosted(answer))
    info = load_run(tmp_path / "run").info
    assert (info.base_model, info.rank) == expected[:2]
    assert {name: info.lora[name] for name in expected[2]} == expected[2]
    assert bool(info.lora) == bool(expected[2])
    assert (run.config["base_model"], run.config["lora/rank"]) == expected[:2]


def test_rank_of_a_local_client_is_in_the_folder(tmp_path: Path) -> None:
    client = ml.ServiceClient().create_lora_training_client("mint-tiny", rank=3)
    make(tmp_path / "run", client=client, data=arithmetic_pairs(12), base_model="some/other", steps=1)
    info = load_run(tmp_path / "run").info
    assert (info.base_model, info.rank, info.lora["rank"]) == ("mint-tiny", 3, 3)


def test_tags_are_in_the_list_of_runs(tmp_path: Path) -> None:
    make(tmp_path / "one", tags=["dpo", "<b>"], description="[red]one[/red]")
    make(tmp_path / "two")
    frame = RunFolder(tmp_path).to_frame()
    assert frame.loc["one", "tags"] == "dpo, <b>"
    assert frame.loc["one", "description"] == "[red]one[/red]"
    assert frame.loc["two", "tags"] == ""
    shown = CliRunner().invoke(app, ["runs", str(tmp_path)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    (line,) = [line for line in shown.output.splitlines() if " one " in line]
    for text in ("preference", "finished", "2/2", "pair_accuracy", "dpo, <b>", "[red]one[/red]"):
        assert text in line
    tagged = CliRunner().invoke(app, ["runs", str(tmp_path), "--tag", "dpo"], env={"COLUMNS": "200"}).output
    assert " one " in tagged
    assert " two " not in tagged
    assert "no run in" in CliRunner().invoke(app, ["runs", str(tmp_path / "one" / "losses")]).output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tags": "dpo"}, "tags is 'dpo', expected a list of texts"),
        ({"tags": 3}, "tags is 3, expected a list of texts"),
        ({"tags": ["dpo", " "]}, "a tag is ' ', expected a text"),
        ({"tags": [1]}, "a tag is 1, expected a text"),
        ({"description": None}, "description is None, expected a text"),
    ],
)
def test_tags_that_are_no_texts(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run("preference", **given)
