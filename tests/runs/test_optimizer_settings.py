"""Settings of the optimizer and of a step's size, against torch's AdamW and against larger batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.recipes.job import ShuffledSampler
from mint_lab.runs import Run, load_run

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT


def trained(folder: Path, **settings: Any) -> Run:
    given: dict[str, Any] = {"steps": 4, "batch_size": 4, "learning_rate": 0.05, "eval_every": 2} | settings
    run = Run(client=BigramClient(), data=letter_pairs(40), held_out=letter_pairs(8), folder=folder, **given)
    assert run.start().wait(TIMEOUT)
    return run


def table(run: Run) -> torch.Tensor:
    return run.client.table.detach()  # type: ignore[union-attr]


def test_settings_are_those_of_torch_adamw(tmp_path: Path) -> None:
    """The gradients of the run's batches in torch's own AdamW, with the rates written out; wd and betas change once."""
    run = Run(
        client=BigramClient(),
        data=letter_pairs(40),
        held_out=letter_pairs(8),
        folder=tmp_path / "run",
        **{"steps": 4, "batch_size": 4, "learning_rate": 0.08, "schedule": "linear", "weight_decay": 0.2},
        betas=(0.7, 0.8),
        adam_eps=1e-6,
    )
    assert run.step(2).wait(TIMEOUT)
    assert run.set(weight_decay=0.4, beta2=0.9).start().wait(TIMEOUT)
    weights = BigramClient()
    optimizer = torch.optim.AdamW([weights.table], lr=0.08, betas=(0.7, 0.8), eps=1e-6, weight_decay=0.2)
    job, sampler = run.trainer.job, ShuffledSampler(40, 0)  # type: ignore[union-attr]
    for number, rate in enumerate((0.06, 0.04, 0.02, 0.0)):
        (group,) = optimizer.param_groups
        group["lr"] = rate
        if number == 2:
            group["weight_decay"], group["betas"] = 0.4, (0.7, 0.9)
        batch = job.batch(sampler.items(4 * number, 4))  # type: ignore[attr-defined]
        optimizer.zero_grad()
        pairwise_preference_loss(batch, weights._logprobs(batch))[0].backward()
        optimizer.step()
    torch.testing.assert_close(table(run), weights.table.detach(), atol=1e-7, rtol=0)
    assert [record.metrics["learning_rate"] for record in run.records] == pytest.approx([0.06, 0.04, 0.02, 0.0])
    assert [edit.label for edit in run.edits] == ["weight_decay 0.4", "beta2 0.9"]
    saved = load_run(tmp_path / "run")
    assert (saved.info.schedule, saved.info.settings["weight_decay"], saved.info.settings["beta1"]) == (
        "linear",
        0.4,
        0.7,
    )
    assert [record.settings["beta2"] for record in saved.records] == [0.8, 0.8, 0.9, 0.9]


def test_a_constant_rate_is_no_metric(tmp_path: Path) -> None:
    assert "learning_rate" not in trained(tmp_path / "run", steps=1).records[0].metrics


@pytest.mark.parametrize("loss", ["pairwise_preference", "simpo"])
def test_accumulated_batches_are_one_larger_batch(tmp_path: Path, loss: str) -> None:
    """Three batches of four: the gradient is the mean of theirs, and a step is one optimizer step."""
    run = trained(tmp_path / "run", loss=loss, accumulate=3)
    whole = trained(tmp_path / "whole", loss=loss, batch_size=12)
    assert torch.equal(table(run), table(whole))
    for ours, theirs in zip(run.records, whole.records, strict=True):
        assert (ours.tokens, ours.held_out) == (theirs.tokens, theirs.held_out)
        assert ours.metrics["loss"] == theirs.metrics["loss"]
        assert (ours.settings["batch_size"], ours.settings["accumulate"]) == (4, 3)
    # The first step by hand: the mean of three gradients.
    job, sampler, fn = run.trainer.job, ShuffledSampler(40, 0), run.loss.bind(run.loss_config)  # type: ignore[union-attr]
    weights, gradients = BigramClient(), []
    for start in (0, 4, 8):
        batch = job.batch(sampler.items(start, 4))  # type: ignore[attr-defined]
        gradients += torch.autograd.grad(fn(batch, weights._logprobs(batch))[0], weights.table)
    assert run.records[0].metrics["grad_norm"] == pytest.approx(float(sum(gradients).norm() / 3), abs=1e-6)  # type: ignore[union-attr]


def test_accumulate_can_be_edited(tmp_path: Path) -> None:
    run = Run(client=BigramClient(), data=letter_pairs(40), steps=3, batch_size=4, folder=tmp_path / "run")
    assert run.step().wait(TIMEOUT)
    assert run.set(accumulate=2).start().wait(TIMEOUT)
    sizes = [len(batch) // 2 for batch in run.client.batches]  # type: ignore[union-attr]
    assert sizes == [4, 8, 8]


def test_accumulated_prompts_are_one_rollout(tmp_path: Path) -> None:
    data = [{"prompt": f"{chr(97 + k)}:", "answer": "y"} for k in range(12)]
    options: dict[str, Any] = {"recipe": "rl", "data": data, "held_out": data, "group_size": 3, "max_tokens": 2}
    options |= {"reward": lambda response_text, example: float(len(response_text) % 2), "steps": 2}
    ours = Run(client=BigramClient(), batch_size=2, accumulate=2, folder=tmp_path / "ours", **options)
    whole = Run(client=BigramClient(), batch_size=4, folder=tmp_path / "whole", **options)
    for run in (ours, whole):
        assert run.start().wait(TIMEOUT)
    assert [record.tokens for record in ours.records] == [record.tokens for record in whole.records]
    assert torch.equal(table(ours), table(whole))
