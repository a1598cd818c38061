"""Protocols of the clients: the part of the Tinker/MinT API that ``recipes``, ``runs`` and ``ui`` use.

The local clients and those of MinT, Tinker and SkyRL all satisfy these protocols, so one can replace another. Every
call returns at once; calls of one client execute in the order submitted.

``ServiceClientProtocol`` creates a ``TrainingClientProtocol``, which creates a ``SamplingClientProtocol``.
``GradientClient`` and ``AdapterClient`` describe what only some training clients can do, ``Future`` and ``Tokenizer``
what clients return.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..lora_options import LoraOptions
    from ..types import (
        AdamParams,
        Datum,
        ForwardBackwardOutput,
        GetInfoResponse,
        LoadWeightsResponse,
        ModelInput,
        OptimStepResponse,
        SampleResponse,
        SamplingParams,
        SaveWeightsForSamplerResponse,
        SaveWeightsResponse,
        TensorData,
    )

__all__ = [
    "AdapterClient",
    "ClientSnapshot",
    "Future",
    "GradientClient",
    "ReferenceChoosingClient",
    "RestorableClient",
    "SamplingClientProtocol",
    "ServiceClientProtocol",
    "TextSource",
    "Tokenizer",
    "TrainingClientProtocol",
    "WeightsClient",
]

T_co = TypeVar("T_co", covariant=True)


class Future(Protocol[T_co]):
    """A result that may not be ready yet: wait for it with ``.result(timeout)``, in seconds, or ``await`` it."""

    def result(self, timeout: float | None = None) -> T_co: ...
    def __await__(self) -> Generator[Any, None, T_co]: ...


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that this package uses."""

    eos_token_id: int | None
    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, token_ids: Sequence[int] | int, **kwargs: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class TextSource(Protocol):
    """What preparing data needs of a model; every training client is one.

    A local one also has ``context`` (its longest sequence, tokens) and ``end_tokens`` (those that end a sample).
    """

    def get_tokenizer(self) -> Any: ...


@runtime_checkable
class SamplingClientProtocol(Protocol):
    """Samples from a fixed snapshot of a model."""

    def sample(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> Future[SampleResponse]: ...
    def compute_logprobs(self, prompt: ModelInput) -> Future[list[float | None]]: ...


@runtime_checkable
class TrainingClientProtocol(Protocol):
    """Trains one LoRA adapter."""

    def forward(
        self, data: list[Datum], loss_fn: Any, loss_fn_config: Mapping[str, Any] | None = None
    ) -> Future[ForwardBackwardOutput]: ...
    def forward_backward(
        self, data: list[Datum], loss_fn: Any, loss_fn_config: Mapping[str, Any] | None = None
    ) -> Future[ForwardBackwardOutput]: ...
    def forward_backward_custom(
        self, data: list[Datum], loss_fn: Callable[..., tuple[torch.Tensor, dict[str, float]]]
    ) -> Future[ForwardBackwardOutput]: ...
    def optim_step(self, adam_params: AdamParams) -> Future[OptimStepResponse]: ...
    def save_state(self, name: str) -> Future[SaveWeightsResponse]: ...
    def load_state(self, path: str) -> Future[LoadWeightsResponse]: ...
    def load_state_with_optimizer(self, path: str) -> Future[LoadWeightsResponse]: ...
    def save_weights_for_sampler(self, name: str) -> Future[SaveWeightsForSamplerResponse]: ...
    def save_weights_and_get_sampling_client(self, name: str | None = None) -> SamplingClientProtocol: ...
    def get_tokenizer(self) -> Any: ...
    def get_info(self) -> GetInfoResponse: ...


@runtime_checkable
class GradientClient(Protocol):
    """A training client that can return gradients of the weights; the local one can, hosted ones cannot."""

    def weight_gradient(
        self, data: list[Datum], loss_fn: Any, loss_fn_config: Mapping[str, Any] | None = None
    ) -> Future[TensorData]:
        """Compute dLoss/dweights without changing weights, optimizer or accumulated gradient.

        Args:
            data: A batch.
            loss_fn: The name of a built-in loss, or a custom function.
            loss_fn_config: Settings of a built-in loss.

        Returns:
            A future of ``(parameters,)`` float32.
        """
        ...


@runtime_checkable
class AdapterClient(Protocol):
    """A training client whose weights are on this machine; hosted ones keep them on a server."""

    def save_adapter(self, folder: Path) -> Future[None]:
        """Write the adapter to ``folder`` in PEFT's layout, and replace what is there."""
        ...


@runtime_checkable
class ReferenceChoosingClient(Protocol):
    """A training client whose reference model can be chosen: "start" (as it is now), "base", or saved weights."""

    def set_reference(self, reference: str) -> Future[None]: ...


class ClientSnapshot(Protocol):
    """A copy of weights and optimizer in memory."""

    def write(self, folder: Path) -> None:
        """Write the files into an existing folder; on any thread."""
        ...


@runtime_checkable
class RestorableClient(Protocol):
    """A training client that continues from a copy of its state, to the last bit; hosted ones are not."""

    def take_snapshot(self) -> Future[ClientSnapshot]: ...
    def restore_snapshot(self, folder: Path) -> Future[None]: ...
    def sampling_client_on(self, weights: Mapping[str, torch.Tensor] | None) -> SamplingClientProtocol: ...


@runtime_checkable
class WeightsClient(Protocol):
    """A sampling client that knows the weights that it samples from; None if they are the adapter's own."""

    def weights(self) -> Mapping[str, torch.Tensor] | None: ...


@runtime_checkable
class ServiceClientProtocol(Protocol):
    """Creates training and sampling clients.

    ``lora`` is not an argument of the SDK's own class; :func:`mint_lab.client.connect` returns one that has it.
    """

    def create_lora_training_client(
        self, base_model: str, rank: Any = ..., seed: int | None = ..., *, lora: LoraOptions | None = ...
    ) -> TrainingClientProtocol: ...
    def create_training_client_from_state_with_optimizer(self, path: str) -> TrainingClientProtocol: ...
    def create_sampling_client(
        self, model_path: str | None = ..., base_model: str | None = ...
    ) -> SamplingClientProtocol: ...
