"""The local service: the API's calls without a key and without a server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Self

from ..engine.checkpoints import load_base_of, load_checkpoint
from ..engine.models import BaseModel, load_base
from ..engine.optimizer import check_optimizer
from ..errors import CheckpointError, ConfigError
from ..lora_options import LoraOptions, adapter_folder, merge_rank
from ..types import GetServerCapabilitiesResponse, SupportedModel
from .checkpoint_paths import CheckpointPaths, default_home
from .futures import done, worker_of
from .loss_argument import traced_loss
from .memory_limits import MemoryLimits
from .rest import RestClient
from .sampling import AwaitableSamplingClient, SamplingClient, sampling_client_of
from .training import AwaitableTrainingClient, TrainingClient

if TYPE_CHECKING:
    from ..types import APIFuture, LossHandle

__all__ = ["ServiceClient"]


class ServiceClient:
    """Creates training and sampling clients on this machine, with the calls of ``tinker.ServiceClient``.

    Args:
        home: Folder for checkpoints; None for ``$MINT_LAB_HOME`` or ``~/.mint_lab``.
        device: "cuda", "mps" or "cpu"; None for the best device available.
        dtype: Type of the frozen weights, "float32" or "bfloat16"; None for bfloat16 on a CUDA device that supports
            it, otherwise float32. Adapters, log-probabilities and losses are always float32.
        max_batch_tokens: Tokens that run through the model at a time in training, shared prefixes counted once. A
            larger batch is split into micro-batches, with the same result. None for what half of the free memory holds
            when a client is created.
        gradient_checkpointing: Whether to recompute each layer in the backward pass instead of keeping its activations:
            less memory, about a third more time. None, unless ``max_batch_tokens`` is given, for True on a CUDA device
            whose free memory holds fewer than 4,096 tokens otherwise, if the model supports it.
        trust_remote_code: Whether to run Python code that comes with a model, if the model needs any.
        base_url: Must be None: there is no server to connect to. This argument and all that follow are those of a
            hosted client, so that its programs run here unchanged; they are not used.
        api_key: Not used.
        user_metadata: Not used.
        project_id: Not used.
        display_name: Not used.
        default_headers_overrides: Not used.

    Raises:
        ConfigError: If a ``base_url`` is given, ``home`` is not a path, or a limit has the wrong type or is out of
            range.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int | None = None,
        gradient_checkpointing: bool | None = None,
        trust_remote_code: bool = False,
        base_url: str | None = None,
        api_key: str | None = None,
        user_metadata: Mapping[str, str] | None = None,
        project_id: str | None = None,
        display_name: str | None = None,
        default_headers_overrides: Mapping[str, str] | None = None,
    ) -> None:
        if base_url is not None:
            raise ConfigError(
                f"base_url is {base_url!r}, but this client trains on this machine; "
                f"mint_lab.client.connect({base_url!r}) returns a client of a server"
            )
        if not isinstance(home, (str, os.PathLike, NoneType)):
            raise ConfigError(f"home is {home!r}, expected a folder; pass a hosted client's arguments by name")
        self._paths = CheckpointPaths(Path(home).expanduser() if home is not None else default_home())
        self._device = device
        self._dtype = dtype
        self._trust_remote_code = trust_remote_code
        self._limits = MemoryLimits(max_batch_tokens, gradient_checkpointing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, status: str = "success", detail: str | None = None) -> APIFuture[None]:
        """Do nothing: clients and base models are freed when they are no longer used. The arguments are not used."""
        return done(None)

    def create_lora_training_client(  # noqa: PLR0917, the SDK's signature
        self,
        base_model: str = "mint-tiny",
        rank: int | None = None,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: dict[str, str] | None = None,
        optimizer: Any = None,
        *,
        lora: LoraOptions | None = None,
        max_batch_tokens: int | None = None,
        gradient_checkpointing: bool | None = None,
    ) -> AwaitableTrainingClient:
        """Create a client that trains a new LoRA adapter, or continues a saved one.

        Args:
            base_model: "mint-tiny" (bundled, also "mint-lab/mint-tiny"), a model directory, or a hub name such as
                "Qwen/Qwen3-0.6B". Or the folder of an adapter in PEFT's layout: its base model is loaded, and training
                starts at its weights, with a new optimizer. The rank and the layers are its own.
            rank: Rank of the update of each layer; None for that of ``lora``, or 32.
            seed: Seed of LoRA's initial weights and of dropout; None for a random one.
            train_mlp: Whether the MLP's layers carry LoRA.
            train_attn: Whether the attention's layers carry LoRA.
            train_unembed: Whether the LM head carries LoRA.
            user_metadata: Not used.
            optimizer: ``AdamOptimizerConfig`` or None, which means the same.
            lora: All options of the adapter. Of a saved one, only ``dropout`` can differ.
            max_batch_tokens: As in the service, for this client only; None for the service's.
            gradient_checkpointing: As in the service, for this client only; None for the service's.

        Raises:
            ModelError: If the model cannot be found or loaded, it has no such layers, the rank is above the smaller
                dimension of all of them, dropout is requested for the experts of a mixture, or the model does not
                support the requested gradient checkpointing.
            CheckpointError: If the folder of an adapter is damaged, or has a feature that cannot be trained.
            ConfigError: If ``optimizer`` is another one, the seed or the rank is not a whole number, no kind of layer
                carries LoRA, ``lora`` and other arguments or the saved adapter disagree, or a limit has the wrong type
                or is out of range.
        """
        check_optimizer("optimizer", optimizer)
        if seed is not None and not isinstance(seed, Integral):
            raise ConfigError(f"seed is {seed!r}, expected a whole number or None")
        kinds = {"mlp": train_mlp, "attn": train_attn, "unembed": train_unembed}
        requested = _Requested(rank, lora, [kind for kind, train in kinds.items() if not train])
        options = requested.new_options()
        limits = self._limits.override(max_batch_tokens, gradient_checkpointing)
        folder = adapter_folder(base_model)
        if folder is not None:
            return self._continued_client(folder, requested, seed, limits)
        base = self._base(base_model)
        base.check_new(options)
        return self._training_client(base, options, seed, limits)

    def create_training_client_from_state(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
        optimizer: Any = None,
    ) -> AwaitableTrainingClient:
        """Create a client with the weights saved at ``path`` and a new optimizer.

        Args:
            path: Path of a checkpoint.
            base_model: Name of its base model; None for the one that the checkpoint names.
            user_metadata: Not used.
            weights_access_token: Not used.
            optimizer: As in :meth:`create_lora_training_client`.

        Raises:
            CheckpointError: If the checkpoint is missing, damaged, or of another base model.
            ConfigError: If ``optimizer`` is another one than AdamW.
            ModelError: If its base model cannot be loaded.
        """
        check_optimizer("optimizer", optimizer)
        return self._from_state(path, base_model, with_optimizer=False)

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> AwaitableTrainingClient:
        """Create a client with the weights and the optimizer saved at ``path``.

        Arguments and errors are those of :meth:`create_training_client_from_state`. A checkpoint without an optimizer,
        for a sampler, also raises CheckpointError.
        """
        return self._from_state(path, base_model, with_optimizer=True)

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: Any = None,
        record_stability_info: bool = False,
    ) -> AwaitableSamplingClient:
        """Create a sampling client for saved weights, or for a base model without an adapter.

        Args:
            model_path: Path of a checkpoint, or the folder of an adapter in PEFT's layout; None for ``base_model``.
            base_model: Name of a base model, or the folder of an adapter; used if ``model_path`` is None.
            retry_config: Not used.
            record_stability_info: Not used.

        Raises:
            ConfigError: If neither is given.
            CheckpointError: If the checkpoint is missing or damaged.
            ModelError: If the base model cannot be loaded.
        """
        if model_path is None:
            if base_model is None:
                raise ConfigError("create_sampling_client needs model_path (saved weights) or base_model")
            if adapter_folder(base_model) is not None:
                model_path = base_model
        return sampling_client_of(self._base, self._paths, model_path=model_path, base_model=base_model)

    def create_custom_loss(self, fn: Any, input_ranks: Mapping[str, Any]) -> APIFuture[LossHandle]:
        """Trace a loss of one datum; its handle is an argument of ``forward_backward_custom``.

        A handle is what a server can run itself. Here it is run datum by datum, and gives what the function gives.

        Args:
            fn: ``(logprobs, *inputs) -> (loss, metrics)``; see :func:`~mint_lab.client.loss_argument.traced_loss`.
            input_ranks: Rank of each of its arguments.

        Raises:
            ConfigError: If it cannot be traced, or the installed SDK has no such call (at once).
        """
        return done(traced_loss(fn, input_ranks))

    def copy_weights(
        self, path: str, *, ttl_seconds: int | None = None, weights_access_token: str | None = None
    ) -> APIFuture[str]:
        """Copy a checkpoint, as :meth:`~mint_lab.client.rest.RestClient.copy_weights` does."""
        return self.create_rest_client().copy_weights(path)

    def get_console_url(self) -> str:
        """Return the address of the folder that holds the checkpoints; the hosted service has a page there."""
        return self._paths.home.absolute().as_uri()

    def get_telemetry(self) -> None:
        """Return None: nothing is reported to anybody."""

    def create_rest_client(self) -> RestClient:
        """Create a client that lists and deletes the checkpoints under ``home``."""
        return RestClient(self._paths)

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Return the bundled model as the only supported one; directories and hub names are accepted too."""
        return GetServerCapabilitiesResponse(supported_models=[SupportedModel(model_name="mint-tiny")])

    async def create_lora_training_client_async(self, *args: Any, **kwargs: Any) -> TrainingClient:
        return self.create_lora_training_client(*args, **kwargs).alone()

    async def create_training_client_from_state_async(self, path: str, **kwargs: Any) -> TrainingClient:
        return self.create_training_client_from_state(path, **kwargs).alone()

    async def create_training_client_from_state_with_optimizer_async(self, path: str, **kwargs: Any) -> TrainingClient:
        return self.create_training_client_from_state_with_optimizer(path, **kwargs).alone()

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.create_sampling_client(*args, **kwargs).alone()

    async def get_server_capabilities_async(self) -> GetServerCapabilitiesResponse:
        return self.get_server_capabilities()

    def _base(self, name: str) -> BaseModel:
        return load_base(name, self._device, self._dtype, trust_remote_code=self._trust_remote_code)

    def _continued_client(
        self, folder: Path, requested: _Requested, seed: int | None, limits: MemoryLimits
    ) -> AwaitableTrainingClient:
        """Return a client whose training starts at the weights of a saved adapter."""
        checkpoint = load_checkpoint(folder)
        base = load_base_of(checkpoint.base_model, folder, self._base)
        if differences := requested.differences(checkpoint.lora, base):
            raise ConfigError(
                f"{' and '.join(differences)}, but the adapter in {folder} is {checkpoint.lora}; leave out what "
                "differs, or train a new adapter on its base model"
            )
        options = checkpoint.lora
        if requested.lora is not None:
            options = replace(options, dropout=requested.lora.dropout)
        client = self._training_client(base, options, seed, limits)
        client.load_state(str(folder)).result()
        client.notes.append(f"training starts at the adapter in {folder}: {options}")
        return client

    def _training_client(
        self, base: BaseModel, options: LoraOptions, seed: int | None, limits: MemoryLimits | None = None
    ) -> AwaitableTrainingClient:
        adapter = worker_of(base).run(lambda: base.attach(options, seed))
        return AwaitableTrainingClient(adapter, self._paths, f"local-{uuid.uuid4().hex[:12]}", limits or self._limits)

    def _from_state(self, path: str, base_model: str | None, *, with_optimizer: bool) -> AwaitableTrainingClient:
        checkpoint = load_checkpoint(self._paths.folder(path))
        if with_optimizer and checkpoint.optimizer is None:
            raise CheckpointError(
                f"{path} has weights for a sampler and no optimizer; use create_training_client_from_state"
            )
        base = load_base_of(checkpoint.base_model, path, self._base) if base_model is None else self._base(base_model)
        client = self._training_client(base, checkpoint.lora, 0)
        (client.load_state_with_optimizer if with_optimizer else client.load_state)(path).result()
        return client


@dataclass(frozen=True)
class _Requested:
    """What a caller requested of an adapter.

    Attributes:
        rank: The rank; None if it was not given.
        lora: All options; None if they were not given.
        left_out: Kinds of layers that must not carry LoRA.
    """

    rank: int | None
    lora: LoraOptions | None
    left_out: Sequence[str]

    def new_options(self) -> LoraOptions:
        """Return the options of a new adapter.

        Raises:
            ConfigError: If a value is not valid, or the arguments contradict each other.
        """
        options = merge_rank(self.rank, self.lora, default=32)
        if self.lora is None:
            return replace(options, **dict.fromkeys(self.left_out, False))
        for kind in self.left_out:
            if getattr(options, kind) is not False:
                raise ConfigError(f"train_{kind} is False, but lora is {options}; say it in lora only")
        return options

    def differences(self, saved: LoraOptions, base: BaseModel) -> list[str]:
        """Return what a saved adapter does not have as requested; its dropout may differ."""
        names = [] if self.rank in (None, saved.rank) else [f"rank is {self.rank}"]
        layers = base.lora_layers(saved)
        if self.lora is not None:
            names = [
                f"lora has {name}={getattr(self.lora, name)}"
                for name in ("rank", "alpha", "rslora")
                if getattr(self.lora, name) != getattr(saved, name)
            ]
            requested = base.lora_layers(self.lora)
            if (set(requested.linear), set(requested.experts)) != (set(layers.linear), set(layers.experts)):
                names.append("lora has other layers")
        return names + [f"train_{kind} is False" for kind in self.left_out if kind in base.kinds(layers)]
