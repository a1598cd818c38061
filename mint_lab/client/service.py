"""The service on this machine: no key, no server, the API's own calls."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Self

from ..engine.checkpoints import load_checkpoint
from ..engine.models import BaseModel, LoraShape, load_base
from ..errors import CheckpointError, ConfigError
from ..types import GetServerCapabilitiesResponse, SupportedModel
from .checkpoint_paths import CheckpointPaths, default_home
from .futures import done, worker_of
from .memory_limits import MemoryLimits
from .rest import RestClient
from .sampling import SamplingClient
from .training import TrainingClient

if TYPE_CHECKING:
    from ..types import APIFuture

__all__ = ["ServiceClient"]


class ServiceClient:
    """Makes training and sampling clients on this machine, with the calls of ``tinker.ServiceClient``.

    Args:
        home: folder for checkpoints; default ``$MINT_LAB_HOME`` or ``~/.mint_lab``.
        device: "cuda", "mps" or "cpu"; None picks the best one there is.
        dtype: of the frozen weights, "float32" or "bfloat16"; None takes bfloat16 on a GPU that has it. What is
            trained, log-probabilities and losses are float32 always.
        max_batch_tokens: tokens that go through the model at a time in training, shared prefixes counted once; a larger
            batch is cut, with the same result. None: what half of the free memory holds when a client is made.
        gradient_checkpointing: compute each layer again in the backward pass instead of keeping what it saw: less
            memory, about a third more time.
        base_url, api_key, user_metadata, project_id, display_name, default_headers_overrides: a hosted client's, so
            that its programs start here unchanged; there is nothing to connect to, so ``base_url`` has to be None.

    Raises:
        ConfigError: a ``base_url`` is given, ``home`` is no path, or a limit is not of its kind.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int | None = None,
        gradient_checkpointing: bool = False,
        base_url: str | None = None,
        api_key: str | None = None,
        user_metadata: Mapping[str, str] | None = None,
        project_id: str | None = None,
        display_name: str | None = None,
        default_headers_overrides: Mapping[str, str] | None = None,
    ) -> None:
        if base_url is not None:
            raise ConfigError(
                f"this client trains on this machine; mint_lab.client.connect({base_url!r}) is for servers"
            )
        if not isinstance(home, (str, os.PathLike, NoneType)):
            raise ConfigError(f"home is {home!r}, expected a folder; give a hosted client's arguments by name")
        self._paths = CheckpointPaths(Path(home).expanduser() if home is not None else default_home())
        self._device = device
        self._dtype = dtype
        self._limits = MemoryLimits(max_batch_tokens, gradient_checkpointing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, status: str = "success", detail: str | None = None) -> APIFuture[None]:
        """Nothing is held here; clients and base models go when they are no longer used. The arguments are not used."""
        return done(None)

    def create_lora_training_client(  # noqa: PLR0917, the SDK's signature
        self,
        base_model: str = "mint-tiny",
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: dict[str, str] | None = None,
        *,
        max_batch_tokens: int | None = None,
        gradient_checkpointing: bool | None = None,
    ) -> TrainingClient:
        """A client that trains a fresh LoRA adapter.

        Args:
            base_model: "mint-tiny" (bundled), a model directory, or a hub name such as "Qwen/Qwen3-0.6B".
            rank: of the update matrices.
            seed: of LoRA's initial weights; None draws one.
            train_mlp, train_attn, train_unembed: which layers carry adapters.
            user_metadata: not used here.
            max_batch_tokens, gradient_checkpointing: this client's own; None takes the service's.

        Raises:
            ModelError: the model cannot be found or loaded, the rank is not a positive whole number, nothing is left to
                train, or the model knows no gradient checkpointing. ConfigError: the seed is no whole number, or a
                limit is not of its kind.
        """
        if seed is not None and not isinstance(seed, Integral):
            raise ConfigError(f"seed is {seed!r}, expected a whole number or None")
        shape = LoraShape(rank, train_mlp, train_attn, train_unembed)
        limits = self._limits.but(max_batch_tokens, gradient_checkpointing)
        return self._training_client(self._base(base_model), shape, seed, limits)

    def create_training_client_from_state(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """A client with the weights saved at ``path``; its optimizer starts afresh.

        Args:
            base_model: None takes the one that the checkpoint names. The others are not used here.

        Raises:
            CheckpointError: missing, damaged, or of another base model; ModelError: its base model cannot be loaded.
        """
        return self._from_state(path, base_model, with_optimizer=False)

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """A client with the weights and the optimizer saved at ``path``. Arguments and errors as the form without."""
        return self._from_state(path, base_model, with_optimizer=True)

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: Any = None,
        record_stability_info: bool = False,
    ) -> SamplingClient:
        """A sampling client on saved weights, or on a base model alone. The last two arguments are not used here.

        Raises:
            ConfigError: neither is given. CheckpointError, ModelError: as their loading goes wrong.
        """
        if model_path is None:
            if base_model is None:
                raise ConfigError("create_sampling_client needs model_path (saved weights) or base_model")
            return SamplingClient(self._base(base_model), None, done(None))
        checkpoint = load_checkpoint(self._paths.folder(model_path))
        base = self._base(checkpoint.base_model)
        worker = worker_of(base)
        adapter = worker.run(lambda: base.attach(checkpoint.shape, 0))
        worker.run(lambda: checkpoint.load_into(adapter))
        return SamplingClient(base, adapter, done(None))

    def create_rest_client(self) -> RestClient:
        """Lists and deletes the checkpoints under ``home``."""
        return RestClient(self._paths)

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """The bundled model; directories and hub names are taken besides."""
        return GetServerCapabilitiesResponse(supported_models=[SupportedModel(model_name="mint-tiny")])

    async def create_lora_training_client_async(self, *args: Any, **kwargs: Any) -> TrainingClient:
        return self.create_lora_training_client(*args, **kwargs)

    async def create_training_client_from_state_async(self, path: str, **kwargs: Any) -> TrainingClient:
        return self.create_training_client_from_state(path, **kwargs)

    async def create_training_client_from_state_with_optimizer_async(self, path: str, **kwargs: Any) -> TrainingClient:
        return self.create_training_client_from_state_with_optimizer(path, **kwargs)

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return self.create_sampling_client(*args, **kwargs)

    async def get_server_capabilities_async(self) -> GetServerCapabilitiesResponse:
        return self.get_server_capabilities()

    def _base(self, name: str) -> BaseModel:
        return load_base(name, self._device, self._dtype)

    def _training_client(
        self, base: BaseModel, shape: LoraShape, seed: int | None, limits: MemoryLimits | None = None
    ) -> TrainingClient:
        adapter = worker_of(base).run(lambda: base.attach(shape, seed))
        return TrainingClient(adapter, self._paths, f"local-{uuid.uuid4().hex[:12]}", limits or self._limits)

    def _from_state(self, path: str, base_model: str | None, *, with_optimizer: bool) -> TrainingClient:
        checkpoint = load_checkpoint(self._paths.folder(path))
        if with_optimizer and checkpoint.optimizer is None:
            raise CheckpointError(f"{path} holds weights for a sampler, no optimizer state")
        client = self._training_client(self._base(base_model or checkpoint.base_model), checkpoint.shape, 0)
        (client.load_state_with_optimizer if with_optimizer else client.load_state)(path).result()
        return client
