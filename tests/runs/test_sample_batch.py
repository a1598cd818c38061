"""The datums on which preflight checks a loss."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.runs import Run, live_runs
from mint_lab.runs.sample_batch import ITEMS, losses_in_use, made_up_data, sample_data, sample_pace
from mint_lab.types import Datum

from .conftest import TIMEOUT, finish


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "_latest_trainer", [])
    monkeypatch.setattr(live_runs, "_live_loops", weakref.WeakSet())


def test_made_up_pairs_satisfy_every_bundled_loss() -> None:
    """Each field has a value per target, 0 on the prompt; log-probabilities are negative on the completion."""
    data = made_up_data()
    assert len(data) == 2 * ITEMS
    for datum in data:
        inputs = {name: tensor.to_numpy() for name, tensor in datum.loss_fn_inputs.items()}
        weights = inputs["weights"]
        for name in ("logprobs", "reference_logprobs", "teacher_logprobs"):
            assert inputs[name].dtype == np.float32
            assert np.array_equal(inputs[name] < 0, weights > 0)
        assert np.array_equal(inputs["advantages"] != 0, weights > 0)
        assert len(weights) == datum.model_input.length
    for chosen, rejected in zip(data[::2], data[1::2], strict=True):  # the pairs share their prompt
        prompt = int((chosen.loss_fn_inputs["weights"].to_numpy() == 0).sum()) + 1
        assert chosen.model_input.to_ints()[:prompt] == rejected.model_input.to_ints()[:prompt]
    for spec in LOSSES.values():
        logprobs = [torch.full((d.model_input.length,), -1.0, requires_grad=True) for d in data]
        loss, _ = spec.bind(spec.config({}))(data, logprobs)
        assert bool(torch.isfinite(loss)), spec.name


def plain(data: list[Datum]) -> list[tuple[list[int], dict[str, list[float]]]]:
    return [(d.model_input.to_ints(), {k: v.to_numpy().tolist() for k, v in d.loss_fn_inputs.items()}) for d in data]


def test_made_up_data_are_always_the_same() -> None:
    assert plain(made_up_data()) == plain(made_up_data())


def test_without_a_run_the_data_are_made_up() -> None:
    assert plain(sample_data(LOSSES["hinge"])) == plain(made_up_data())
    assert sample_pace() is None


def test_data_and_pace_are_those_of_the_latest_run(make_run: Callable[..., Run]) -> None:
    finish(make_run(steps=1))
    latest = make_run(steps=2, batch_size=8)
    assert latest.step().wait(TIMEOUT)
    assert latest.trainer is not None
    data = sample_data(LOSSES["hinge"])
    assert len(data) == 2 * ITEMS
    assert plain(data) == plain(latest.trainer.sample(ITEMS, LOSSES["hinge"]))
    pace = sample_pace()
    assert pace is not None
    assert pace[0] == 16  # datums of eight pairs
    assert 0 < pace[1] < TIMEOUT


def test_client_without_a_reference_model_is_refused(make_run: Callable[..., Run]) -> None:
    finish(make_run(steps=1))
    with pytest.raises(ConfigError, match="reference"):
        sample_data(LOSSES["dpo"])


def test_losses_in_use_are_those_of_running_and_paused_runs(make_run: Callable[..., Run]) -> None:
    run = make_run(loss="hinge", steps=2)
    assert losses_in_use() == set()
    assert run.step().wait(TIMEOUT)
    assert losses_in_use() == {"hinge"}
    run.set_loss("simpo")
    assert losses_in_use() == {"simpo"}
    run.stop()
    assert losses_in_use() == set()
