"""The data contract: the ``tinker`` package's own classes, re-exported.

The local trainer and a hosted one accept the same ``Datum``, because it is the same class. Nothing is imported until a
name is used: importing ``tinker`` imports torch and takes one to two seconds. Only this module imports ``tinker``,
apart from ``client/remote.py``, which is a client of its service.

Alignment: position ``i`` of ``Datum.model_input`` predicts ``target_tokens[i]``, which is token ``i + 1`` of the full
sequence. Every per-token field has shape ``(N,)`` with ``N = model_input.length``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from tinker.lib.public_interfaces.api_future import APIFuture, AwaitableConcurrentFuture
    from tinker.types import (
        AdamParams,
        Checkpoint,
        CheckpointsListResponse,
        Cursor,
        Datum,
        EncodedTextChunk,
        ForwardBackwardOutput,
        GetInfoResponse,
        GetServerCapabilitiesResponse,
        LoadWeightsResponse,
        LoraConfig,
        ModelData,
        ModelInput,
        OptimStepResponse,
        SampledSequence,
        SampleResponse,
        SamplingParams,
        SaveWeightsForSamplerResponse,
        SaveWeightsResponse,
        SupportedModel,
        TensorData,
        TrainingRun,
        TrainingRunsResponse,
    )

__all__ = [
    "APIFuture",
    "AdamParams",
    "AwaitableConcurrentFuture",
    "Checkpoint",
    "CheckpointsListResponse",
    "Cursor",
    "Datum",
    "EncodedTextChunk",
    "ForwardBackwardOutput",
    "GetInfoResponse",
    "GetServerCapabilitiesResponse",
    "LoadWeightsResponse",
    "LoraConfig",
    "ModelData",
    "ModelInput",
    "OptimStepResponse",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsResponse",
    "SupportedModel",
    "TensorData",
    "TrainingRun",
    "TrainingRunsResponse",
]

_FUTURES = "tinker.lib.public_interfaces.api_future"

__getattr__, __dir__ = lazy_names(
    __name__,
    {**dict.fromkeys(__all__, "tinker.types"), "APIFuture": _FUTURES, "AwaitableConcurrentFuture": _FUTURES},
)
