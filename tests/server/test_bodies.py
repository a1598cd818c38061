"""Bodies: what is missing or of another kind is named; what is unknown is ignored."""

from __future__ import annotations

import pytest

from mint_lab.errors import ConfigError
from mint_lab.server.bodies import CreateModel, LoadWeights, OfModel, OptimStep

from .api import as_bytes


def test_unknown_fields_are_ignored() -> None:
    """Newer SDKs send more."""
    body = CreateModel.read(
        as_bytes({"session_id": "s", "model_seq_id": 0, "base_model": "m", "lora_config": {"rank": 8}, "new": [1]})
    )
    assert body.lora_config is not None
    assert (body.lora_config.rank, body.lora_config.seed, body.lora_config.train_mlp) == (8, None, True)


def test_all_problems_are_named() -> None:
    with pytest.raises(ConfigError) as raised:
        CreateModel.read(as_bytes({"model_seq_id": -1, "base_model": "m" * 100, "lora_config": {"rank": "x" * 100}}))
    text = str(raised.value)
    assert "session_id: missing" in text
    assert "model_seq_id: Input should be greater than or equal to 0, found -1" in text
    assert "lora_config.rank: Input should be a valid integer" in text
    assert "x" * 60 not in text, "a long value is shortened"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[1]", "the body is a JSON list, expected an object"),
        (b'{"model_id": 5}', "model_id: Input should be a valid string, found 5"),
        (b'{"model_id": "m", "seq_id": 9223372036854775808}', "seq_id: Input should be less than 9223372036854775808"),
    ],
)
def test_other_bodies_raise(raw: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OfModel.read(raw)


def test_sequence_numbers_have_64_bits() -> None:
    """A pickled sampling client starts at a random multiple of 10^9."""
    assert OfModel.read(as_bytes({"model_id": "m", "seq_id": (1 << 63) - 1})).seq_id == (1 << 63) - 1


def test_defaults_of_the_two_forms() -> None:
    step = OptimStep.read(as_bytes({"model_id": "m", "seq_id": 1, "optimizer_params": {"type": "dimuon"}}))
    assert (step.adam_params, step.optimizer_params) == (None, {"type": "dimuon"})
    load = LoadWeights.read(as_bytes({"path": "tinker://a/weights/b", "optimizer": True}))
    assert (load.model_id, load.session_id, load.optimizer) == (None, None, True)
