"""A loss cell's function in the official SDK's own ``forward_backward_custom``, beside this project's engine.

The SDK's code runs as it is: it asks for log-probabilities, calls the function, and sends the surrogate's weights back.
Only the transport is replaced, by one that answers a forward with given log-probabilities and keeps what is sent to it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from tinker.lib.public_interfaces.training_client import TrainingClient as HostedClient

from mint_lab.cells.loss_cell import run_cell
from mint_lab.client.service import ServiceClient
from mint_lab.data import unpaired_to_data, with_reference
from mint_lab.data.pairs import arithmetic_pairs, pairs_to_data
from mint_lab.losses import LOSSES
from mint_lab.types import Datum, ForwardBackwardOutput, TensorData

CELLS = {
    "preference": """\
import torch
from mint_lab.losses.preference import sequence_scores

def mine(data, logprobs_list, beta=0.3):
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    return -torch.nn.functional.logsigmoid(margins).mean(), {"mean_margin": float(margins.detach().mean())}
""",
    "coupled": """\
import torch

def mine(data, logprobs_list):
    weights = [d.loss_fn_inputs["weights"].to_torch() for d in data]
    scores = torch.stack([(w * lp).sum() for w, lp in zip(weights, logprobs_list, strict=True)])
    return scores.std() + 0.1 * scores.pow(2).mean(), {"spread": float(scores.detach().std())}
""",
    "own function": """\
import torch

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient

def mine(data, logprobs_list):
    weights = [d.loss_fn_inputs["weights"].to_torch() for d in data]
    return -sum(Cube.apply(w * lp).sum() for w, lp in zip(weights, logprobs_list, strict=True)), {}
""",
}


class Holder:
    """The part of the SDK's connection holder that the custom path uses: its loop, on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run_coroutine_threadsafe(self, coroutine: Any) -> Any:
        return tinker.lib.public_interfaces.api_future.AwaitableConcurrentFuture(
            asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        )

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Transported(HostedClient):
    """The SDK's training client over a transport that knows the log-probabilities of every datum."""

    def __init__(self, holder: Holder, logprobs: list[torch.Tensor]) -> None:
        self.holder = holder  # pyright: ignore[reportAttributeAccessIssue]
        self.logprobs = logprobs
        self.sent: list[tuple[list[Datum], str, bool]] = []
        self._request_error = None
        self._turn_waiters = {}

    def _chunked_requests_generator(self, data: list[Datum]) -> Iterator[Any]:
        from tinker.lib.public_interfaces.training_client import _ReservedRequestChunk

        yield _ReservedRequestChunk(0, data, 1)

    def _reserve_request_ids(self, count: int) -> list[int]:
        return list(range(count))

    def _run_fwd_bwd(self, requests: list[Any], loss_fn: str, config: Any, *, forward_only: bool) -> Any:
        data = [datum for chunk in requests for datum in chunk.data]
        self.sent.append((data, loss_fn, forward_only))
        future: concurrent.futures.Future[ForwardBackwardOutput] = concurrent.futures.Future()
        weights = [d.loss_fn_inputs["weights"].to_torch() for d in data]
        surrogate = -sum(float((w * lp).sum()) for w, lp in zip(weights, self.logprobs, strict=True))
        future.set_result(
            ForwardBackwardOutput(
                loss_fn_output_type="ArrayRecord",
                loss_fn_outputs=[{"logprobs": TensorData.from_torch(lp)} for lp in self.logprobs],
                metrics={"loss:sum": surrogate},
            )
        )
        return tinker.lib.public_interfaces.api_future.AwaitableConcurrentFuture(future)


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder()
    yield made
    made.close()


@pytest.mark.parametrize("name", CELLS)
def test_custom_loss_matches_the_hosted_client(name: str, holder: Holder, service: ServiceClient) -> None:
    fn: Callable[..., Any] = run_cell("mine", CELLS[name], {}).spec.fn
    local = service.create_lora_training_client("mint-tiny", rank=2, seed=0)
    data = pairs_to_data(arithmetic_pairs(6), local.get_tokenizer())
    here = local.forward_backward_custom(data, fn, return_gradients=True).result()
    logprobs = [output["logprobs"].to_torch() for output in here.loss_fn_outputs]

    hosted = Transported(holder, logprobs)
    there = hosted.forward_backward_custom(data, fn).result()

    (asked, _, only_forward), (surrogate, loss_fn, only_forward_again) = hosted.sent
    assert (only_forward, only_forward_again, loss_fn) == (True, False, "cross_entropy")
    assert [d.model_input for d in asked] == [d.model_input for d in data]
    assert there.metrics["loss:sum"] == pytest.approx(here.metrics["loss:sum"], rel=1e-6)
    own = {k: v for k, v in here.metrics.items() if ":" not in k and k != "loss"}
    assert {k: there.metrics[k] for k in own} == own
    # The backend's cross-entropy is sum(-w log p): its weights are minus the loss's gradient.
    for sent, output in zip(surrogate, here.loss_fn_outputs, strict=True):
        gradient = output["gradients"].to_numpy()
        np.testing.assert_allclose(-sent.loss_fn_inputs["weights"].to_numpy(), gradient, rtol=1e-6, atol=1e-9)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_labels_reach_a_loss_on_the_hosted_client(name: str, holder: Holder, service: ServiceClient) -> None:
    """A label has shape (1,), unlike a field per token: the SDK hands it to the function and sends none of it."""
    local = service.create_lora_training_client("mint-tiny", rank=2, seed=0)
    rows = unpaired_to_data(arithmetic_pairs(3), local.get_tokenizer())
    data = with_reference(rows, local, cache=False)[:5]
    fn = LOSSES[name].bind(beta=0.5)
    here = local.forward_backward_custom(data, fn, return_gradients=True).result()
    hosted = Transported(holder, [output["logprobs"].to_torch() for output in here.loss_fn_outputs])
    there = hosted.forward_backward_custom(data, fn).result()
    (asked, _, _), (surrogate, loss_fn, _) = hosted.sent
    assert loss_fn == "cross_entropy"
    assert all(set(datum.loss_fn_inputs) == {"target_tokens", "weights"} for datum in (*asked, *surrogate))
    own = {key: value for key, value in here.metrics.items() if ":" not in key}
    assert {key: there.metrics[key] for key in own} == pytest.approx(own)
