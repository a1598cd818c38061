"""The local sampling client: it samples from a snapshot of a model."""

from __future__ import annotations

import inspect
import itertools
import json
import uuid
import warnings
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.batch import check_tokens
from ..engine.checkpoints import load_base_of, load_checkpoint, save_checkpoint
from ..engine.generation import (
    GenerationRequest,
    Sample,
    check_request,
    generate,
    generation_token_budget,
)
from ..engine.memory import max_useful_tokens
from ..engine.models import load_base
from ..engine.prompt_scores import PromptQuestions, prompt_logprobs, score_prompt
from ..errors import ConfigError, DataError
from ..types import SampledSequence, SampleResponse, TensorData
from .checkpoint_paths import CheckpointPaths, default_home
from .futures import CallBatcher, SelfFuture, done, worker_of

if TYPE_CHECKING:
    from ..engine.models import Adapter, BaseModel, Weights
    from ..types import APIFuture, ModelInput, SamplingParams

__all__ = ["AwaitableSamplingClient", "SamplingClient", "sampling_client_of"]

_sequence_ids = itertools.count()
# The API's value for the log-probabilities that do not exist: those of a prompt's first token.
_NO_LOGPROB = -99999.0


@dataclass(frozen=True)
class _SampleCall:
    """One call of ``sample``.

    Attributes:
        request: What to generate.
        prompt_logprobs: Whether to return the prompt's log-probabilities.
        questions: What else to return at each position of the prompt.
    """

    request: GenerationRequest
    prompt_logprobs: bool
    questions: PromptQuestions

    @property
    def size(self) -> int:
        """The largest number of tokens that it can take, the prompt counted for every sample."""
        return self.request.num_samples * (len(self.request.prompt) + self.request.max_tokens)


@dataclass(frozen=True, slots=True)
class _Topk:
    """The same as the SDK's class of these matrices, whose name differs between versions of the SDK.

    Attributes:
        token_ids: ``(length, k)``.
        logprobs: ``(length, k)``, nats.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _AlternativeTokens:
    """The same as the SDK's ``PromptAltTokens``, which older versions lack.

    Attributes:
        tokens: int64, ``(length - 1, k)``.
        logprobs: float32, ``(length - 1, k)``, nats.
    """

    tokens: TensorData
    logprobs: TensorData


class SamplingClient:
    """Samples from a fixed snapshot of a model, which further training does not change.

    Consecutive calls of ``sample`` that wait for the model are generated as one batch, and consecutive calls of
    ``compute_logprobs`` are one pass, which takes much less time than one call after the other: submit all of them,
    then wait for the results. Each call gets the same samples as alone.

    Args:
        base: The base model.
        adapter: The adapter to use; None for the base model alone.
        snapshot: A future of weights that replace the adapter's; of None if the adapter is not trained any further.
        paths: Where :meth:`get_sampler_handle` saves the weights.
    """

    def __init__(
        self, base: BaseModel, adapter: Adapter | None, snapshot: APIFuture[Weights | None], paths: CheckpointPaths
    ) -> None:
        self._paths = paths
        self._handle: str | None = None
        self._base = base
        self._adapter = adapter
        self._snapshot = snapshot
        self._worker = worker_of(base)
        budget = generation_token_budget(base)
        self._batcher = CallBatcher(self._run, budget)
        self._logprobs_batcher = CallBatcher(self._run_logprobs, min(budget, max_useful_tokens(base.device) or budget))
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

        The log-probabilities returned are those of the distribution sampled from: after temperature, top_k and top_p,
        renormalised. A trainer's are at temperature 1 without truncation. If the sampler's are not, each client issues
        one :class:`UserWarning`: importance ratios between the two do not start at 1, and a truncated distribution
        lacks tokens that the trainer's has. Temperature 0 selects the most likely token, whatever top_k and top_p are,
        and returns its log-probability at temperature 1; nothing is sampled, so there is no warning.

        Args:
            prompt: The prompt's tokens.
            num_samples: Number of samples.
            sampling_params: max_tokens, temperature, top_k, top_p, seed, and stop: strings or token ids that end a
                sample. The end-of-text token ends it too, unless stop is an empty list. The token that ends a sample
                is its last one. The same seed gives the same tokens, whatever else is generated with it.
            include_prompt_logprobs: Whether to return the prompt's own log-probabilities (the first entry is None).
            topk_prompt_logprobs: How many of the most likely tokens to return at each position of the prompt, as
                ``(token, log-probability)``, the most likely first (the first entry is None).
            topk_sample_logprobs: How many of the most likely tokens to return with each sampled token, with the
                log-probabilities of the distribution sampled from; truncation may leave fewer.
            target_prompt_logprobs: int64 token ids ``(len(prompt) - 1, K)`` whose log-probabilities to return: row i
                stands in the place of token i + 1. -1 for none.
            prompt_alt_tokens_k: How many tokens to draw, with replacement and at the request's temperature, in the
                place of each token of the prompt but the first. Their log-probabilities are at temperature 1.
            prompt_logprobs_last_n: Only the last n tokens of the prompt get log-probabilities and most likely tokens.

        Returns:
            A future; ``sequences[j]`` has tokens, logprobs (nats, as above), stop_reason and topk_logprobs. Fields that
                the installed version of the SDK lacks are refused.

        Raises:
            ConfigError: If a parameter is out of range, or the installed SDK has no field for its result (at once).
            DataError: If the prompt is not text (at once), is empty or too long, or has tokens outside the vocabulary
                (from the future).
        """
        request = self._request(_tokens(prompt), num_samples, sampling_params, topk_sample_logprobs)
        if prompt_logprobs_last_n is not None and not (include_prompt_logprobs or topk_prompt_logprobs):
            raise ConfigError(
                "prompt_logprobs_last_n is given, but no log-probabilities of the prompt are requested; "
                "set include_prompt_logprobs=True or topk_prompt_logprobs"
            )
        questions = PromptQuestions(
            topk=self._count("topk_prompt_logprobs", topk_prompt_logprobs),
            targets=self._targets(request.prompt, target_prompt_logprobs),
            draws=self._count("prompt_alt_tokens_k", prompt_alt_tokens_k, SampleResponse, "prompt_alt_tokens"),
            temperature=request.temperature,
            random=np.random.default_rng(None if request.seed is None else [int(request.seed) % 2**64, 1]),
            last=_last(prompt_logprobs_last_n),
        )
        call = _SampleCall(request, bool(include_prompt_logprobs), questions)
        self._warn_if_distribution_changed(call.request)
        return self._worker.submit_to(self._batcher, call, call.size)

    def compute_logprobs(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> APIFuture[list[float | None]]:
        """Compute the log-probability of each token of ``prompt`` given those before it.

        Args:
            prompt: The prompt's tokens.
            prompt_logprobs_last_n: Only the last n tokens get one; None for all.

        Returns:
            A future of log-probabilities in nats; None for the first token, and for those that get none.

        Raises:
            ConfigError: If ``prompt_logprobs_last_n`` is below 1 (at once).
            DataError: If the prompt is not text (at once), is empty or too long, or has tokens outside the vocabulary
                (from the future).
        """
        tokens = _tokens(prompt)
        return self._worker.submit_to(self._logprobs_batcher, (tokens, _last(prompt_logprobs_last_n)), len(tokens))

    def sample_async(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, SampleResponse]:
        """Call :meth:`sample` at once, and return a coroutine of its result."""
        return self.sample(*args, **kwargs).result_async()

    async def compute_logprobs_async(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> list[float | None]:
        return await self.compute_logprobs(prompt, prompt_logprobs_last_n)

    def weights(self) -> Weights | None:
        """Return the weights that replace the adapter's; None if the adapter is not trained any further."""
        return self._snapshot.result()

    def get_sampler_handle(self) -> str:
        """Return a text with which :meth:`from_sampler_handle` makes the same client, also in another process.

        The first call saves the weights as a checkpoint of a run of its own, which stays until it is deleted. Pickling
        a client does the same, so a client can be an argument of a worker process.

        Raises:
            CheckpointError: If the weights cannot be saved.
        """
        if self._handle is None:
            base, adapter = self._base, self._adapter
            handle = {
                "device": str(base.device),
                "dtype": str(next(iter(base.weights.values())).dtype).removeprefix("torch."),
            }
            if adapter is None:
                handle["base_model"] = base.name
            else:
                run = f"sampler-{uuid.uuid4().hex[:12]}"
                folder = self._paths.folder(self._paths.uri(run, "sampler_weights", "handle")).absolute()

                def save() -> None:
                    with base.using(adapter, self._snapshot.result()):
                        save_checkpoint(folder, adapter, None)

                self._worker.run(save)
                handle["model_path"] = str(folder)
            self._handle = json.dumps(handle)
        return self._handle

    @staticmethod
    def from_sampler_handle(handle: str, *, api_key: str | None = None) -> SamplingClient:
        """Return the client of a handle. ``api_key`` is of the hosted service, and not used.

        Raises:
            ConfigError: If ``handle`` is none of :meth:`get_sampler_handle` here.
            CheckpointError: If its checkpoint was deleted, or is damaged.
            ModelError: If its base model cannot be loaded.
        """
        try:
            values = json.loads(handle)
            device, dtype, name = values["device"], values["dtype"], values.get("base_model")
            path = values["model_path"] if name is None else None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{handle!r} is no handle of a sampler here; expected what get_sampler_handle() returns"
            ) from None

        def load(base_model: str) -> BaseModel:
            return load_base(base_model, device, dtype)

        paths = CheckpointPaths(default_home())
        return sampling_client_of(load, paths, model_path=path, base_model=name)

    def __reduce__(self) -> tuple[Any, ...]:
        return SamplingClient.from_sampler_handle, (self.get_sampler_handle(),)

    def get_tokenizer(self) -> Any:
        """Return the base model's transformers tokenizer."""
        return self._base.tokenizer

    def get_base_model(self) -> str:
        """Return the name of the base model."""
        return self._base.name

    async def get_base_model_async(self) -> str:
        return self.get_base_model()

    def _run(self, calls: Sequence[_SampleCall]) -> list[SampleResponse | Exception]:
        """Run all calls as one batch. A call with an invalid prompt gets its error, and the others their samples."""
        results: list[SampleResponse | Exception] = []
        errors = [_data_error(check_request, self._base, call.request) for call in calls]
        valid = [call for call, error in zip(calls, errors, strict=True) if error is None]
        with self._base.using(self._adapter, self._snapshot.result()):
            samples = iter(generate(self._base, [call.request for call in valid]))
            for call, error in zip(calls, errors, strict=True):
                results.append(self._response(call, next(samples)) if error is None else error)
        return results

    def _run_logprobs(self, calls: Sequence[tuple[list[int], int | None]]) -> list[list[float | None] | Exception]:
        """Compute the log-probabilities of all prompts in one pass; an invalid prompt gets its error.

        Args:
            calls: Of each call the tokens, and how many of the last ones get a log-probability.
        """
        base = self._base
        errors = [_data_error(check_tokens, tokens, base.vocab_size, base.context) for tokens, _ in calls]
        valid = [call for call, error in zip(calls, errors, strict=True) if error is None]
        with base.using(self._adapter, self._snapshot.result()):
            found = iter(prompt_logprobs(base, [tokens for tokens, _ in valid], [last for _, last in valid]))
        return [next(found) if error is None else error for error in errors]

    def _response(self, call: _SampleCall, samples: list[Sample]) -> SampleResponse:
        prompt, questions = call.request.prompt, call.questions
        values: dict[str, Any] = {"sequences": [_sequence(s, call.request.topk) for s in samples]}
        if call.prompt_logprobs:
            (logprobs,) = prompt_logprobs(self._base, [prompt], [questions.last])
            values["prompt_logprobs_np"] = np.array(logprobs, np.float32)  # NaN for None
        if questions.topk or questions.draws or questions.targets is not None:
            scores = score_prompt(self._base, prompt, questions)
            if questions.topk:
                without = ((len(prompt) - len(scores.topk_ids), 0), (0, 0))
                values["topk_prompt_logprobs_np"] = _Topk(
                    token_ids=np.pad(scores.topk_ids, without),
                    logprobs=np.pad(scores.topk_logprobs, without, constant_values=_NO_LOGPROB),
                )
            if questions.targets is not None:
                values["target_prompt_logprobs"] = TensorData.from_numpy(scores.target_logprobs)
            if questions.draws:
                values["prompt_alt_tokens"] = _AlternativeTokens(
                    TensorData.from_numpy(scores.drawn_ids), TensorData.from_numpy(scores.drawn_logprobs)
                )
        return SampleResponse(**values)

    def _warn_if_distribution_changed(self, request: GenerationRequest) -> None:
        is_sampled = request.temperature != 0
        is_changed = request.temperature != 1 or request.top_k != -1 or request.top_p < 1
        if is_sampled and is_changed and not self._warned:
            self._warned = True
            level, frame = 1, inspect.currentframe()
            # The warning names the caller's line; the frames of this module, which may be sample_async's, are skipped.
            while frame is not None and frame.f_globals is globals():
                level, frame = level + 1, frame.f_back
            warnings.warn(
                f"temperature={request.temperature:g}, top_k={request.top_k}, top_p={request.top_p:g}: the samples' "
                "log-probabilities are those of this changed distribution and a trainer's are not, so importance "
                "ratios between them are biased; if ratios matter, sample with temperature=1, top_k=-1, top_p=1",
                UserWarning,
                stacklevel=level,
            )

    def _count(self, name: str, value: int, response: type = SampleResponse, field: str = "") -> int:
        """Check an argument that is a number of tokens, and that the SDK's response has a field for the result."""
        if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= self._base.vocab_size:
            raise ConfigError(f"{name} is {value!r}, expected 0 to {self._base.vocab_size}")
        if value and field:
            _check_field(name, response, field)
        return int(value)

    def _targets(self, prompt: list[int], given: Any) -> NDArray[np.int64] | None:
        if given is None:
            return None
        _check_field("target_prompt_logprobs", SampleResponse, "target_prompt_logprobs")
        try:
            targets = np.asarray(given.to_numpy() if hasattr(given, "to_numpy") else given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"target_prompt_logprobs cannot be read as an array: {error}") from None
        if targets.ndim != 2 or targets.dtype.kind not in "iu" or len(targets) != len(prompt) - 1:
            raise ConfigError(
                f"target_prompt_logprobs has shape {targets.shape} and type {targets.dtype}, expected whole numbers of "
                f"shape ({len(prompt) - 1}, K): token ids in the place of each token of the prompt but the first"
            )
        if targets.size and not -1 <= targets.min() <= targets.max() < self._base.vocab_size:
            raise ConfigError(
                f"target_prompt_logprobs has token ids from {targets.min()} to {targets.max()}, expected -1 (none) to "
                f"{self._base.vocab_size - 1}"
            )
        return targets.astype(np.int64)

    def _request(self, prompt: list[int], num_samples: int, params: SamplingParams, topk: int) -> GenerationRequest:
        if not hasattr(params, "max_tokens"):
            raise ConfigError(f"sampling_params is {params!r}, expected SamplingParams(max_tokens=...)")
        tokens, strings = self._stops(params.stop)
        remaining = max(self._base.context - len(prompt), 1)  # if it is less, generation raises the error
        return GenerationRequest(
            prompt=prompt,
            num_samples=num_samples,
            max_tokens=remaining if params.max_tokens is None else params.max_tokens,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            seed=params.seed,
            stop_tokens=tokens,
            stop_strings=strings,
            topk=self._count("topk_sample_logprobs", topk, SampledSequence, "topk_logprobs_np"),
        )

    def _stops(self, stop: str | Sequence[str] | Sequence[int] | None) -> tuple[frozenset[int], tuple[str, ...]]:
        """Return the token ids and the strings that end a sample."""
        end_of_text = self._base.end_tokens
        if stop is None:
            return end_of_text, ()
        if isinstance(stop, str):
            return end_of_text, (stop,)
        strings = tuple(s for s in stop if isinstance(s, str))
        token_ids = frozenset(int(s) for s in stop if not isinstance(s, str))
        return (token_ids | end_of_text if len(stop) else frozenset()), strings


class AwaitableSamplingClient(SelfFuture, SamplingClient):
    """What calls that are not ``async`` return: a sampling client that is a future of itself too."""


def sampling_client_of(
    load: Callable[[str], BaseModel], paths: CheckpointPaths, *, model_path: str | None, base_model: str | None = None
) -> AwaitableSamplingClient:
    """Return a client of saved weights, or of a base model alone if there is no ``model_path``.

    Args:
        load: Loads a base model by its name.
        paths: Where checkpoints are.
        model_path: Path of a checkpoint, or the folder of an adapter.
        base_model: Name of a base model.

    Raises:
        CheckpointError: If the checkpoint is missing or damaged.
        ModelError: If the base model cannot be loaded.
    """
    if model_path is None:
        assert base_model is not None
        return AwaitableSamplingClient(load(base_model), None, done(None), paths)
    checkpoint = load_checkpoint(paths.folder(model_path))
    base = load_base_of(checkpoint.base_model, model_path, load)
    worker = worker_of(base)
    adapter = worker.run(lambda: base.attach(checkpoint.lora, 0))
    worker.run(lambda: checkpoint.load_into(adapter))
    return AwaitableSamplingClient(base, adapter, done(None), paths)


def _data_error(check: Callable[..., None], *args: Any) -> DataError | None:
    """Return the error that ``check`` raises for one call; the calls that run together with it are not concerned."""
    try:
        check(*args)
    except DataError as error:
        return error.with_traceback(None)  # the traceback would keep the whole batch alive
    return None


def _tokens(prompt: Any) -> list[int]:
    try:
        return prompt.to_ints()
    except (AttributeError, ValueError) as error:
        raise DataError(
            f"got {type(prompt).__name__} ({error}), expected ModelInput.from_ints(tokens)", field="prompt"
        ) from None


def _last(count: Any) -> int | None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, Integral) or count < 1):
        raise ConfigError(f"prompt_logprobs_last_n is {count!r}, expected 1 or more, or None for all tokens")
    return None if count is None else int(count)


def _check_field(argument: str, response: type, name: str) -> None:
    if all(field.name != name for field in fields(response)):
        raise ConfigError(
            f"{argument} needs a later version of tinker: {response.__name__} of version {version('tinker')} has no "
            f"field {name!r} for the result; upgrade it with pip install -U tinker"
        )


def _sequence(sample: Sample, topk: int) -> SampledSequence:
    """Return a sample as the SDK's class; later versions require an id."""
    values: dict[str, Any] = {
        "stop_reason": sample.stop_reason,
        "tokens_np": np.array(sample.tokens, dtype=np.int32),
        "logprobs_np": np.array(sample.logprobs, dtype=np.float32),
    }
    if any(f.name == "sequence_id" for f in fields(SampledSequence)):
        values["sequence_id"] = f"local-{next(_sequence_ids)}"
    if topk:
        ids, logprobs = np.zeros((len(sample.tokens), topk), np.int32), np.full((len(sample.tokens), topk), _NO_LOGPROB)
        for row, pairs in enumerate(sample.topk):
            ids[row, : len(pairs)], logprobs[row, : len(pairs)] = zip(*pairs, strict=True)
        values["topk_logprobs_np"] = _Topk(ids, logprobs.astype(np.float32))
    return SampledSequence(**values)
