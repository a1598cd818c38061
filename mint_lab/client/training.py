"""A training client on this machine: the API's calls over the engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..engine.base_logprobs import fingerprint, reference_logprobs
from ..engine.batch import read_batch
from ..engine.checkpoints import load_checkpoint, save_checkpoint
from ..engine.optimizer import Optimizer
from ..engine.step import Builtin, PassResult, run_pass
from ..errors import CheckpointError, ConfigError
from ..types import (
    ForwardBackwardOutput,
    GetInfoResponse,
    LoadWeightsResponse,
    ModelData,
    OptimStepResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
    TensorData,
)
from .checkpoint_paths import CheckpointPaths
from .flat_gradient import flat_gradient
from .futures import SelfFuture, done, worker_of
from .loss_argument import builtin, custom
from .memory_limits import MemoryLimits
from .sampling import SamplingClient

if TYPE_CHECKING:
    from ..engine.models import Adapter, Weights
    from ..engine.step import Objective
    from ..losses import CustomLoss
    from ..types import AdamParams, APIFuture, Datum

__all__ = ["TrainingClient"]


class TrainingClient(SelfFuture):
    """Trains one LoRA adapter on a base model that it may share with others.

    Every call returns a future at once and runs on the base model's worker, in the order submitted. A call that fails
    leaves weights, optimizer and accumulated gradient as they were, and the client stays usable.

    Attributes:
        max_batch_tokens: tokens of a micro-batch at most; halved for good when a batch ran out of memory.
        gradient_checkpointing: whether layers are computed again in the backward pass, which saves memory.
        packs: whether the model's attention takes packed rows; otherwise every sequence has a padded row of its own.
    """

    def __init__(
        self, adapter: Adapter, paths: CheckpointPaths, model_id: str, limits: MemoryLimits | None = None
    ) -> None:
        self.model_id = model_id
        limits = (limits or MemoryLimits()).on(adapter.base)
        self.max_batch_tokens = limits.max_batch_tokens
        self.gradient_checkpointing = limits.gradient_checkpointing
        self.packs = adapter.base.packs
        self._adapter = adapter
        self._paths = paths
        self._worker = worker_of(adapter.base)
        self._optimizer = Optimizer(adapter)
        self._snapshots = 0

    def __repr__(self) -> str:
        return f"TrainingClient({self._adapter.base.name!r}, rank={self._adapter.shape.rank})"

    def forward(
        self, data: list[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None = None
    ) -> APIFuture[ForwardBackwardOutput]:
        """Log-probabilities and the value of a built-in loss, without gradients. Raises as :meth:`forward_backward`."""
        return self._pass(data, builtin(loss_fn, loss_fn_config), backward=False)

    def forward_backward(
        self,
        data: list[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None = None,
        *,
        return_gradients: bool = False,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Value and gradient of a built-in loss; the gradient is added to what has accumulated.

        Args:
            data: a non-empty batch. Losses are sums over tokens.
            loss_fn: cross_entropy, importance_sampling, ppo, cispo or dro.
            loss_fn_config: its settings, for example ``{"clip_high_threshold": 1.3}``.
            return_gradients: also give dLoss/dlogprob of every token, ``loss_fn_outputs[i]["gradients"]``.

        Returns:
            A future of the output: ``loss_fn_outputs[i]["logprobs"]`` of shape ``(N_i,)``; metrics ``loss:sum`` (nats),
            ``time:sum`` (seconds), ``passes:max`` and ``micro_batches:max``, and ``oom_retries:sum`` where memory ran
            out and the batch was done again in smaller parts.

        Raises:
            ConfigError: unknown loss or setting, crossed clip bounds (at once).
            DataError: the batch is not fit to train on (from the future).
            LossError: the loss is not finite (from the future).
            ModelError: out of memory, also with half the tokens at a time (from the future).
        """
        objective = builtin(loss_fn, loss_fn_config)
        return self._pass(data, objective, backward=True, return_gradients=return_gradients)

    def forward_backward_custom(
        self,
        data: list[Datum],
        loss_fn: CustomLoss,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
        return_gradients: bool = False,
    ) -> APIFuture[ForwardBackwardOutput]:
        """As :meth:`forward_backward` for a function ``(data, logprobs_list) -> (loss, metrics)``, in a single pass.

        The metrics are the function's own, and ``loss`` and ``loss:sum``, the value of its loss.

        Raises:
            ConfigError: ``loss_fn`` is not callable, or is to be given something else than log-probabilities (at once).
            DataError: the batch is not fit to train on (from the future).
            LossError: the function returned no finite scalar with a gradient for every datum (from the future). What
                it raises itself passes through.
        """
        objective = custom(loss_fn)
        if loss_type_input not in (None, "logprobs"):
            raise ConfigError(f"loss_type_input is {loss_type_input!r}, expected 'logprobs', the only kind there is")
        return self._pass(data, objective, backward=True, return_gradients=return_gradients)

    def weight_gradient(
        self, data: list[Datum], loss_fn: str | CustomLoss, loss_fn_config: Mapping[str, float] | None = None
    ) -> APIFuture[TensorData]:
        """dLoss/dweights at the present weights, flat: ``(parameters,)`` float32, weight by weight in PEFT's order.

        Weights, optimizer and accumulated gradient stay as they are. Raises as :meth:`forward_backward` for a name, as
        :meth:`forward_backward_custom` for a function.
        """
        objective = custom(loss_fn) if callable(loss_fn) else builtin(loss_fn, loss_fn_config)
        data = _copied(data)
        return self._worker.submit(lambda: flat_gradient(self._adapter, lambda: self._run(data, objective)))

    def optim_step(
        self, adam_params: AdamParams | None = None, *, optim_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        """One AdamW step with the accumulated gradient, which is then forgotten. Metric: ``grad_norm`` before clipping.

        Both SDK generations' keywords are taken.

        Raises:
            ConfigError: no settings, or one out of range.
            ModelError: there is no gradient, or it is not finite (from the future; weights unchanged).
        """
        settings = adam_params if adam_params is not None else optim_params
        if settings is None or not hasattr(settings, "learning_rate"):
            raise ConfigError(f"optim_step got {settings!r}, expected AdamParams(learning_rate=...)")
        return self._worker.submit(lambda: OptimStepResponse(metrics=self._optimizer.step(settings)))

    def save_state(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,
        user_metadata: dict[str, str] | None = None,
    ) -> APIFuture[SaveWeightsResponse]:
        """Save weights and optimizer under ``name``; the path in the result leads back.

        ``ttl_seconds`` and ``user_metadata`` are not used here: what is saved stays until it is deleted.

        Raises:
            ConfigError: ``name`` is not a plain name (at once).
            CheckpointError: it cannot be written, or exists and ``overwrite`` is False (from the future).
        """
        path = self._paths.uri(self.model_id, "weights", name)

        def save() -> SaveWeightsResponse:
            self._paths.check_free(path, overwrite)
            save_checkpoint(self._paths.folder(path), self._adapter, self._optimizer)
            return SaveWeightsResponse(path=path)

        return self._worker.submit(save)

    def load_state(self, path: str, weights_access_token: str | None = None) -> APIFuture[LoadWeightsResponse]:
        """Load weights; the optimizer starts afresh.

        Raises:
            CheckpointError: missing, damaged, or of another model (from the future; nothing is changed).
        """
        return self._load(path, with_optimizer=False)

    def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Load weights and the optimizer's moments. Raises as :meth:`load_state`, also for sampler weights."""
        return self._load(path, with_optimizer=True)

    def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None, user_metadata: dict[str, str] | None = None
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Save the weights alone, for ``ServiceClient.create_sampling_client(model_path)``; a name is replaced.

        Raises as :meth:`save_state`.
        """
        path = self._paths.uri(self.model_id, "sampler_weights", name)

        def save() -> SaveWeightsForSamplerResponse:
            save_checkpoint(self._paths.folder(path), self._adapter, None)
            return SaveWeightsForSamplerResponse(path=path)

        return self._worker.submit(save)

    def save_adapter(self, folder: Path) -> APIFuture[None]:
        """Save the weights alone, in PEFT's layout, in the place of ``folder``, or raise ``CheckpointError``."""
        return self._worker.submit(lambda: save_checkpoint(folder, self._adapter, None))

    def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: Any = None,
        record_stability_info: bool = False,
        kind: Literal["snapshot"] = "snapshot",
    ) -> SamplingClient:
        """A sampling client on a snapshot of the present weights, kept in memory; later training does not change it.

        The first three arguments are not used here.

        Raises:
            ConfigError: another ``kind`` than a snapshot.
        """
        if kind != "snapshot":
            raise ConfigError(f"kind is {kind!r}; only 'snapshot' is available locally")
        snapshot: APIFuture[Weights | None] = self._worker.submit(self._adapter.copy)
        return SamplingClient(self._adapter.base, self._adapter, snapshot)

    def create_sampling_client(
        self, model_path: str, retry_config: Any = None, record_stability_info: bool = False
    ) -> SamplingClient:
        """A sampling client on saved weights. The last two arguments are not used here.

        Raises:
            CheckpointError: missing, damaged, or of another model.
        """
        checkpoint = load_checkpoint(self._paths.folder(model_path))
        adapter = self._worker.run(lambda: self._adapter.base.attach(checkpoint.shape, 0))
        self._worker.run(lambda: checkpoint.load_into(adapter))
        return SamplingClient(self._adapter.base, adapter, done(None))

    def reference_logprobs(self, data: list[Datum]) -> APIFuture[list[TensorData]]:
        """Log-probabilities of ``target_tokens`` under the base model, whatever this client has learnt.

        ``mint_lab.data.with_reference`` puts them into datums, and keeps them on disk.

        Returns:
            A future of one tensor a datum, ``(N_i,)`` float32, nats.

        Raises:
            DataError: the batch is not fit for the model (from the future).
        """
        base = self._adapter.base
        data = _copied(data)

        def run() -> list[TensorData]:
            batch = read_batch(data, None, vocab_size=base.vocab_size, context=base.context)
            return [TensorData.from_numpy(row) for row in reference_logprobs(base, batch, self.max_batch_tokens)]

        return self._worker.submit(run)

    def reference_folder(self) -> Path:
        """Where the base model's log-probabilities may be kept: a folder named by a hash of its name and weights."""
        base = self._adapter.base
        if base.fingerprint is None:
            base.fingerprint = self._worker.run(lambda: fingerprint(base))
        return self._paths.home / "reference" / base.fingerprint[:32]

    def get_info(self) -> GetInfoResponse:
        """Model name, id and LoRA rank; ``model_data.arch`` also says when and why sequences run padded."""
        base = self._adapter.base
        arch = base.config.model_type
        if not base.packs:
            arch += " (runs padded: its attention takes no packed rows)"
        elif base.packs_up_to:
            arch += f" (batches with sequences above its window of {base.packs_up_to} tokens run padded)"
        return GetInfoResponse(
            type="get_info",
            model_data=ModelData(arch=arch, model_name=base.name, tokenizer_id=base.source),
            model_id=self.model_id,
            is_lora=True,
            lora_rank=self._adapter.shape.rank,
            model_name=base.name,
        )

    def get_tokenizer(self) -> Any:
        """The base model's transformers tokenizer."""
        return self._adapter.base.tokenizer

    # The *_async forms return what the SDK's do: the future of the call, or the object itself.
    async def forward_async(self, *args: Any, **kwargs: Any) -> APIFuture[ForwardBackwardOutput]:
        return self.forward(*args, **kwargs)

    async def forward_backward_async(self, *args: Any, **kwargs: Any) -> APIFuture[ForwardBackwardOutput]:
        return self.forward_backward(*args, **kwargs)

    async def forward_backward_custom_async(self, *args: Any, **kwargs: Any) -> APIFuture[ForwardBackwardOutput]:
        return self.forward_backward_custom(*args, **kwargs)

    async def weight_gradient_async(self, *args: Any, **kwargs: Any) -> APIFuture[TensorData]:
        return self.weight_gradient(*args, **kwargs)

    async def optim_step_async(self, *args: Any, **kwargs: Any) -> APIFuture[OptimStepResponse]:
        return self.optim_step(*args, **kwargs)

    async def save_state_async(self, *args: Any, **kwargs: Any) -> APIFuture[SaveWeightsResponse]:
        return self.save_state(*args, **kwargs)

    async def load_state_async(self, *args: Any, **kwargs: Any) -> APIFuture[LoadWeightsResponse]:
        return self.load_state(*args, **kwargs)

    async def load_state_with_optimizer_async(self, *args: Any, **kwargs: Any) -> APIFuture[LoadWeightsResponse]:
        return self.load_state_with_optimizer(*args, **kwargs)

    async def save_weights_for_sampler_async(
        self, *args: Any, **kwargs: Any
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        return self.save_weights_for_sampler(*args, **kwargs)

    async def save_adapter_async(self, folder: Path) -> APIFuture[None]:
        return self.save_adapter(folder)

    async def save_weights_and_get_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.save_weights_and_get_sampling_client(*args, **kwargs)

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.create_sampling_client(*args, **kwargs)

    async def reference_logprobs_async(self, data: list[Datum]) -> APIFuture[list[TensorData]]:
        return self.reference_logprobs(data)

    async def get_info_async(self) -> GetInfoResponse:
        return self.get_info()

    def _pass(
        self, data: list[Datum], objective: Objective, *, backward: bool, return_gradients: bool = False
    ) -> APIFuture[ForwardBackwardOutput]:
        data = _copied(data)

        def run() -> ForwardBackwardOutput:
            start = time.perf_counter()
            result = self._run(data, objective, backward=backward)
            return _output(result, return_gradients, time.perf_counter() - start)

        return self._worker.submit(run)

    def _run(self, data: list[Datum], objective: Objective, *, backward: bool = True) -> PassResult:
        base = self._adapter.base
        spec = objective.spec if isinstance(objective, Builtin) else None
        batch = read_batch(data, spec, vocab_size=base.vocab_size, context=base.context)
        tokens, again = self.max_batch_tokens, self.gradient_checkpointing
        result = run_pass(
            self._adapter, batch, objective, backward=backward, max_tokens=tokens, gradient_checkpointing=again
        )
        if result.oom_retries:  # otherwise this budget is no less than before, or that of a built-in loss only
            self.max_batch_tokens = result.max_tokens
        return result

    def _load(self, path: str, *, with_optimizer: bool) -> APIFuture[LoadWeightsResponse]:
        def load() -> LoadWeightsResponse:
            folder = self._paths.folder(path)
            checkpoint = load_checkpoint(folder)
            if with_optimizer and checkpoint.optimizer is None:
                raise CheckpointError(f"{folder} holds weights for a sampler, no optimizer; use load_state")
            checkpoint.load_into(self._adapter, self._optimizer if with_optimizer else None)
            if not with_optimizer:
                self._optimizer.load({})
            self._adapter.gradients = None
            return LoadWeightsResponse(path=path)

        return self._worker.submit(load)


def _copied(data: list[Datum]) -> list[Datum]:
    """The caller's list may change before its turn comes; what is no list is refused there."""
    return list(data) if isinstance(data, list | tuple) else data


def _output(result: PassResult, return_gradients: bool, seconds: float) -> ForwardBackwardOutput:
    outputs = [{"logprobs": TensorData.from_numpy(piece.numpy())} for piece in result.logprobs]
    if return_gradients:
        for output, gradient in zip(outputs, result.gradient, strict=True):
            output["gradients"] = TensorData.from_numpy(gradient.numpy())
    metrics = {
        **result.metrics,
        "loss:sum": result.loss,
        "passes:max": float(result.passes),
        "micro_batches:max": float(result.micro_batches),
        "time:sum": seconds,
    }
    if result.oom_retries:
        metrics["oom_retries:sum"] = float(result.oom_retries)
    return ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", loss_fn_outputs=outputs, metrics=metrics)
