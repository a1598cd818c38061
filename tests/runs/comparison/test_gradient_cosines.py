"""Cosines between gradients: hand arithmetic, and what is passed to a client."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import spec_of
from mint_lab.runs.comparison.gradient_cosines import Objective, cosines_of, measure

from ..bigram import BigramClient


def test_cosines_by_hand() -> None:
    """(3, 4) . (4, 3) = 24 of 25; (3, 4) . (-6, -8) = -50 of 50; a gradient of 0 has no direction."""
    vectors = {"a": [3.0, 4.0], "b": [4.0, 3.0], "c": [-6.0, -8.0], "0": [0.0, 0.0]}
    cosines = cosines_of({k: np.array(v, np.float32) for k, v in vectors.items()}, at="run", step=3, datums=8)
    frame = cosines.to_frame()
    assert frame.loc["a", "b"] == pytest.approx(24 / 25, rel=1e-12)
    assert frame.loc["a", "c"] == -1
    assert frame.loc["a", "a"] == 1
    assert math.isnan(frame.loc["a", "0"])
    assert frame.attrs["norms"] == {"a": 5.0, "b": 5.0, "c": 10.0, "0": 0.0}
    assert (frame.attrs["at"], frame.attrs["step"], frame.attrs["datums"]) == ("run", 3, 8)


def test_rounding_does_not_exceed_1() -> None:
    """In float32, this vector with itself gives a cosine of 1.0000001."""
    vector = np.array([0.1, 0.2, 0.3], np.float32)
    cosines = cosines_of({"a": vector, "b": 3 * vector, "c": -vector})
    assert max(max(row) for row in cosines.values) <= 1.0
    assert min(min(row) for row in cosines.values) >= -1.0
    assert cosines.values[0][1] == pytest.approx(1.0, abs=1e-7)


class RecordingClient:
    """Returns the gradient (1, 2) for every loss and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Any, Any]] = []

    def weight_gradient(self, data: Any, loss_fn: Any, loss_fn_config: Any = None) -> Future[Any]:
        self.calls.append((len(data), loss_fn, loss_fn_config))
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(to_numpy=lambda: np.array([1.0, 2.0], np.float32)))
        return future


def test_builtin_losses_are_passed_by_name_and_custom_ones_guarded() -> None:
    def scaled(data: Any, logprobs_list: Any, factor: float = 3.0) -> Any:
        return factor * torch.cat(logprobs_list).sum(), {}

    client, ppo, cross_entropy = RecordingClient(), LOSSES["ppo"], LOSSES["cross_entropy"]
    custom = spec_of(scaled)
    objectives = {
        "clipped": Objective(ppo, ppo.config({"clip_low_threshold": 0.5}), [None, None]),
        "plain": Objective(cross_entropy, {}, [None]),
        "mine": Objective(custom, {"factor": 2.0}, [None] * 3),
    }
    cancel = threading.Event()
    gradients = measure(client, objectives, cancel.is_set)
    assert list(gradients) == list(objectives)
    assert all(gradient.tolist() == [1.0, 2.0] for gradient in gradients.values())
    assert client.calls[:2] == [
        (2, "ppo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.2}),
        (1, "cross_entropy", None),
    ]
    count, guarded, config = client.calls[2]
    assert (count, guarded.spec, config) == (3, custom, None)
    assert guarded.fn([], [torch.tensor([1.0, 2.0])])[0] == 6.0  # the settings are bound: 2 (1 + 2)
    assert guarded.cancel_requested() is False
    cancel.set()
    assert guarded.cancel_requested() is True


def test_client_without_gradients_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"BigramClient returns no gradients .*expected a training client"):
        measure(BigramClient(), {}, lambda: False)
