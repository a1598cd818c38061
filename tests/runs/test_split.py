"""A tenth is held out, by the seed."""

from __future__ import annotations

import pytest

from mint_lab.errors import DataError
from mint_lab.runs.split import split


@pytest.mark.parametrize(("items", "held"), [(2, 1), (14, 1), (16, 2), (100, 10)])
def test_a_tenth_is_held_out_and_both_keep_their_order(items: int, held: int) -> None:
    train, test = split(range(items), seed=3)
    assert len(test) == held
    assert sorted(train + test) == list(range(items))
    assert (train, test) == (sorted(train), sorted(test)) == split(range(items), seed=3)


def test_the_seed_says_which() -> None:
    assert len({tuple(split(range(100), seed)[1]) for seed in range(5)}) == 5


def test_one_item_cannot_be_split() -> None:
    with pytest.raises(DataError, match="give held_out= as well"):
        split(["only"], seed=0)
