"""Sweeps: combinations and their names, settings of loss and run alike, and each run is the run alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mint_lab as ml
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.runs import Comparison, Run
from mint_lab.runs.comparison.grid import grid_variants

from ...waiting import TIMEOUT
from ..bigram import BigramClient, letter_pairs


def grid(given: Any, **options: Any) -> Any:
    return grid_variants(given, **{"recipe": "preference", "loss": "dpo"} | options)


def test_all_combinations_are_named_by_what_differs() -> None:
    variants = grid({"beta": [0.05, 0.1], "steps": [7], "learning_rate": np.array([1e-3, 3e-4])})
    assert [variant.label for variant in variants] == [
        *("beta=0.05 learning_rate=0.001", "beta=0.05 learning_rate=0.0003"),
        *("beta=0.1 learning_rate=0.001", "beta=0.1 learning_rate=0.0003"),
    ]
    assert variants[1].config == {"beta": 0.05}
    assert variants[1].settings == {"steps": 7, "learning_rate": 3e-4}
    losses = grid({"loss": ["dpo", LOSSES["simpo"]], "beta": [1.0, 2.0]}, loss=None)
    assert [variant.label for variant in losses] == ["dpo beta=1", "dpo beta=2", "simpo beta=1", "simpo beta=2"]
    assert [v.label for v in grid({"betas": [(0.9, 0.95), (0.9, 0.99)]})] == ["betas=(0.9, 0.95)", "betas=(0.9, 0.99)"]
    shared = grid({"seed": [0, 1]}, loss_config={"beta": 0.3})
    assert [(variant.config, variant.settings) for variant in shared] == [({"beta": 0.3}, {"seed": s}) for s in (0, 1)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bta": [1, 2]}, r"unknown setting 'bta' of a sweep; expected .*did you mean 'beta'\?"),
        ({"lerning_rate": [1, 2]}, r"did you mean 'learning_rate'\?"),
        ({"group_size": [4, 8]}, "unknown setting 'group_size'"),
        ({"data": [[], []]}, "unknown setting 'data'"),
        ({"beta": 0.1}, "beta is 0.1, expected a list of values"),
        ({"beta": "0.1"}, "beta is '0.1', expected a list of values"),
        ({"beta": []}, r"beta is \[\], expected a list of values"),
        ({"beta": [0.1]}, "the grid has 1 combination, expected two or more"),
        ({}, "the grid is {}, expected a dict"),
        ({"beta": [0.1, 0.1]}, "two runs would have the label 'beta=0.1'"),
        ([("beta", [1])], "the grid is .*, expected a dict"),
    ],
)
def test_grids_that_make_no_sense(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid(given)
    with pytest.raises(ConfigError, match="'beta' is in the grid and in loss_config"):
        grid({"beta": [1, 2]}, loss_config={"beta": 3})
    assert [v.label for v in grid({"group_size": [4, 8]}, recipe="rl", loss=None)] == ["group_size=4", "group_size=8"]


def test_each_run_is_the_run_alone(tmp_path: Path) -> None:
    """Settings of the loss, of the optimizer, and the seed, which changes the held-out split and the batches."""
    options: dict[str, Any] = {"data": letter_pairs(40), "steps": 3, "batch_size": 4, "eval_every": 2}
    variants = grid({"gamma": [0.1, 0.5], "weight_decay": [0.0, 0.2], "seed": [0, 3]}, loss="simpo")
    both = Comparison(variants, clients=BigramClient, folder=tmp_path / "sweep", **options)
    assert both.start().wait(TIMEOUT)
    assert list(both.table().index) == [variant.label for variant in variants]
    for place, variant in enumerate(variants):
        alone = Run(
            "preference",
            "simpo",
            client=BigramClient(),
            loss_config=variant.config,
            folder=tmp_path / f"alone{place}",
            **variant.settings,
            **options,
        )
        assert alone.start().wait(TIMEOUT)
        run = both[variant.label]
        assert torch.equal(run.client.table, alone.client.table)  # type: ignore[union-attr]
        assert [record.held_out for record in run.records] == [record.held_out for record in alone.records]
    tables = [run.client.table for run in both.runs.values()]  # type: ignore[union-attr]
    assert len({float(table.detach().sum()) for table in tables}) == len(tables), "every setting has an effect"


def test_data_that_can_be_read_once_serve_one_preparation(tmp_path: Path) -> None:
    options: dict[str, Any] = {"clients": BigramClient, "folder": tmp_path, "steps": 1, "batch_size": 2}
    with pytest.raises(ConfigError, match="the data are an iterator, which can be read once; give a list"):
        Comparison(grid({"seed": [0, 1]}, loss="simpo"), data=iter(letter_pairs(20)), **options)
    both = Comparison(grid({"beta": [0.1, 1.0]}, loss="simpo"), data=iter(letter_pairs(20)), **options)
    assert both.start().wait(TIMEOUT)


def test_a_sweep_has_the_page_of_a_comparison() -> None:
    shown = ml.sweep({"beta": [0.1, 1.0], "learning_rate": [1e-3]}, loss="dpo", steps=3, data=letter_pairs(20))
    assert list(shown.runs) == ["beta=0.1", "beta=1"]
    run = shown.runs["beta=1"]
    assert (run.loss_config["beta"], run.settings["learning_rate"], run.steps_total) == (1.0, 1e-3, 3)
    shown.close()
    with pytest.raises(ConfigError, match="learning_rate is -1, expected a finite number from 0 up"):
        ml.sweep({"learning_rate": [1e-3, -1]})
