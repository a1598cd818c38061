"""The same rules on the real thing: the bundled model behind the local engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.losses import LOSSES
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.runs import Run, load_run

from .conftest import TIMEOUT


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "data": arithmetic_pairs(200),
        "held_out": arithmetic_pairs(40, split="held_out"),
        "batch_size": 16,
        "folder": tmp_path / "run",
    }


def weights(run: Run) -> list[torch.Tensor]:
    return [p.detach().clone() for p in run.client._adapter.parameters.values()]


def test_the_bundled_model_learns(options: dict[str, Any]) -> None:
    run = Run(steps=25, **options)
    run.start()
    assert run.wait(120, check=True)
    last = run.records[-1]
    assert last.held_out["mean_margin"] > run.baseline["mean_margin"] + 0.5
    assert last.held_out["pair_accuracy"] > run.baseline["pair_accuracy"]
    assert set(last.metrics) == {
        *("loss", "pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "grad_norm", "tokens_per_s"),
    }
    assert load_run(run.folder).records == run.records


def test_a_failing_loss_leaves_weights_alone_and_names_the_line(options: dict[str, Any]) -> None:
    calls = iter(range(100))

    def planted(data: Any, logprobs_list: Any) -> Any:
        if logprobs_list[0].requires_grad and next(calls) == 2:
            return 1 / 0, {}
        return pairwise_preference_loss(data, logprobs_list)

    run = Run(loss=planted, steps=4, **options)
    run.step(2)
    assert run.wait(120, check=True)
    before = weights(run)
    run.resume()
    assert run.wait(TIMEOUT)
    assert run.status == "paused"
    assert run.error.message == "planted v1, line 3: ZeroDivisionError: division by zero"
    assert all(torch.equal(a, b) for a, b in zip(before, weights(run), strict=True))
    run.resume()
    assert run.wait(TIMEOUT, check=True)
    assert [r.step for r in run.records] == [1, 2, 3, 4]
    LOSSES._specs.pop("planted")


def test_a_batch_the_engine_refuses_names_the_datum(options: dict[str, Any]) -> None:
    run = Run(loss="hinge", steps=2, **{**options, "data": arithmetic_pairs(16)}).prepare()
    first = run._trainer._order.items(0, 1)[0]  # the batch is all of the data; this pair comes first in it
    rejected = run._trainer.job.pairs[2 * first + 1]
    rejected.model_input.chunks[0].tokens[0] = 10**6
    run.start()
    assert run.wait(TIMEOUT)
    assert run.status == "paused"
    assert run.error.index == 1
    assert "token id 1000000 at position 0" in run.error.message
    assert run.steps_done == 0
