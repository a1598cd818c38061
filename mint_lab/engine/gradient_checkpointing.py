"""Gradient checkpointing: the backward pass computes each decoder layer again instead of keeping what it saw.

Memory of a training pass then grows with layers x hidden size instead of with every activation, for about a third more
arithmetic. It is transformers' own machinery (``GradientCheckpointingLayer``), switched on for the length of a pass.
The public switch is not used: what it switches on works in training mode only, where dropout is on as well, and it
sends gradients to the embeddings for the sake of the older, reentrant form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["layers_of", "recomputed"]


def layers_of(model: Any) -> list[GradientCheckpointingLayer]:
    """The layers that can be computed again; empty for a family that has none."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextlib.contextmanager
def recomputed(
    layers: list[GradientCheckpointingLayer], around: Callable[[], contextlib.AbstractContextManager[None]]
) -> Generator[None]:
    """Forward passes in here keep the inputs of ``layers`` only; each layer is entered once a pass.

    Args:
        around: makes what a layer is to be computed in, for the second time comes when the pass is over.
    """
    try:
        for layer in layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = _leaving_training(layer, around)  # pyright: ignore[reportArgumentType]
            layer.training = True  # of the layer alone: what is in it, dropout above all, stays as it is
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
            layer.training = False


def _leaving_training(
    layer: GradientCheckpointingLayer, around: Callable[[], contextlib.AbstractContextManager[None]]
) -> Callable[..., Any]:
    """A ``checkpoint`` as torch's for ``layer``, which is back in inference mode before its first line runs."""

    def run(function: Callable[..., torch.Tensor], *args: Any) -> Any:
        layer.training = False

        def within(*args: Any) -> torch.Tensor:
            with around():
                return function(*args)

        return checkpoint(within, *args, use_reentrant=False, preserve_rng_state=False)

    return run
