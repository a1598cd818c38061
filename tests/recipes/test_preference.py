"""The recipe preference: pairs as datums, their split and their metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mint_lab.data.pairs import Pair
from mint_lab.errors import DataError
from mint_lab.recipes.preference import Preference

from ..runs.bigram import CharTokenizer, letter_pairs


def test_pairs_become_consecutive_datums() -> None:
    job = Preference().prepare(CharTokenizer(), letter_pairs(20), None, seed=0)
    assert (job.size, len(job.held_out)) == (18, 4)  # a tenth of 20 pairs is held out
    chosen, rejected = job.batch([3])
    prompt = chosen.model_input.to_ints()[:3]
    assert prompt == rejected.model_input.to_ints()[:3]
    assert chosen.loss_fn_inputs["weights"].tolist() == [0, 0, 1, 1, 1, 1]
    assert [d.model_input.to_ints() for d in job.batch([5, 3])[2:]] == [
        d.model_input.to_ints() for d in (chosen, rejected)
    ]


def test_the_split_depends_on_the_seed_alone() -> None:
    def held(seed: int) -> list[list[int]]:
        job = Preference().prepare(CharTokenizer(), letter_pairs(26), None, seed=seed)
        trained = {tuple(d.model_input.to_ints()) for d in job.data}
        assert not trained & {tuple(d.model_input.to_ints()) for d in job.held_out}
        return [d.model_input.to_ints() for d in job.held_out]

    for seed in (1, 2, 1):
        places = sorted(np.random.default_rng(seed).permutation(26)[:3].tolist())
        pairs = [letter_pairs(26)[place] for place in places]
        texts = [pair.prompt + side for pair in pairs for side in (pair.chosen, pair.rejected)]
        assert held(seed) == [[ord(character) for character in text] for text in texts]


def test_pair_metrics_by_hand() -> None:
    pairs = [Pair("a:", "y", "n"), Pair("b:", "y", "n")]
    job = Preference().prepare(CharTokenizer(), pairs, pairs, seed=0)
    # Two positions count: the letter and the end mark. Scores: -1, -3 and -4, -2; margins 2 and -2.
    now = [torch.tensor([-9.0, *row]) for row in ([-0.5, -0.5], [-2.0, -1.0], [-3.0, -1.0], [-1.0, -1.0])]
    measured = job.measure(job.held_out, now)
    assert (
        measured.metrics.items()
        >= {
            "pair_accuracy": 0.5,
            "mean_margin": 0.0,
            "logps/chosen": -2.5,
            "logps/rejected": -2.5,
        }.items()
    )
    counts = measured.histograms["margin"]
    assert {i - 20: c for i, c in enumerate(counts) if c} == {2: 1, -2: 1}  # bins of one nat from -20
    # Before: margins 0 and 0, chosen scores -0.5 and -4: the first pair's margin rose while its chosen side fell.
    before = [torch.tensor([-9.0, *row]) for row in ([-0.5, 0.0], [-0.5, 0.0], [-4.0, 0.0], [-4.0, 0.0])]
    assert job.evaluate(job.held_out, now, before).metrics["displacement_frac"] == 0.5


def test_no_data_or_too_little() -> None:
    with pytest.raises(DataError, match="empty"):
        Preference().prepare(CharTokenizer(), [], None, seed=0)
    with pytest.raises(DataError, match="give held_out"):
        Preference().prepare(CharTokenizer(), letter_pairs(1), None, seed=0)
