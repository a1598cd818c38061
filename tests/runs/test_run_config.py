"""Every setting of a run in one table."""

from __future__ import annotations

from pathlib import Path

from mint_lab.runs import Run, load_run
from mint_lab.runs.early_stopping import EarlyStopping

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT


def test_config_has_every_setting_before_the_start_and_afterwards(tmp_path: Path) -> None:
    early = EarlyStopping(9)
    options = {"tags": ["a", "b", "a"], "description": "A first try.", "early_stopping": early, "max_rows": 18}
    run = Run(
        "preference",
        client=BigramClient(),
        data=letter_pairs(20),
        steps=2,
        batch_size=3,
        folder=tmp_path / "run",
        **options,
    )
    run.start().wait(TIMEOUT)
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
