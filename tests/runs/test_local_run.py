"""Runs on the bundled model and the local engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.data.pairs import arithmetic_pairs
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
    assert set(last.metrics) >= {
        *("loss", "pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "grad_norm", "tokens_per_s"),
    }
    assert load_run(run.folder).records == run.records


def test_dpo_learns_and_computes_its_reference_once(options: dict[str, Any], monkeypatch: Any) -> None:
    run = Run(loss="dpo", steps=25, **options).prepare()
    sizes: list[int] = []
    inner = run.client.reference_logprobs
    monkeypatch.setattr(run.client, "reference_logprobs", lambda data: sizes.append(len(data)) or inner(data))
    monkeypatch.setattr(run.client, "reference_folder", lambda: options["folder"] / "reference")
    run.start()
    assert run.wait(TIMEOUT * 4, check=True)
    assert sizes == [80, 400]  # the held-out datums for the baseline, then all that the steps will need
    last = run.records[-1]
    assert run.baseline["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert run.baseline["rewards/accuracies"] == 0.5  # nothing is learned yet, so all margins are ties
    assert run.baseline["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last.held_out["rewards/margins"] > 0.1
    assert last.held_out["loss"] < run.baseline["loss"] - 0.05
    assert last.held_out["pair_accuracy"] > run.baseline["pair_accuracy"]
    # An implicit reward is beta = 0.1 times the log-ratio to the reference, which is the model before training.
    rise = last.held_out["mean_margin"] - run.baseline["mean_margin"]
    assert last.held_out["rewards/margins"] == pytest.approx(0.1 * rise, rel=1e-3)


def test_dpo_set_during_a_run_uses_the_model_before_training(options: dict[str, Any]) -> None:
    run = Run(loss="pairwise_preference", steps=30, **options)
    run.step(20)
    assert run.wait(TIMEOUT * 4, check=True)
    assert "rewards/margins" not in run.records[-1].held_out
    run.set_loss("dpo").resume()
    assert run.wait(TIMEOUT * 4, check=True)
    assert [r.loss_name for r in run.records[19:21]] == ["pairwise_preference", "dpo"]
    last = run.records[-1]
    rise = last.held_out["mean_margin"] - run.baseline["mean_margin"]
    assert last.held_out["rewards/margins"] == pytest.approx(0.1 * rise, rel=1e-3)
    assert last.held_out["mean_margin"] > run.records[19].held_out["mean_margin"]


def test_failing_loss_changes_no_weight_and_names_its_line(options: dict[str, Any]) -> None:
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
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert run.error.message == "planted v1, line 3: ZeroDivisionError: division by zero"
    assert all(torch.equal(a, b) for a, b in zip(before, weights(run), strict=True))
    run.resume()
    assert run.wait(TIMEOUT, check=True)
    assert [r.step for r in run.records] == [1, 2, 3, 4]


@pytest.mark.parametrize("recipe", ["preference", "rl"])
def test_refused_update_pauses_and_the_run_continues_at_a_lower_rate(recipe: str, tmp_path: Path) -> None:
    """The batch is the same one again: the run ends with the bits of one that always had the lower rate."""
    options: dict[str, Any] = {"recipe": recipe, "steps": 3, "batch_size": 8, "seed": 1}
    if recipe == "rl":
        options |= {"group_size": 4, "updates_per_rollout": 2, "minibatches": 2}
    run = Run(folder=tmp_path / "refused", learning_rate=1e39, **options)
    run.start()
    run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert run.records == []
    assert "the update was refused: it would set " in str(run.error)
    assert "learning rate 1e+39, grad_norm " in str(run.error)
    before = weights(run)
    run.start()
    run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert all(torch.equal(a, b) for a, b in zip(weights(run), before, strict=True))
    run.set(learning_rate=1e-3)
    run.start()
    assert run.wait(TIMEOUT, check=True)
    twin = Run(folder=tmp_path / "twin", learning_rate=1e-3, **options)
    twin.start()
    assert twin.wait(TIMEOUT, check=True)
    assert run.status == twin.status == "finished"
    assert len(run.records) == 3
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(twin), strict=True))


def test_memory_that_ran_out_is_noted_once(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """16 pairs at a time do not fit, in training and in evaluations; 64 tokens do."""
    from mint_lab.engine.models import BaseModel

    backbone = BaseModel.backbone

    def scarce(self: BaseModel, layout: Any, **settings: Any) -> Any:
        if layout.stored > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return backbone(self, layout, **settings)

    expected = Run(steps=3, **(options | {"folder": options["folder"].with_name("enough")}))
    expected.start()
    assert expected.wait(TIMEOUT, check=True)
    monkeypatch.setattr(BaseModel, "backbone", scarce)
    run = Run(steps=3, **options)
    run.start()
    assert run.wait(TIMEOUT, check=True)
    notes = [note for note in run.notes if "memory ran out" in note]
    assert len(notes) == 1
    assert f"(max_batch_tokens) is now {run.client.max_batch_tokens}" in notes[0]
    assert run.client.max_batch_tokens <= 64
    assert [record.warnings.count(notes[0]) for record in run.records] == [1, 0, 0]
    assert notes[0] in load_run(run.folder).info.notes
    for found, other in zip(run.records, expected.records, strict=True):
        assert found.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-4)


def test_batch_that_the_engine_refuses_names_the_datum(options: dict[str, Any]) -> None:
    run = Run(loss="hinge", steps=2, **{**options, "data": arithmetic_pairs(16)}).prepare()
    first = run._trainer._sampler.items(0, 1)[0]  # the batch is all of the data; this pair comes first in it
    rejected = run._trainer.job.data[2 * first + 1]
    rejected.model_input.chunks[0].tokens[0] = 10**6
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert run.error.index == 1
    assert "token id 1000000 at position 0" in run.error.message
    assert run.steps_done == 0


def test_reinforcement_learning_on_the_bundled_model(tmp_path: Path) -> None:
    """Sampler and trainer run different code on the same weights: ratios are 1 within 1e-5, and nothing is clipped."""
    run = Run("rl", "ppo", steps=8, batch_size=16, kl_to_base=True, eval_every=100, folder=tmp_path / "run")
    run.start()
    assert run.wait(240, check=True)
    assert run.baseline["reward"] == 0.5
    for record in run.records:
        found = record.metrics
        assert max(abs(found[name] - 1) for name in ("ratio/mean", "ratio/min", "ratio/max", "ess")) < 1e-5
        assert found["clip_frac/low"] == found["clip_frac/high"] == found["out_of_range_frac"] == 0
        assert 0 <= found["reward"] <= 1
    assert abs(run.records[0].metrics["kl_base/k1"]) < 1e-6, "before the first update the trainer is the base"
    assert run.records[-1].metrics["kl_base/k3"] > 1e-4
    assert load_run(run.folder).records == run.records


def test_several_updates_clip_on_the_bundled_model(tmp_path: Path) -> None:
    options = {"updates_per_rollout": 4, "group_size": 4, "advantages": "normalised", "learning_rate": 3e-3}
    run = Run("rl", "ppo", steps=4, batch_size=8, eval_every=100, held_out="sort", folder=tmp_path / "r", **options)
    run.start()
    assert run.wait(240, check=True)
    first, *_, last = run.records
    assert first.metrics["clip_frac/low"] + first.metrics["clip_frac/high"] == 0
    assert last.metrics["clip_frac/low"] + last.metrics["clip_frac/high"] > 0
    assert last.metrics["out_of_range_frac"] >= last.metrics["clip_frac/low"] + last.metrics["clip_frac/high"]


def test_clipping_and_warmup_reach_the_optimizer(options: dict[str, Any], monkeypatch: Any) -> None:
    run = Run(steps=3, warmup_steps=2, grad_clip_norm=0.25, learning_rate=1e-3, **options).prepare()
    requests: list[Any] = []
    inner = run.client.optim_step
    monkeypatch.setattr(run.client, "optim_step", lambda adam: requests.append(adam) or inner(adam))
    assert run.step(2).wait(TIMEOUT * 4)
    assert run.set(grad_clip_norm=0.0).step().wait(TIMEOUT)
    assert [(adam.learning_rate, adam.grad_clip_norm) for adam in requests] == [(5e-4, 0.25), (1e-3, 0.25), (1e-3, 0.0)]
    assert [record.settings["grad_clip_norm"] for record in run.records] == [0.25, 0.25, 0.0]
    assert (run.edits[-1].step, run.edits[-1].label) == (3, "grad_clip_norm 0")
