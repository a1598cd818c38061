"""The service on this machine: no key, no server, the API's own calls."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Self

from ..engine.checkpoints import load_checkpoint
from ..engine.models import BaseModel, LoraShape, load_base
from ..errors import CheckpointError, ConfigError
from ..types import GetServerCapabilitiesResponse, SupportedModel
from .futures import done, worker_of
from .paths import Paths, default_home
from .sampling import SamplingClient
from .training import TrainingClient

__all__ = ["ServiceClient"]


class ServiceClient:
    """Makes training and sampling clients on this machine, with the calls of ``tinker.ServiceClient``.

    Args:
        home: folder for checkpoints; default ``$MINT_LAB_HOME`` or ``~/.mint_lab``.
        device: "cuda", "mps" or "cpu"; None picks the best one there is.
    """

    def __init__(self, home: str | Path | None = None, *, device: str | None = None, **_: Any) -> None:
        self._paths = Paths(Path(home).expanduser() if home is not None else default_home())
        self._device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held here; clients and base models go when they are no longer used."""

    def create_lora_training_client(
        self,
        base_model: str = "mint-tiny",
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: dict[str, str] | None = None,
        **_: Any,
    ) -> TrainingClient:
        """A client that trains a fresh LoRA adapter.

        Args:
            base_model: "mint-tiny" (bundled), a model directory, or a hub name such as "Qwen/Qwen3-0.6B".
            rank: of the update matrices.
            seed: of LoRA's initial weights; None draws one.
            train_mlp, train_attn, train_unembed: which layers carry adapters.

        Raises:
            ModelError: the model cannot be found or loaded, the rank is not a positive whole number, or nothing is
                left to train.
        """
        shape = LoraShape(rank, train_mlp, train_attn, train_unembed)
        return self._training_client(self._base(base_model), shape, seed)

    def create_training_client_from_state(self, path: str, **_: Any) -> TrainingClient:
        """A client with the weights saved at ``path``; its optimizer starts afresh.

        Raises:
            CheckpointError: missing or damaged; ModelError: its base model cannot be loaded.
        """
        return self._from_state(path, with_optimizer=False)

    def create_training_client_from_state_with_optimizer(self, path: str, **_: Any) -> TrainingClient:
        """A client with the weights and the optimizer saved at ``path``. Raises as the form without."""
        return self._from_state(path, with_optimizer=True)

    def create_sampling_client(
        self, model_path: str | None = None, base_model: str | None = None, **_: Any
    ) -> SamplingClient:
        """A sampling client on saved weights, or on a base model alone.

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
        worker.run(lambda: checkpoint.into(adapter))
        return SamplingClient(base, adapter, done(None))

    def create_rest_client(self) -> Any:
        """Checkpoint management.

        Raises:
            ConfigError: always, for now: checkpoints here are folders under ``home``, to be listed and deleted as such.
        """
        raise ConfigError(f"no REST service runs here; checkpoints are folders under {self._paths.home}")

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
        return load_base(name, self._device)

    def _training_client(self, base: BaseModel, shape: LoraShape, seed: int | None) -> TrainingClient:
        adapter = worker_of(base).run(lambda: base.attach(shape, seed))
        return TrainingClient(adapter, self._paths, f"local-{uuid.uuid4().hex[:12]}")

    def _from_state(self, path: str, *, with_optimizer: bool) -> TrainingClient:
        checkpoint = load_checkpoint(self._paths.folder(path))
        if with_optimizer and checkpoint.optimizer is None:
            raise CheckpointError(f"{path} holds weights for a sampler, no optimizer state")
        client = self._training_client(self._base(checkpoint.base_model), checkpoint.shape, 0)
        (client.load_state_with_optimizer if with_optimizer else client.load_state)(path).result()
        return client
