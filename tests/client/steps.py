"""What the client's tests share: batches, a short training, and everything that a failed call must leave alone."""

from __future__ import annotations

import torch

from mint_lab.client.training import TrainingClient
from mint_lab.types import AdamParams, Datum

from ..engine.batches import datum, sampled

ADAM = AdamParams(learning_rate=1e-2)
PAIRS = [datum([9, 8, 7, a, b], [0, 0, 1, 1]) for a, b in ((1, 2), (3, 4), (5, 6), (7, 8))]


def weights(client: TrainingClient) -> dict[str, torch.Tensor]:
    return client._adapter.copy()


def train(client: TrainingClient, steps: int = 2, seed: int = 0) -> list[float]:
    losses = []
    for step in range(steps):
        output = client.forward_backward(sampled(seed + step), "cross_entropy")
        client.optim_step(ADAM).result()
        losses.append(output.result().metrics["loss:sum"])
    return losses


def state(client: TrainingClient) -> dict[str, torch.Tensor]:
    """Weights, moments and accumulated gradient: everything that a failed call must leave alone."""
    gradients = client._adapter.gradients or []
    return weights(client) | client._optimizer.state() | {f"g{i}": g.clone() for i, g in enumerate(gradients)}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def sum_loss(data: list[Datum], logprobs_list: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    return -torch.cat(logprobs_list).sum(), {"tokens": float(sum(map(len, logprobs_list)))}
