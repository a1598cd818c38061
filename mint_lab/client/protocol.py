"""What a run needs of a trainer: the part of the Tinker/MinT API that ``runs`` and ``ui`` are written against.

The local clients, MinT's, Tinker's and SkyRL's all satisfy these protocols, which is why one drops in for another.
Every call returns at once; calls of one client execute in the order submitted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import torch

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
    "Future",
    "GradientClient",
    "SamplingClient",
    "ServiceClient",
    "Tokenizer",
    "TrainingClient",
]

T_co = TypeVar("T_co", covariant=True)


class Future(Protocol[T_co]):
    """A result to come: wait with ``.result(timeout)`` (seconds) or ``await`` it."""

    def result(self, timeout: float | None = None) -> T_co: ...
    def __await__(self) -> Generator[Any, None, T_co]: ...


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    eos_token_id: int | None
    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, token_ids: Sequence[int] | int, **kwargs: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class SamplingClient(Protocol):
    """Draws from a fixed snapshot of a model."""

    def sample(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> Future[SampleResponse]: ...
    def compute_logprobs(self, prompt: ModelInput) -> Future[list[float | None]]: ...


@runtime_checkable
class TrainingClient(Protocol):
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
    def save_weights_and_get_sampling_client(self, name: str | None = None) -> SamplingClient: ...
    def get_tokenizer(self) -> Any: ...
    def get_info(self) -> GetInfoResponse: ...


@runtime_checkable
class GradientClient(Protocol):
    """What a training client has besides where gradients can be looked at; the local one has it, hosted ones do not."""

    def weight_gradient(
        self, data: list[Datum], loss_fn: Any, loss_fn_config: Mapping[str, Any] | None = None
    ) -> Future[TensorData]:
        """dLoss/dweights, ``(parameters,)`` float32; ``loss_fn`` a built-in loss's name or a custom function.

        Weights, optimizer and accumulated gradient stay as they are.
        """
        ...


@runtime_checkable
class AdapterClient(Protocol):
    """What a training client has besides where its weights lie on this machine; hosted ones keep them on a server."""

    def save_adapter(self, folder: Path) -> Future[None]:
        """Write the adapter in PEFT's layout, replacing what is at ``folder``."""
        ...


@runtime_checkable
class ServiceClient(Protocol):
    """Makes training and sampling clients."""

    def create_lora_training_client(
        self, base_model: str, rank: int = ..., seed: int | None = ...
    ) -> TrainingClient: ...
    def create_sampling_client(self, model_path: str | None = ..., base_model: str | None = ...) -> SamplingClient: ...
