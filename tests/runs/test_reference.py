"""The reference is the model at the start of a run, whatever the client has learned before; runs are real ones."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

import mint_lab as ml
from mint_lab.data.pairs import arithmetic_pairs, pairs_to_data
from mint_lab.errors import CheckpointError, ConfigError
from mint_lab.runs import Run
from mint_lab.types import Datum

from .bigram import BigramClient
from .conftest import timeless

PAIRS = arithmetic_pairs(60, split="train")


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client that has learned: four supervised steps."""
    made = ml.ServiceClient(home=tmp_path / "home").create_lora_training_client("mint-tiny", rank=4, seed=1)
    run = Run("sft", client=made, steps=4, batch_size=8, learning_rate=0.003, folder=tmp_path / "sft", eval_every=9)
    run.start().wait(120)
    return made


def dpo(client: Any, folder: Path, **arguments: Any) -> Run:
    given = {"steps": 4, "batch_size": 4, "eval_every": 2, "data": PAIRS, "keep_snapshots": None, "seed": 3}
    return Run("preference", "dpo", client=client, folder=folder, **{**given, **arguments})


def records_of(run: Run) -> list[Any]:
    return [timeless(record) for record in run.records]


def trained(run: Run) -> Run:
    run.start().wait(120)
    return run


def reference_of(client: Any) -> torch.Tensor:
    data: list[Datum] = pairs_to_data(PAIRS[:3], client.get_tokenizer())
    return torch.cat([row.to_torch() for row in client.reference_logprobs(data).result()])


def now(client: Any) -> torch.Tensor:
    data: list[Datum] = pairs_to_data(PAIRS[:3], client.get_tokenizer())
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    return torch.cat([output["logprobs"].to_torch() for output in outputs])


def test_first_dpo_loss_after_sft_is_ln_2(client: Any, tmp_path: Path) -> None:
    """At the reference every implied reward is 0, so the loss is -log sigmoid(0)."""
    run = trained(dpo(client, tmp_path / "dpo", steps=2))
    assert run.records[0].metrics["loss"] == pytest.approx(log(2), abs=1e-5)
    assert run.records[0].metrics["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert run.records[1].metrics["loss"] != pytest.approx(log(2), abs=1e-4)


def test_first_kl_of_grpo_after_sft_is_0(client: Any, tmp_path: Path) -> None:
    run = Run("rl", "grpo", client=client, steps=2, batch_size=4, updates_per_rollout=2, folder=tmp_path / "rl")
    run = trained(run)
    assert run.records[0].metrics["kl/reference"] == pytest.approx(0, abs=1e-8)
    assert run.records[1].metrics["kl/reference"] > 1e-6


def test_reference_that_a_run_names(client: Any, tmp_path: Path) -> None:
    learned = now(client)
    saved = client.save_state("learned").result().path
    fresh = ml.ServiceClient(home=tmp_path / "home").create_lora_training_client("mint-tiny", rank=4, seed=2)
    base = now(fresh)
    assert not torch.allclose(learned, base, atol=1e-3)
    run = trained(dpo(client, tmp_path / "base", reference="base"))
    assert run.records[0].metrics["loss"] != pytest.approx(log(2), abs=1e-4)
    torch.testing.assert_close(reference_of(client), base, atol=1e-5, rtol=0)
    trained(dpo(client, tmp_path / "path", reference=saved))
    torch.testing.assert_close(reference_of(client), learned, atol=1e-5, rtol=0)


@pytest.mark.parametrize("reference", ["start", "base"])
def test_reference_survives_open_rewind_and_fork(client: Any, tmp_path: Path, reference: str) -> None:
    """Of the run that goes on, the run that returned, and the fork, records and references are the same to the bit."""
    run = trained(dpo(client, tmp_path / "run", reference=reference))
    expected, records = reference_of(client), records_of(run)
    run.rewind(2)
    assert torch.equal(reference_of(client), expected)
    assert records_of(trained(run)) == records
    fork = run.fork(2, folder=tmp_path / "fork")
    assert records_of(trained(fork)) == records
    assert torch.equal(reference_of(fork.client), expected)
    half = dpo(client, tmp_path / "half", reference=reference)
    half.step(2).wait(120)
    half.stop()
    reopened = Run.open(tmp_path / "half", data=PAIRS)
    assert reopened.reference == reference
    learned = reference_of(client)
    trained(reopened)
    assert torch.equal(reference_of(reopened.client), learned)


def test_reference_that_is_not_there_is_refused_before_the_first_step(client: Any, tmp_path: Path) -> None:
    run = dpo(client, tmp_path / "run", reference=str(tmp_path / "nothing"))
    run.start().wait(120, check=False)
    assert run.error is not None
    assert "nothing" in run.error.message
    assert run.steps_done == 0
    other = ml.ServiceClient(home=tmp_path / "home").create_lora_training_client("mint-tiny", rank=2, seed=2)
    path = other.save_state("small").result().path
    before = reference_of(client)
    with pytest.raises(CheckpointError, match="rank 4"):
        client.set_reference(path).result()
    assert torch.equal(reference_of(client), before)
    with pytest.raises(ConfigError, match="reference is 3, expected a text"):
        dpo(client, tmp_path / "bad", reference=3)


def test_client_without_a_choice_knows_the_start_only(make_run: Any) -> None:
    run = make_run(client=BigramClient(), reference="base")
    run.start().wait(60, check=False)
    assert "a BigramClient has no reference other than the model at the start of the run" in run.error.message
