"""What a seed determines: each order and each seed of sampling is the one that numpy gives for it, and repeats."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.recipes.held_out import evaluated_items, split
from mint_lab.recipes.job import ShuffledSampler
from mint_lab.runs import Run, loading
from mint_lab.runs.comparison import comparison

from ..runs.bigram import BigramClient, BigramSampler, letter_pairs
from ..runs.conftest import TIMEOUT, finish

SEEDS = [0, 1, 7]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("items", "held"), [(2, 1), (3, 1), (25, 2), (26, 3), (100, 10)])
def test_split_holds_out_the_first_tenth_of_the_seeds_permutation(seed: int, items: int, held: int) -> None:
    expected = sorted(np.random.default_rng(seed).permutation(items)[:held].tolist())
    train, test = split(range(items), seed)
    assert test == expected
    assert train == [item for item in range(items) if item not in expected]


@pytest.mark.parametrize("seed", SEEDS)
def test_epochs_are_permutations_of_seed_and_epoch(seed: int) -> None:
    epochs = [np.random.default_rng([seed, epoch]).permutation(9).tolist() for epoch in range(3)]
    sampler = ShuffledSampler(9, seed)
    assert [sampler.items(9 * epoch, 9) for epoch in (0, 1, 2, 1)] == [*epochs, epochs[1]]
    assert sampler.items(7, 4) == [*epochs[0][7:], *epochs[1][:2]]
    assert sampler.items(0, 10) == epochs[0], "no item twice in one batch"
    assert sampler.items(5, 0) == []


def test_positions_of_a_quick_evaluation_do_not_depend_on_a_run() -> None:
    """Python's generator with seed 0 draws one of each eight positions: 50 stretches of 400 items."""
    rng = random.Random(0)
    assert evaluated_items(400, 8, everything=False) == [rng.randrange(8 * k, 8 * k + 8) for k in range(50)]
    assert evaluated_items(50, 1, everything=False) == list(range(50))
    assert len(evaluated_items(400, 16, everything=False)) == 50
    assert len(evaluated_items(400, 17, everything=False)) == 51, "three batches of 17"


def texts(batch: list[Any]) -> list[list[int]]:
    return [datum.model_input.to_ints() for datum in batch]


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_of_a_run_follow_its_seed(make_run: Any, seed: int) -> None:
    """Of 40 pairs a tenth is held out; batches of four pairs are the next items of the seed's epochs."""
    trained = finish(make_run(seed=seed, held_out=None, steps=10))
    held = set(np.random.default_rng(seed).permutation(40)[:4].tolist())
    pairs = [pair for index, pair in enumerate(letter_pairs(40)) if index not in held]
    order = [*np.random.default_rng([seed, 0]).permutation(36), *np.random.default_rng([seed, 1]).permutation(36)]
    seen = [sides for batch in trained.client.batches for sides in texts(batch)]
    expected = [
        [ord(character) for character in pairs[item].prompt + side]
        for item in order[:40]
        for side in (pairs[item].chosen, pairs[item].rejected)
    ]
    assert seen == expected
    assert trained.name == f"preference-pairwise_preference-{seed}"


class Asked(BigramClient):
    """A client whose samplers keep the prompt and the seed of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[int, int, float]] = []

    def save_weights_and_get_sampling_client(self, name: str | None = None) -> BigramSampler:
        sampler = super().save_weights_and_get_sampling_client(name)
        sample = sampler.sample

        def asked(prompt: Any, num_samples: int, params: Any) -> Any:
            self.requests.append((prompt.to_ints()[0] - 97, params.seed, params.temperature))
            return sample(prompt, num_samples, params)

        sampler.sample = asked  # type: ignore[method-assign]
        return sampler


def share(response_text: str, example: Any) -> float:
    return sum(ord(character) < 64 for character in response_text) / max(1, len(response_text))


@pytest.mark.parametrize("seed", SEEDS)
def test_rollouts_ask_for_the_seeds_of_their_position_and_evaluations_for_the_same_ones(
    make_run: Any, seed: int
) -> None:
    """Stream 0 has the rollouts, by the number of prompts before; stream 1 the held-out prompts."""
    client = Asked()
    data = [{"prompt": f"{chr(97 + k)}:", "answer": ""} for k in range(12)]
    made = make_run(
        "rl",
        client=client,
        data=data,
        held_out=data[:5],
        reward=share,
        max_tokens=3,
        evaluation="sampled",
        steps=4,
        batch_size=6,
        eval_every=2,
        seed=seed,
        temperature=0.9,
    )
    finish(made)
    order = [*np.random.default_rng([seed, 0]).permutation(12), *np.random.default_rng([seed, 1]).permutation(12)]
    rollouts = [
        (int(item), int(number), 0.9)
        for start in (0, 6, 12, 18)
        for item, number in zip(
            order[start : start + 6], np.random.default_rng([seed, 0, start]).integers(2**31, size=6), strict=True
        )
    ]
    assert [request for request in client.requests if request[2] == 0.9] == rollouts
    evaluation = np.random.default_rng([seed, 1, 0]).integers(2**31, size=5).tolist()
    asked = [request for request in client.requests if request[2] == 1.0]
    assert asked == [*zip(range(5), evaluation, [1.0] * 5, strict=True)] * 3, "before training, at step 2 and at step 4"


@pytest.mark.parametrize("seed", [0, 1])
def test_minibatches_of_a_pass_are_shuffled_by_seed_position_and_pass(make_run: Any, seed: int) -> None:
    client = Asked()
    data = [{"prompt": f"{chr(97 + k)}:", "answer": ""} for k in range(8)]
    rewards = itertools.count()  # all different, so that no group is dropped
    made = make_run(
        "rl",
        client=client,
        data=data,
        held_out=data[:2],
        max_tokens=3,
        steps=8,
        batch_size=8,
        eval_every=100,
        seed=seed,
        updates_per_rollout=2,
        minibatches=2,
        learning_rate=0.0,
        reward=lambda response_text, example: float(next(rewards)),
    )
    finish(made)
    prompts = [*np.random.default_rng([seed, 0]).permutation(8), *np.random.default_rng([seed, 1]).permutation(8)]
    expected: list[list[int]] = []
    for rollout in (0, 1):
        for pass_number in (0, 1):
            order = np.arange(8)
            np.random.default_rng([seed, 8 * rollout, pass_number]).shuffle(order)
            halves = (sorted(order[:4]), sorted(order[4:]))
            expected += [[int(prompts[8 * rollout + group]) for group in half] for half in halves]
    seen = [list(dict.fromkeys(ids[0] - 97 for ids in texts(batch))) for batch in client.batches]
    assert seen == expected


class Connected:
    """A service that keeps what a run asks it for."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def create_lora_training_client(self, **request: Any) -> BigramClient:
        self.requests.append(request)
        return BigramClient(seed=request["seed"])


@pytest.mark.parametrize("seed", SEEDS)
def test_adapter_of_a_run_gets_its_seed_and_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, seed: int) -> None:
    service = Connected()
    monkeypatch.setattr(loading, "connect", lambda: service)
    made = Run(data=letter_pairs(8), held_out=letter_pairs(2), steps=1, seed=seed, rank=3, folder=tmp_path / "run")
    finish(made)
    assert service.requests == [{"base_model": made.base_model, "rank": 3, "seed": seed, "lora": None}]


@pytest.mark.parametrize("seed", [0, 3])
def test_all_runs_of_a_comparison_get_its_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, seed: int) -> None:
    service = Connected()
    monkeypatch.setattr(loading, "connect", lambda: service)
    compared = comparison.Comparison(
        ["hinge", "simpo"],
        data=letter_pairs(8),
        held_out=letter_pairs(2),
        steps=2,
        batch_size=4,
        seed=seed,
        folder=tmp_path / "compared",
    )
    assert compared.start().wait(TIMEOUT)
    assert [request["seed"] for request in service.requests] == [seed, seed]
    assert compared._untrained_client() is compared._untrained_client()
    assert [request["seed"] for request in service.requests] == [seed, seed, seed]
    order = np.random.default_rng([seed, 0]).permutation(8)
    for one in compared.runs.values():
        assert [ids[0] - 97 for ids in texts(one.client.batches[0])][::2] == order[:4].tolist()


def test_bigram_sampler_repeats_with_its_seed() -> None:
    """The test client itself: a seed that it ignored would hide a seed that a run does not send."""
    sampler = BigramClient().save_weights_and_get_sampling_client()

    def ask(seed: int) -> list[int]:
        params: Any = SimpleNamespace(seed=seed, max_tokens=8, temperature=1.0)
        prompt: Any = SimpleNamespace(to_ints=lambda: [97])
        return list(sampler.sample(prompt, 1, params).result().sequences[0].tokens)

    row = torch.Generator().manual_seed(2)
    first = torch.multinomial(sampler.table[97].softmax(-1), 1, generator=row)
    assert ask(1) == ask(1)
    assert ask(2)[0] == int(first)
