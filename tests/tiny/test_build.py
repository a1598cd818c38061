"""The parts of the pretraining script, by hand. Training the model takes minutes, so no test does it in full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.tiny import build as script
from mint_lab.tiny.build import (
    PretrainingSettings,
    build,
    learning_rate_share,
    loss_weights,
    make_config,
    split_into_batches,
)
from mint_lab.tiny.corpus import documents


def test_learning_rate_by_hand() -> None:
    """100 steps, warm-up of 10: step 5 has 5 / 10; the last 40 steps fall from 1 to 1 / 40."""
    settings = PretrainingSettings(steps=100, warmup=10)
    shares = {step: learning_rate_share(step, settings) for step in (1, 5, 10, 50, 61, 81, 100)}
    assert shares == pytest.approx({1: 0.1, 5: 0.5, 10: 1, 50: 1, 61: 1, 81: 0.5, 100: 0.025})


def test_loss_weights_by_hand() -> None:
    """Two questions: "Answer:" is 7 8, end-of-text 0; the weight is 1 after 7 8 up to and including 0."""
    row = [5, 7, 8, 3, 4, 0, 6, 8, 7, 8, 2, 0]
    weights = loss_weights(row, [7, 8], end=0, prompt_weight=0.1)
    assert weights == [0.1, 0.1, 0.1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 1, 1]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 100))
def test_batches_keep_every_row_within_the_budget(lengths: list[int], tokens: int) -> None:
    """Only a row that alone exceeds the budget makes a batch beyond it."""
    rows = [[length] * length for length in sorted(lengths)]
    batches = list(split_into_batches(rows, tokens))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) * len(batch[-1]) <= tokens or len(batch) == 1 for batch in batches)


def test_config_is_a_small_tied_model() -> None:
    config = make_config(end_id=3)
    assert (config.eos_token_id, config.pad_token_id, config.tie_word_embeddings) == (3, 3, True)


def test_build_writes_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps on a small corpus, with a report of made-up numbers in place of the evaluation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(script, "documents", lambda n, seed: documents(min(n, 300), seed=seed))
    monkeypatch.setattr(script, "held_out_report", lambda model, tokenizer: {"addition": 0.25})
    threads = torch.get_num_threads()
    try:
        report = build(tmp_path / "model", settings=PretrainingSettings(steps=3, batch_tokens=200))
    finally:
        torch.set_num_threads(threads)
    assert report == {"addition": 0.25}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "--seed 0 --steps 3`" in card
    assert "| addition | 0.250 |" in card
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o444 == 0o444
