"""The local training client: the API's calls over the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError

from ..engine.base_logprobs import fingerprint, reference_fingerprint, reference_logprobs
from ..engine.batch import read_batch
from ..engine.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from ..engine.optimizer import Optimizer, check_optimizer
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
from .loss_argument import builtin_objective, custom_objective
from .memory_limits import MemoryLimits
from .sampling import AwaitableSamplingClient, SamplingClient

if TYPE_CHECKING:
    import torch

    from ..engine.models import Adapter, Weights
    from ..engine.step import Objective
    from ..lora_options import LoraOptions
    from ..losses import CustomLoss
    from ..types import AdamParams, APIFuture, Datum

__all__ = ["AwaitableTrainingClient", "TrainingClient", "TrainingSnapshot"]

LIMITS_FILE = "client.json"


@dataclass(frozen=True)
class TrainingSnapshot:
    """What the training of one adapter continues from, to the last bit on one machine.

    Attributes:
        checkpoint: Weights and optimizer.
        max_batch_tokens, gradient_checkpointing: As in :class:`TrainingClient`. A batch that is split elsewhere has
            sums in another order, and so other last bits.
    """

    checkpoint: Checkpoint
    max_batch_tokens: int | None
    gradient_checkpointing: bool

    def write(self, folder: Path) -> None:
        """Write the files into an existing folder; on any thread.

        Raises:
            CheckpointError: If a file cannot be written.
        """
        try:
            self.checkpoint.write(folder)
            limits = {name: getattr(self, name) for name in ("max_batch_tokens", "gradient_checkpointing")}
            (folder / LIMITS_FILE).write_text(json.dumps(limits), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot write snapshot {folder}: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> TrainingSnapshot:
        """Return the snapshot in a folder.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        checkpoint = load_checkpoint(folder)
        if checkpoint.optimizer is None:
            raise CheckpointError(f"snapshot {folder} is damaged: it has no optimizer")
        try:
            return cls(checkpoint, **json.loads((folder / LIMITS_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"snapshot {folder} is damaged: {error}") from error


class TrainingClient:
    """Trains one LoRA adapter on a base model, which it may share with other clients.

    Every call returns a future at once and runs on the base model's worker, in the order submitted. A call that fails
    leaves weights, optimizer and accumulated gradient unchanged, and the client stays usable.

    Attributes:
        max_batch_tokens: Token budget of a micro-batch; after a batch ran out of memory, the largest that fitted.
        gradient_checkpointing: Whether layers are recomputed in the backward pass, which saves memory.
        packs: Whether the model computes packed sequences; if not, each sequence gets a separate padded row.
        context: Longest sequence that the model takes, tokens.
        end_tokens: The tokens that end a sample.
        notes: What a person who trains the model should know, in plain words: for example which layers have no LoRA, or
            that memory ran out.
    """

    def __init__(
        self, adapter: Adapter, paths: CheckpointPaths, model_id: str, limits: MemoryLimits | None = None
    ) -> None:
        self.model_id = model_id
        limits = (limits or MemoryLimits()).resolve(adapter.base)
        self.max_batch_tokens = limits.max_batch_tokens
        self.gradient_checkpointing = bool(limits.gradient_checkpointing)
        self.packs = adapter.base.packs
        self.context = adapter.base.context
        self.end_tokens = adapter.base.end_tokens
        self.notes = [*adapter.base.notes, *adapter.base.lora_notes(adapter)]
        self._adapter = adapter
        self._paths = paths
        self._worker = worker_of(adapter.base)
        self._optimizer = Optimizer(adapter)
        self._snapshots = 0

    def __repr__(self) -> str:
        return f"TrainingClient({self._adapter.base.name!r}, rank={self.lora.rank})"

    @property
    def lora(self) -> LoraOptions:
        """The options of the adapter."""
        return self._adapter.lora

    def forward(
        self, data: list[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None = None
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute log-probabilities and the value of a built-in loss, without the gradient of the weights or dropout.

        Arguments, result and errors are those of :meth:`forward_backward`.
        """
        return self._pass(data, builtin_objective(loss_fn, loss_fn_config), backward=False)

    def forward_backward(
        self,
        data: list[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None = None,
        *,
        return_gradients: bool = False,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute value and gradient of a built-in loss, and add the gradient to the accumulated one.

        Args:
            data: A non-empty batch. The loss is a sum over its tokens.
            loss_fn: cross_entropy, importance_sampling, ppo, cispo or dro.
            loss_fn_config: Settings of the loss, for example ``{"clip_high_threshold": 1.3}``.
            return_gradients: Whether to return dLoss/dlogprob of every token, ``loss_fn_outputs[i]["gradients"]``.

        Returns:
            A future of the output: ``loss_fn_outputs[i]["logprobs"]`` of shape ``(N_i,)``, nats; metrics ``loss:sum``
            (nats), ``time:sum`` (seconds), ``passes:max`` and ``micro_batches:max``, and ``oom_retries:sum`` if memory
            ran out: how often the batch was retried in smaller micro-batches, until these fitted.

        Raises:
            ConfigError: If the loss or a setting is unknown, or clip bounds cross (at once).
            DataError: If the batch cannot be trained on (from the future).
            LossError: If the loss is not finite (from the future).
            ModelError: If a single sequence does not fit into memory (from the future).
        """
        objective = builtin_objective(loss_fn, loss_fn_config)
        return self._pass(data, objective, backward=True, return_gradients=return_gradients)

    def forward_backward_custom(
        self,
        data: list[Datum],
        loss_fn: CustomLoss,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
        return_gradients: bool = False,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute value and gradient of a custom loss, and add the gradient to the accumulated one.

        Args:
            data: A non-empty batch.
            loss_fn: A function ``(data, logprobs_list) -> (loss, metrics)``, or a handle of
                :meth:`~mint_lab.client.service.ServiceClient.create_custom_loss`.
            loss_type_input: "logprobs" or None, which means the same.
            return_gradients: Whether to return dLoss/dlogprob of every token, ``loss_fn_outputs[i]["gradients"]``.

        Returns:
            A future as of :meth:`forward_backward`, with the function's own metrics in addition. ``loss`` and
            ``loss:sum`` are the value of its loss.

        Raises:
            ConfigError: If ``loss_fn`` is neither, or ``loss_type_input`` is something else (at once).
            DataError: If the batch cannot be trained on (from the future).
            LossError: If the function did not return a finite scalar with a gradient for every datum (from the future).
                Its own exceptions propagate unchanged.
            ModelError: If a single sequence does not fit into memory (from the future).
        """
        objective = custom_objective(loss_fn)
        if loss_type_input not in (None, "logprobs"):
            raise ConfigError(f"loss_type_input is {loss_type_input!r}, expected 'logprobs', the only type available")
        return self._pass(data, objective, backward=True, return_gradients=return_gradients)

    def weight_gradient(
        self, data: list[Datum], loss_fn: str | CustomLoss, loss_fn_config: Mapping[str, float] | None = None
    ) -> APIFuture[TensorData]:
        """Compute dLoss/dweights without changing weights, optimizer or accumulated gradient, and without dropout.

        Args:
            data: A non-empty batch.
            loss_fn: The name of a built-in loss, or a function as in :meth:`forward_backward_custom`.
            loss_fn_config: Settings of a built-in loss.

        Errors are those of :meth:`forward_backward` for a name, of :meth:`forward_backward_custom` for a function.

        Returns:
            A future of ``(parameters,)`` float32, weight by weight in PEFT's order.
        """
        objective = custom_objective(loss_fn) if callable(loss_fn) else builtin_objective(loss_fn, loss_fn_config)
        data = _copied(data)
        return self._worker.submit(lambda: flat_gradient(self._adapter, lambda: self._run(data, objective)))

    def optim_step(
        self, adam_params: AdamParams | None = None, *, optim_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        """Apply one AdamW step with the accumulated gradient, and discard the gradient.

        Args:
            adam_params: Learning rate and further settings.
            optim_params: The same; older SDKs call the argument so.

        Returns:
            A future with the metric ``grad_norm``, the norm before clipping.

        Raises:
            ConfigError: If settings are missing or of another optimizer (at once), or out of range (from the future).
            ModelError: If there is no gradient, it is not finite, the update would make a weight or a moment of the
                optimizer not finite, or memory runs out (from the future; weights and optimizer are unchanged, the
                gradient is discarded).
        """
        settings = adam_params if adam_params is not None else optim_params
        check_optimizer("optim_params", settings)
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
        """Save weights and optimizer under ``name``.

        Args:
            name: A plain name of letters, digits, dots, dashes and underscores.
            ttl_seconds: Not used: a checkpoint stays until it is deleted.
            overwrite: Whether an existing checkpoint may be replaced.
            user_metadata: Not used.

        Returns:
            A future whose ``path`` can be loaded.

        Raises:
            ConfigError: If ``name`` is not a plain name (at once).
            CheckpointError: If it cannot be written, or exists and ``overwrite`` is False (from the future).
        """
        path = self._paths.uri(self.model_id, "weights", name)

        def save() -> SaveWeightsResponse:
            self._paths.check_free(path, overwrite)
            save_checkpoint(self._paths.folder(path), self._adapter, self._optimizer)
            return SaveWeightsResponse(path=path)

        return self._worker.submit(save, saves=True)

    def load_state(self, path: str, weights_access_token: str | None = None) -> APIFuture[LoadWeightsResponse]:
        """Load weights, reset the optimizer, and discard the accumulated gradient: training starts at these weights.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, or of another model (from the future; nothing is
                changed).
        """
        return self._load(path, with_optimizer=False)

    def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Load weights and optimizer, and discard the accumulated gradient: the saved training continues.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, of another model, or has no optimizer because it is
                for a sampler (from the future; nothing is changed).
        """
        return self._load(path, with_optimizer=True)

    def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None, user_metadata: dict[str, str] | None = None
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Save the weights without the optimizer, for ``ServiceClient.create_sampling_client(model_path)``.

        An existing checkpoint of that name is replaced. The last two arguments are not used.

        Raises:
            ConfigError: If ``name`` is not a plain name (at once).
            CheckpointError: If it cannot be written (from the future).
        """
        path = self._paths.uri(self.model_id, "sampler_weights", name)

        def save() -> SaveWeightsForSamplerResponse:
            save_checkpoint(self._paths.folder(path), self._adapter, None)
            return SaveWeightsForSamplerResponse(path=path)

        return self._worker.submit(save, saves=True)

    def take_snapshot(self) -> APIFuture[TrainingSnapshot]:
        """Copy in memory what training continues from, between two calls; later training does not change the copy."""

        def copy() -> TrainingSnapshot:
            checkpoint = Checkpoint.of(self._adapter, self._optimizer)
            return TrainingSnapshot(checkpoint, self.max_batch_tokens, self.gradient_checkpointing)

        return self._worker.submit(copy)

    def restore_snapshot(self, folder: Path) -> APIFuture[None]:
        """Continue from a written snapshot: weights, optimizer, token budget; the accumulated gradient is discarded.

        Raises:
            CheckpointError: If the snapshot is missing, damaged, or of another base model or adapter shape (from the
                future; nothing is changed).
        """

        def load() -> None:
            snapshot = TrainingSnapshot.read(folder)
            snapshot.checkpoint.load_into(self._adapter, self._optimizer)
            self._adapter.gradients = None
            self.max_batch_tokens = snapshot.max_batch_tokens
            self.gradient_checkpointing = snapshot.gradient_checkpointing

        return self._worker.submit(load)

    def sampling_client_on(self, weights: Mapping[str, torch.Tensor] | None) -> AwaitableSamplingClient:
        """Return a sampling client on weights in memory, for example those of :meth:`SamplingClient.weights`."""
        snapshot = done(None if weights is None else dict(weights))
        return AwaitableSamplingClient(self._adapter.base, self._adapter, snapshot, self._paths)

    def save_adapter(self, folder: Path) -> APIFuture[None]:
        """Save the weights to ``folder`` in PEFT's layout, with the tokenizer, and replace what is there.

        Raises:
            CheckpointError: If it cannot be written (from the future).
        """
        return self._worker.submit(
            lambda: save_checkpoint(folder, self._adapter, None, with_tokenizer=True), saves=True
        )

    def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: Any = None,
        record_stability_info: bool = False,
        kind: Literal["snapshot"] = "snapshot",
    ) -> AwaitableSamplingClient:
        """Return a sampling client for a snapshot of the current weights, which later training does not change.

        The snapshot is in memory. The first three arguments are not used.

        Raises:
            ConfigError: If ``kind`` is not "snapshot".
        """
        if kind != "snapshot":
            raise ConfigError(f"kind is {kind!r}; only 'snapshot' is available locally")
        snapshot: APIFuture[Weights | None] = self._worker.submit(self._adapter.copy)
        return AwaitableSamplingClient(self._adapter.base, self._adapter, snapshot, self._paths)

    def create_sampling_client(
        self, model_path: str, retry_config: Any = None, record_stability_info: bool = False
    ) -> AwaitableSamplingClient:
        """Return a sampling client for saved weights. The last two arguments are not used.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, or of another model.
        """
        checkpoint = load_checkpoint(self._paths.folder(model_path))
        adapter = self._worker.run(lambda: self._adapter.base.attach(checkpoint.lora, 0))
        self._worker.run(lambda: checkpoint.load_into(adapter))
        return AwaitableSamplingClient(self._adapter.base, adapter, done(None), self._paths)

    def set_reference(self, reference: str) -> APIFuture[None]:
        """Choose the model that :meth:`reference_logprobs` computes with; a run does so when it begins.

        Without a call, it is the model at which the client's training started: the base model, or the base model with
        the weights that were loaded. Checkpoints with an optimizer, and snapshots, keep the reference.

        Args:
            reference: "start" for the model as it is now, "base" for the base model without the adapter, or a saved
                adapter of the same shape: what :meth:`save_state` returned, or its folder.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, or of another base model or adapter shape (from the
                future; nothing is changed).
        """

        def choose() -> None:
            if reference == "start":
                self._adapter.refer_to_current()
            elif reference == "base":
                self._adapter.start = None
            else:
                load_checkpoint(self._paths.folder(reference)).refer(self._adapter)

        return self._worker.submit(choose)

    def reference_logprobs(self, data: list[Datum]) -> APIFuture[list[TensorData]]:
        """Compute the log-probabilities of ``target_tokens`` under the reference model, see :meth:`set_reference`.

        ``mint_lab.data.with_reference`` puts them into datums, and stores them on disk.

        Returns:
            A future of one tensor for each datum, ``(N_i,)`` float32, nats.

        Raises:
            DataError: If the model cannot process the batch (from the future).
            ModelError: If a single sequence does not fit into memory (from the future).
        """
        base = self._adapter.base
        data = _copied(data)

        def run() -> list[TensorData]:
            batch = read_batch(data, None, vocab_size=base.vocab_size, context=base.context)
            fitted = reference_logprobs(self._adapter, batch, self.max_batch_tokens)
            self._keep_budget(fitted.budget, fitted.note)
            return [TensorData.from_numpy(row) for row in fitted.value]

        return self._worker.submit(run)

    def reference_folder(self) -> Path:
        """Return the folder for :meth:`reference_logprobs`, named by a hash of the model that computes them."""
        base = self._adapter.base
        if base.fingerprint is None:
            base.fingerprint = self._worker.run(lambda: fingerprint(base))
        return self._paths.home / "reference" / reference_fingerprint(self._adapter, base.fingerprint)[:32]

    def get_info(self) -> GetInfoResponse:
        """Return model name, id and LoRA rank; ``model_data.arch`` also says when and why sequences run padded."""
        base = self._adapter.base
        arch = base.config.model_type
        if not base.packs:
            arch += " (runs padded: its attention cannot run on packed rows)"
        elif base.packs_up_to:
            arch += f" (batches with sequences above its window of {base.packs_up_to} tokens run padded)"
        return GetInfoResponse(
            type="get_info",
            model_data=ModelData(arch=arch, model_name=base.name, tokenizer_id=base.source),
            model_id=self.model_id,
            is_lora=True,
            lora_rank=self.lora.rank,
            model_name=base.name,
        )

    def get_tokenizer(self) -> Any:
        """Return the base model's transformers tokenizer."""
        return self._adapter.base.tokenizer

    # The *_async forms return what the SDK's return: the future of the call, or the object itself.
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

    async def take_snapshot_async(self) -> APIFuture[TrainingSnapshot]:
        return self.take_snapshot()

    async def restore_snapshot_async(self, folder: Path) -> APIFuture[None]:
        return self.restore_snapshot(folder)

    async def sampling_client_on_async(self, weights: Mapping[str, torch.Tensor] | None) -> SamplingClient:
        return self.sampling_client_on(weights).alone()

    async def save_adapter_async(self, folder: Path) -> APIFuture[None]:
        return self.save_adapter(folder)

    async def save_weights_and_get_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.save_weights_and_get_sampling_client(*args, **kwargs).alone()

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.create_sampling_client(*args, **kwargs).alone()

    async def reference_logprobs_async(self, data: list[Datum]) -> APIFuture[list[TensorData]]:
        return self.reference_logprobs(data)

    async def set_reference_async(self, reference: str) -> APIFuture[None]:
        return self.set_reference(reference)

    async def get_info_async(self) -> GetInfoResponse:
        return self.get_info()

    def _pass(
        self, data: list[Datum], objective: Objective, *, backward: bool, return_gradients: bool = False
    ) -> APIFuture[ForwardBackwardOutput]:
        data = _copied(data)

        def run() -> ForwardBackwardOutput:
            start = time.perf_counter()
            result = self._run(data, objective, backward=backward, dropout=backward)
            return _output(result, return_gradients, time.perf_counter() - start)

        return self._worker.submit(run)

    def _run(
        self, data: list[Datum], objective: Objective, *, backward: bool = True, dropout: bool = False
    ) -> PassResult:
        base = self._adapter.base
        spec = objective.spec if isinstance(objective, Builtin) else None
        batch = read_batch(data, spec, vocab_size=base.vocab_size, context=base.context)
        result = run_pass(
            self._adapter,
            batch,
            objective,
            backward=backward,
            max_tokens=self.max_batch_tokens,
            gradient_checkpointing=self.gradient_checkpointing,
            dropout=dropout,
        )
        self._keep_budget(result.max_tokens, result.note)
        return result

    def _keep_budget(self, budget: int | None, note: str) -> None:
        """Keep a token budget that was lowered because memory ran out; then there is a note."""
        if note:  # otherwise it is the same budget, or one that is lower for built-in losses only
            self.max_batch_tokens = budget
            self.notes.append(note)

    def _load(self, path: str, *, with_optimizer: bool) -> APIFuture[LoadWeightsResponse]:
        def load() -> LoadWeightsResponse:
            folder = self._paths.folder(path)
            checkpoint = load_checkpoint(folder)
            if with_optimizer and checkpoint.optimizer is None:
                raise CheckpointError(f"{folder} has weights for a sampler and no optimizer; use load_state")
            checkpoint.load_into(self._adapter, self._optimizer if with_optimizer else None)
            if not with_optimizer:
                self._optimizer.load({})
            self._adapter.gradients = None
            return LoadWeightsResponse(path=path)

        return self._worker.submit(load)


class AwaitableTrainingClient(SelfFuture, TrainingClient):
    """What calls that are not ``async`` return: a training client that is a future of itself too."""


def _copied(data: list[Datum]) -> list[Datum]:
    """Copy the caller's list, which may change before the call runs; anything else is rejected when it runs."""
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
