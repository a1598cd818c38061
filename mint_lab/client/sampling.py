"""A sampling client on this machine: a snapshot of a model, and draws from it."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..engine.generation import (
    GenerationRequest,
    Sample,
    check_request,
    generate,
    generation_token_budget,
    prompt_logprobs,
    prompt_topk,
)
from ..errors import ConfigError, DataError
from ..types import SampledSequence, SampleResponse
from .futures import CallBatcher, SelfFuture, worker_of

if TYPE_CHECKING:
    from ..engine.models import Adapter, BaseModel, Weights
    from ..types import APIFuture, ModelInput, SamplingParams

__all__ = ["SamplingClient"]

_sequence_ids = itertools.count()
# What the API puts where there are no log-probabilities: before the first token of a prompt.
_NO_LOGPROB = -99999.0


@dataclass(frozen=True)
class _Call:
    """One call of ``sample``."""

    request: GenerationRequest
    prompt_logprobs: bool
    topk: int

    @property
    def size(self) -> int:
        """Tokens that it takes at most, prompts counted for every sample."""
        return self.request.num_samples * (len(self.request.prompt) + self.request.max_tokens)


@dataclass(frozen=True, slots=True)
class _Topk:
    """Twin of the SDK's class of these matrices, ``(length, k)``; its name differs between the SDK's versions."""

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class SamplingClient(SelfFuture):
    """Draws from a fixed snapshot: training that goes on does not change it.

    Calls of ``sample`` that wait for the model one behind another are generated as one batch, which takes far less time
    than one by one: submit them all, then wait for the results. Each gets what it would have got alone.
    """

    def __init__(self, base: BaseModel, adapter: Adapter | None, snapshot: APIFuture[Weights | None]) -> None:
        """``adapter`` None: the base model alone; ``snapshot`` None: the adapter as it is, which nobody trains."""
        self._base = base
        self._adapter = adapter
        self._snapshot = snapshot
        self._worker = worker_of(base)
        self._together = CallBatcher(self._run, generation_token_budget(base))
        self._warned = False

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

        The log-probabilities returned are those of the distribution that the tokens were drawn from: after temperature,
        top_k and top_p, renormalised. A trainer's are at temperature 1 without truncation; where the sampler's are not,
        a :class:`UserWarning` says, once a client, that importance ratios between the two do not start at 1 and that a
        truncated distribution leaves out what the trainer's has. Temperature 0 takes the most likely token, whatever
        top_k and top_p, and gives its log-probability at temperature 1: no warning, as nothing is drawn.

        Args:
            sampling_params: max_tokens, temperature, top_k, top_p, seed, and stop: strings or token ids that end a
                sample besides the end-of-text token, which does unless stop is an empty list. A sample's last token is
                the one that ended it. The same seed gives the same tokens, whatever else is generated with it.
            include_prompt_logprobs: also give the prompt's own log-probabilities (first entry None).
            topk_prompt_logprobs: also give so many of the most likely tokens at each position of the prompt, most
                likely first, as ``(token, log-probability)`` (first entry None).
            The other arguments are the hosted service's and have to be left at their defaults.

        Returns:
            A future; ``sequences[j]`` has tokens, logprobs (of the distribution sampled from, nats) and stop_reason.

        Raises:
            ConfigError: a parameter is out of range, or one is used that this engine has not.
            DataError: the prompt is no text, empty, too long, or has tokens outside the vocabulary (the last three from
                the future).
        """
        hosted = {
            "topk_sample_logprobs": topk_sample_logprobs,
            "target_prompt_logprobs": target_prompt_logprobs,
            "prompt_alt_tokens_k": prompt_alt_tokens_k,
            "prompt_logprobs_last_n": prompt_logprobs_last_n,
        }
        used = [name for name, value in hosted.items() if value is not None and value != 0]
        if used:
            raise ConfigError(f"{used[0]} is not available locally; use compute_logprobs for given tokens")
        call = self._call(prompt, num_samples, sampling_params, include_prompt_logprobs, topk_prompt_logprobs)
        self._warn(call.request)
        return self._worker.submit_to(self._together, call, call.size)

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

    def sample_async(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, SampleResponse]:
        """As :meth:`sample`, for ``await``; the call is in the queue at once."""
        return self.sample(*args, **kwargs).result_async()

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

    def _run(self, calls: Sequence[_Call]) -> list[SampleResponse | Exception]:
        """All calls as one batch; a call whose prompt is unfit gets its error, and the others their samples."""
        found: list[SampleResponse | Exception] = []
        refused = [self._refusal(call) for call in calls]
        good = [call for call, error in zip(calls, refused, strict=True) if error is None]
        with self._base.using(self._adapter, self._snapshot.result()):
            samples = iter(generate(self._base, [call.request for call in good]))
            for call, error in zip(calls, refused, strict=True):
                found.append(self._response(call, next(samples)) if error is None else error)
        return found

    def _refusal(self, call: _Call) -> DataError | None:
        try:
            check_request(self._base, call.request)
        except DataError as error:
            return error.with_traceback(None)
        return None

    def _response(self, call: _Call, samples: list[Sample]) -> SampleResponse:
        prompt = call.request.prompt
        logprobs = topk = None
        if call.prompt_logprobs:
            logprobs = np.array([np.nan, *prompt_logprobs(self._base, prompt)[1:]], np.float32)
        if call.topk:
            ids, values = prompt_topk(self._base, prompt, call.topk)
            topk = _Topk(
                token_ids=np.pad(ids, ((1, 0), (0, 0))),
                logprobs=np.pad(values, ((1, 0), (0, 0)), constant_values=_NO_LOGPROB),
            )
        return SampleResponse(
            sequences=[_sequence(s) for s in samples],
            prompt_logprobs_np=logprobs,
            topk_prompt_logprobs_np=cast("Any", topk),
        )

    def _warn(self, request: GenerationRequest) -> None:
        drawn = request.temperature != 0
        changed = request.temperature != 1 or request.top_k != -1 or request.top_p < 1
        if drawn and changed and not self._warned:
            self._warned = True
            level, frame = 1, inspect.currentframe()
            while frame is not None and frame.f_globals is globals():  # sample or sample_async may be the entry
                level, frame = level + 1, frame.f_back
            warnings.warn(
                f"temperature={request.temperature:g}, top_k={request.top_k}, top_p={request.top_p:g}: the samples' "
                "log-probabilities are those of this changed distribution and a trainer's are not, so importance "
                "ratios between them are biased; where ratios matter sample with temperature=1, top_k=-1, top_p=1",
                UserWarning,
                stacklevel=level,
            )

    def _call(
        self, prompt: ModelInput, num_samples: int, params: SamplingParams, prompt_logprobs: bool, topk: int
    ) -> _Call:
        if isinstance(topk, bool) or not isinstance(topk, Integral) or not 0 <= topk <= self._base.vocab_size:
            raise ConfigError(f"topk_prompt_logprobs is {topk!r}, expected 0 to {self._base.vocab_size}")
        return _Call(self._request(_tokens(prompt), num_samples, params), bool(prompt_logprobs), int(topk))

    def _request(self, prompt: list[int], num_samples: int, params: SamplingParams) -> GenerationRequest:
        if not hasattr(params, "max_tokens"):
            raise ConfigError(f"sampling_params is {params!r}, expected SamplingParams(max_tokens=...)")
        tokens, strings = self._stops(params.stop)
        room = max(self._base.context - len(prompt), 1)
        return GenerationRequest(
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
