"""A sampling client on this machine: a snapshot of a model, and draws from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.sampling import Request, Sample, generate, prompt_logprobs
from ..errors import ConfigError, DataError
from ..types import SampledSequence, SampleResponse
from .futures import Ready, worker_of

if TYPE_CHECKING:
    from ..engine.models import Adapter, BaseModel, Weights
    from ..types import APIFuture, ModelInput, SamplingParams

__all__ = ["SamplingClient"]

_sequence_ids = itertools.count()


class SamplingClient(Ready):
    """Draws from a fixed snapshot: training that goes on does not change it."""

    def __init__(self, base: BaseModel, adapter: Adapter | None, snapshot: APIFuture[Weights | None]) -> None:
        """``adapter`` None: the base model alone; ``snapshot`` None: the adapter as it is, which nobody trains."""
        self._base = base
        self._adapter = adapter
        self._snapshot = snapshot
        self._worker = worker_of(base)

    def __repr__(self) -> str:
        return f"SamplingClient({self._base.name!r})"

    def sample(  # noqa: PLR0917, the SDK's signature
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: Any = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
    ) -> APIFuture[SampleResponse]:
        """Continue ``prompt`` ``num_samples`` times.

        Args:
            sampling_params: max_tokens, temperature, top_k, top_p, seed, and stop: strings or token ids that end a
                sample besides the end-of-text token, which does unless stop is an empty list. A sample's last token is
                the one that ended it.
            include_prompt_logprobs: also give the prompt's own log-probabilities (first entry None).
            The other arguments are the hosted service's and have to be left at their defaults.

        Returns:
            A future; ``sequences[j]`` has tokens, logprobs (of the distribution sampled from, nats) and stop_reason.

        Raises:
            ConfigError: a parameter is out of range, or one is used that this engine has not.
            DataError: the prompt is no text, empty, too long, or has tokens outside the vocabulary (the last three from
                the future).
        """
        hosted = {
            "topk_prompt_logprobs": topk_prompt_logprobs,
            "topk_sample_logprobs": topk_sample_logprobs,
            "target_prompt_logprobs": target_prompt_logprobs,
            "prompt_alt_tokens_k": prompt_alt_tokens_k,
            "prompt_logprobs_last_n": prompt_logprobs_last_n,
        }
        used = [name for name, value in hosted.items() if value is not None and value != 0]
        if used:
            raise ConfigError(f"{used[0]} is not available locally; use compute_logprobs for given tokens")
        request = self._request(_tokens(prompt), num_samples, sampling_params)

        def run() -> SampleResponse:
            with self._base.using(self._adapter, self._snapshot.result()):
                (samples,) = generate(self._base, [request])
                found = prompt_logprobs(self._base, request.prompt) if include_prompt_logprobs else None
            given = None if found is None else np.array([np.nan if x is None else x for x in found], np.float32)
            return SampleResponse(sequences=[_sequence(s) for s in samples], prompt_logprobs_np=given)

        return self._worker.submit(run)

    def compute_logprobs(self, prompt: ModelInput) -> APIFuture[list[float | None]]:
        """Log-probability of each token of ``prompt`` given those before it, nats; None for the first.

        Raises:
            DataError: the prompt is no text, empty, too long, or has tokens outside the vocabulary (the last three from
                the future).
        """
        tokens = _tokens(prompt)

        def run() -> list[float | None]:
            with self._base.using(self._adapter, self._snapshot.result()):
                return prompt_logprobs(self._base, tokens)

        return self._worker.submit(run)

    async def sample_async(self, *args: Any, **kwargs: Any) -> SampleResponse:
        return await self.sample(*args, **kwargs)

    async def compute_logprobs_async(self, prompt: ModelInput) -> list[float | None]:
        return await self.compute_logprobs(prompt)

    def get_tokenizer(self) -> Any:
        """The base model's transformers tokenizer."""
        return self._base.tokenizer

    def get_base_model(self) -> str:
        """Name of the base model."""
        return self._base.name

    async def get_base_model_async(self) -> str:
        return self.get_base_model()

    def _request(self, prompt: list[int], num_samples: int, params: SamplingParams) -> Request:
        tokens, strings = self._stops(params.stop)
        room = max(self._base.context - len(prompt), 1)
        return Request(
            prompt=prompt,
            num_samples=num_samples,
            max_tokens=room if params.max_tokens is None else params.max_tokens,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            seed=params.seed,
            stop_tokens=tokens,
            stop_strings=strings,
        )

    def _stops(self, stop: str | Sequence[str] | Sequence[int] | None) -> tuple[frozenset[int], tuple[str, ...]]:
        end = self._base.tokenizer.eos_token_id
        always = frozenset() if end is None else frozenset([int(end)])
        if stop is None:
            return always, ()
        if isinstance(stop, str):
            return always, (stop,)
        strings = tuple(s for s in stop if isinstance(s, str))
        numbers = frozenset(int(s) for s in stop if not isinstance(s, str))
        return (numbers | always if len(stop) else frozenset()), strings


def _tokens(prompt: Any) -> list[int]:
    try:
        return prompt.to_ints()
    except (AttributeError, ValueError) as error:
        raise DataError(
            f"got {type(prompt).__name__} ({error}), expected ModelInput.from_ints(tokens)", field="prompt"
        ) from None


def _sequence(sample: Sample) -> SampledSequence:
    """The SDK's class; later versions also want an id."""
    wanted: dict[str, Any] = {
        "stop_reason": sample.stop_reason,
        "tokens_np": np.array(sample.tokens, dtype=np.int32),
        "logprobs_np": np.array(sample.logprobs, dtype=np.float32),
    }
    if any(f.name == "sequence_id" for f in fields(SampledSequence)):
        wanted["sequence_id"] = f"local-{next(_sequence_ids)}"
    return SampledSequence(**wanted)
