"""Jobs: how items are counted and batched, and the order in which they come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.recipes.job import BatchJob, Measured, ShuffledSampler


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 100), st.integers(1, 40))
def test_sampler_shuffles_each_epoch_by_seed_and_position(size: int, seed: int, start: int, count: int) -> None:
    sampler = ShuffledSampler(size, seed)
    stream = [sampler.items(k, 1)[0] for k in range(3 * size)]
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    items = ShuffledSampler(size, seed).items(start, count)  # a fresh one, asked for the middle at once
    assert items == [sampler.items(k, 1)[0] for k in range(start, start + min(count, size))]
    assert items == list(sampler.stream(start, count))


def test_sampler_epochs_are_the_permutations_of_seed_and_epoch() -> None:
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        expected = np.random.default_rng([seed, epoch]).permutation(50).tolist()
        assert ShuffledSampler(50, seed).items(50 * epoch, 50) == expected


def test_batch_job_counts_items_of_several_datums() -> None:
    """Seven letters stand for datums: items of one datum to train on, of two held out, of which the loss sees one."""
    job = BatchJob(list("abc"), list("uvwxyz"), unit=1, held_out_unit=2)
    assert (job.size, job.held_out_size) == (3, 3)
    assert job.batch([2, 0]) == ["c", "a"]
    assert job.held_out[job.loss_slice] == ["u", "w", "y"]
    pairs = BatchJob(list("abcd"), list("uv"), unit=2)
    assert (pairs.size, pairs.held_out_size, pairs.held_out_unit) == (2, 1, 2)
    assert pairs.batch([1]) == ["c", "d"]
    assert pairs.held_out[pairs.loss_slice] == ["u", "v"]


def test_plain_job_measures_nothing() -> None:
    job = BatchJob(list("ab"), list("u"))
    assert job.measure(["a"], []) == job.evaluate(["u"], [], []) == Measured({}, {})
