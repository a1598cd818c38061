"""Real preference data through the whole path: file, pairs, tokens, packed passes, optimizer, record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mint_lab.data import load_pairs
from mint_lab.runs import Run


@pytest.mark.slow
def test_1000_real_pairs_train(hh_rlhf: Path, tmp_path: Path) -> None:
    """Dialogues of up to 1,900 tokens on the bundled model, truncated to its context; it learns the batches it sees."""
    pairs = load_pairs(hh_rlhf, limit=1000)
    run = Run(data=pairs[:960], held_out=pairs[960:], steps=3, batch_size=4, eval_every=100, folder=tmp_path / "run")
    run.start().wait(check=True)
    assert run.status == "finished"
    assert run.data_sizes == (960, 40)
    assert all(np.isfinite(record.metrics["loss"]) and record.metrics["grad_norm"] > 0 for record in run.records)
    assert all(record.tokens > 4 * 2 * 20 for record in run.records)


def test_a_batch_of_real_pairs_is_learned(hh_rlhf: Path, tmp_path: Path) -> None:
    """The same two pairs again and again: their margins have to grow."""
    pairs = load_pairs(hh_rlhf, limit=200)
    short = sorted(pairs, key=lambda pair: len(str(pair.prompt)) + len(pair.chosen) + len(pair.rejected))[:2]
    run = Run(data=short, held_out=short, steps=8, batch_size=2, learning_rate=5e-3, folder=tmp_path / "run")
    run.start().wait(check=True)
    assert run.records[-1].held_out["mean_margin"] > run.baseline["mean_margin"] + 1
