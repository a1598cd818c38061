"""A real but tiny training client: one table of next-token logits, trained with autograd and AdamW.

A call takes less than a millisecond, so that runs can be tested without a language model. With ``gate``, a test can
hold a run inside a step without sleeping.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from mint_lab.data.pairs import Pair
from mint_lab.losses import LOSSES
from mint_lab.types import (
    Datum,
    ForwardBackwardOutput,
    ModelInput,
    OptimStepResponse,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    TensorData,
)

__all__ = ["BigramClient", "BigramSampler", "CharTokenizer", "letter_pairs"]

VOCABULARY = 128


class CharTokenizer:
    """One token a character; 0 ends a text."""

    eos_token_id = 0
    eos_token = "\0"
    bos_token_id = None
    chat_template = None
    model_max_length = 64

    def encode(self, text: str, *, add_special_tokens: bool = False, **_: Any) -> list[int]:
        return [ord(c) % VOCABULARY for c in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        return "".join(chr(t) for t in token_ids if t or not skip_special_tokens)


class BigramClient:
    """``log p(target | input) = log_softmax(table[input])[target]``.

    Attributes:
        table: ``(V, V)`` logits.
        calls: names of the calls, in order.
        gate: called at the start of every forward_backward.
    """

    def __init__(self, seed: int = 0, gate: Callable[[], None] | None = None) -> None:
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed)).requires_grad_(
            True
        )
        self.optimizer = torch.optim.AdamW([self.table], lr=0.0, weight_decay=0.0)
        self.gradient: torch.Tensor | None = None
        self.calls: list[str] = []
        self.batches: list[list[Datum]] = []
        self.gate = gate

    def get_tokenizer(self) -> CharTokenizer:
        return CharTokenizer()

    def forward(self, data: list[Datum], loss_fn: str, loss_fn_config: Any = None) -> Future[ForwardBackwardOutput]:
        return _future(lambda: self._pass(data, LOSSES[loss_fn].bind(loss_fn_config), backward=False))

    def forward_backward(
        self, data: list[Datum], loss_fn: str, loss_fn_config: Any = None
    ) -> Future[ForwardBackwardOutput]:
        return _future(lambda: self._pass(data, LOSSES[loss_fn].bind(loss_fn_config), backward=True))

    def forward_backward_custom(self, data: list[Datum], loss_fn: Any) -> Future[ForwardBackwardOutput]:
        return _future(lambda: self._pass(data, loss_fn, backward=True))

    def optim_step(self, adam_params: Any) -> Future[OptimStepResponse]:
        return _future(lambda: self._step(adam_params))

    def save_weights_and_get_sampling_client(self, name: str | None = None) -> BigramSampler:
        self.calls.append("snapshot")
        return BigramSampler(self.table.detach().clone(), self.calls)

    def _logprobs(self, data: list[Datum]) -> list[torch.Tensor]:
        return [
            self.table[torch.tensor(d.model_input.to_ints())]
            .log_softmax(-1)
            .gather(1, d.loss_fn_inputs["target_tokens"].to_torch()[:, None])[:, 0]
            for d in data
        ]

    def _pass(self, data: list[Datum], fn: Any, *, backward: bool) -> ForwardBackwardOutput:
        self.calls.append("forward_backward" if backward else "forward")
        if backward:
            self.batches.append(data)
            if self.gate is not None:
                self.gate()
        logprobs = self._logprobs(data)
        loss, metrics = fn(data, logprobs)
        if backward and bool(torch.isfinite(loss)):
            (gradient,) = torch.autograd.grad(loss, self.table)
            self.gradient = gradient if self.gradient is None else self.gradient + gradient
        value = float(loss.detach())
        return ForwardBackwardOutput(
            loss_fn_output_type="ArrayRecord",
            loss_fn_outputs=[{"logprobs": TensorData.from_torch(lp.detach())} for lp in logprobs],
            metrics={**metrics, "loss": value, "loss:sum": value, "time:sum": 0.0},
        )

    def _step(self, adam: Any) -> OptimStepResponse:
        self.calls.append("optim_step")
        assert self.gradient is not None
        (group,) = self.optimizer.param_groups
        group["lr"], group["betas"] = adam.learning_rate, (adam.beta1, adam.beta2)
        group["eps"], group["weight_decay"] = adam.eps, adam.weight_decay
        gradient, self.gradient = self.gradient, None
        norm = float(gradient.norm())
        is_clipped = 0 < adam.grad_clip_norm < norm
        self.table.grad = gradient * (adam.grad_clip_norm / norm) if is_clipped else gradient
        self.optimizer.step()
        return OptimStepResponse(metrics={"grad_norm": norm})


class BigramSampler:
    """Samples from a table; the log-probabilities are those of the distribution that was sampled from."""

    def __init__(self, table: torch.Tensor, calls: list[str]) -> None:
        self.table = table
        self.calls = calls

    def sample(self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams) -> Future[SampleResponse]:
        self.calls.append("sample")
        generator = torch.Generator().manual_seed(sampling_params.seed or 0)
        sequences = [self._one(prompt.to_ints()[-1], sampling_params, generator) for _ in range(num_samples)]
        return _future(lambda: SampleResponse(sequences=sequences))

    def compute_logprobs(self, prompt: ModelInput) -> Future[list[float | None]]:
        tokens = prompt.to_ints()
        rows = self.table.log_softmax(-1)[tokens[:-1]]
        return _future(lambda: [None, *rows.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()])

    def _one(self, token: int, params: SamplingParams, generator: torch.Generator) -> SampledSequence:
        tokens: list[int] = []
        logprobs: list[float] = []
        while len(tokens) < (params.max_tokens or 8) and (not tokens or tokens[-1]):
            greedy = params.temperature == 0
            row = (self.table[token] / (1.0 if greedy else params.temperature)).log_softmax(-1)
            token = int(row.argmax()) if greedy else int(torch.multinomial(row.exp(), 1, generator=generator))
            tokens.append(token)
            logprobs.append(float(row[token]))
        wanted = {"sequence_id": "s"} if "sequence_id" in SampledSequence.__dataclass_fields__ else {}
        return SampledSequence(
            stop_reason="length" if tokens[-1] else "stop",
            tokens_np=np.array(tokens, np.int32),
            logprobs_np=np.array(logprobs, np.float32),
            **wanted,
        )


def _future(job: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)
    return future


def letter_pairs(n: int = 40) -> list[Pair]:
    """Pairs with one rule to learn: after the prompt's colon, "ya" is better than "nb"."""
    return [Pair(f"{chr(97 + i % 26)}{i % 10}:", f"ya{i % 7}", f"nb{i % 5}") for i in range(n)]
