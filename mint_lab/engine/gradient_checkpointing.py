"""Gradient checkpointing: recompute each decoder layer in the backward pass instead of keeping its activations.

The memory of a training pass then grows with layers x hidden size instead of with all activations, for about a third
more arithmetic. This module switches on transformers' ``GradientCheckpointingLayer`` for the duration of a pass.
Transformers' public switch is not used, for two reasons: it takes effect in training mode only, which also enables
dropout, and it enables gradients of the embeddings, for the older, reentrant form of checkpointing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["checkpoint_layers", "checkpointable_layers"]


def checkpointable_layers(model: Any) -> list[GradientCheckpointingLayer]:
    """Return the layers that can be recomputed; empty if the family supports no gradient checkpointing."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextlib.contextmanager
def checkpoint_layers(
    layers: list[GradientCheckpointingLayer], context: Callable[[], contextlib.AbstractContextManager[None]]
) -> Generator[None]:
    """Within this context, forward passes keep only the inputs of ``layers``, each of which is called once a pass.

    Args:
        layers: The layers to recompute.
        context: Creates the context that a layer must be computed in. It is entered again in the backward pass, when
            the context of the forward pass has ended.
    """
    try:
        for layer in layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = _checkpoint_function(layer, context)  # pyright: ignore[reportArgumentType]
            # Transformers checkpoints a layer only if its flag says training. Its submodules' flags are unchanged, so
            # their dropout stays off.
            layer.training = True
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
            layer.training = False


def _checkpoint_function(
    layer: GradientCheckpointingLayer, context: Callable[[], contextlib.AbstractContextManager[None]]
) -> Callable[..., Any]:
    """Return a replacement for ``torch.utils.checkpoint`` that computes ``layer`` in inference mode and ``context``."""

    def run(function: Callable[..., torch.Tensor], *args: Any) -> Any:
        layer.training = False  # before the layer's code runs, which may call dropout with this flag

        def forward_in_context(*args: Any) -> torch.Tensor:
            with context():
                return function(*args)

        return checkpoint(forward_in_context, *args, use_reentrant=False, preserve_rng_state=False)

    return run
