"""The data contract: the ``tinker`` package's own classes, re-exported.

The local trainer and a hosted one accept the same ``Datum``, because it is the same class. Nothing is imported until a
name is used: importing ``tinker`` imports torch and takes one to two seconds. Only this module imports ``tinker``,
apart from ``client/remote.py``, which is a client of its service, and ``server/``, which reads its messages.

Alignment: position ``i`` of ``Datum.model_input`` predicts ``target_tokens[i]``, which is token ``i + 1`` of the full
sequence. Every per-token field has shape ``(N,)`` with ``N = model_input.length``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from tinker.lib.public_interfaces.api_future import APIFuture, AwaitableConcurrentFuture
    from tinker.lib.public_interfaces.custom_loss import LossHandle, check_loss_inputs, run_loss_handle, trace_loss
    from tinker.types import (
        AdamParams,
        Checkpoint,
        CheckpointsListResponse,
        Cursor,
        Datum,
        EncodedTextChunk,
        ExternalWeightsUrlsResponse,
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
        WeightsInfoResponse,
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
    "ExternalWeightsUrlsResponse",
    "ForwardBackwardOutput",
    "GetInfoResponse",
    "GetServerCapabilitiesResponse",
    "LoadWeightsResponse",
    "LoraConfig",
    "LossHandle",
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
    "WeightsInfoResponse",
    "check_loss_inputs",
    "run_loss_handle",
    "trace_loss",
]

TRACED_LOSSES = ["LossHandle", "check_loss_inputs", "run_loss_handle", "trace_loss"]
"""Names around losses that the SDK traces; version 0.22 has none of them, nor ``ExternalWeightsUrlsResponse``."""

_SDK = "tinker.lib.public_interfaces"
__getattr__, __dir__ = lazy_names(
    __name__,
    dict.fromkeys(__all__, "tinker.types")
    | dict.fromkeys(["APIFuture", "AwaitableConcurrentFuture"], f"{_SDK}.api_future")
    | dict.fromkeys(TRACED_LOSSES, f"{_SDK}.custom_loss"),
)
