"""Probes of what a base model's attention and head compute, run on a small random batch when the model is loaded.

All probes compute in float32. In bfloat16 the rounding of 30 layers is larger than many mistakes, and no tolerance
separates the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import torch
from torch import nn

from ..errors import ModelError
from .packing import Layout, pack

__all__ = ["check_causal", "check_head", "in_float32", "packs_exactly"]

# Hidden states ``(N, hidden)`` of one sequence that runs by itself in transformers' own way.
RunAlone = Callable[[list[int]], torch.Tensor]


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Generator[None]:
    """Within this context, let ``model`` compute in float32, whatever the type of its weights.

    A module's own weights are float32 only while the module runs, so that no second copy of the model is in memory.
    Layers that read the weights of another module do not run in this context.
    """
    originals: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def widen(module: nn.Module, *_: object) -> None:
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        originals[module] = [(each, each.data) for each in own if each.dtype == torch.bfloat16]
        for each, data in originals[module]:
            each.data = data.float()

    def restore(module: nn.Module, *_: object) -> None:
        for each, data in originals.pop(module, ()):
            each.data = data

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for module in model.modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(each.dtype == torch.bfloat16 for each in tensors):
            handles += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in list(originals):  # of a forward pass that raised
            restore(module)


def packs_exactly(
    run_alone: RunAlone, backbone: Callable[[Layout], torch.Tensor], vocab_size: int, tolerance: float
) -> bool:
    """Return True if packed hidden states are those of each sequence alone.

    A family fails if its attention bypasses transformers' registry, or adds something to the scores (ALiBi).

    Args:
        run_alone: Hidden states ``(N, hidden)`` of one sequence by itself.
        backbone: Hidden states ``(1, tokens, hidden)`` of a packed layout.
        vocab_size: Number of token ids.
        tolerance: Largest difference, relative to the largest hidden state.
    """
    tokens = _random_sequences(vocab_size)
    sequences = [tokens[0][:9] + tokens[1], tokens[0][:9] + tokens[2][:5], tokens[3]]  # two share a prefix, one none
    try:
        layout = pack(sequences)
        packed = backbone(layout).flatten(0, 1)
        return all(
            _is_close(packed[torch.from_numpy(index)], run_alone(sequence), tolerance)
            for index, sequence in zip(layout.token_index, sequences, strict=True)
        )
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError):
        return False


def check_causal(run_alone: RunAlone, vocab_size: int, tolerance: float) -> None:
    """Check that hidden states do not depend on later tokens.

    BERT and related families load as causal language models, but are bidirectional unless their configuration says
    ``is_decoder``.

    Raises:
        ModelError: If they do, so that the model has no next-token distribution.
    """
    tokens = _random_sequences(vocab_size)
    prefix = tokens[0][:9]
    first, second = (run_alone(prefix + continuation)[: len(prefix)] for continuation in tokens[1:3])
    if not _is_close(first, second, tolerance):
        raise ModelError(
            "its hidden states depend on later tokens: it is a bidirectional model, which has no next-token "
            "distribution; expected a causal language model"
        )


def check_head(
    run_alone: RunAlone,
    model_logits: RunAlone,
    head_logits: Callable[[torch.Tensor], torch.Tensor],
    vocab_size: int,
    tolerance: float,
) -> None:
    """Check that the engine's LM head computes the model's own logits.

    Args:
        run_alone: Hidden states ``(N, hidden)`` of one sequence by itself.
        model_logits: Logits ``(N, vocab)`` of one sequence, as the model computes them.
        head_logits: Logits of hidden states, as the engine computes them.
        vocab_size: Number of token ids.
        tolerance: Largest difference, relative to the largest logit.

    Raises:
        ModelError: If the logits differ.
    """
    sequence = _random_sequences(vocab_size)[0]
    if not _is_close(head_logits(run_alone(sequence)), model_logits(sequence).float(), tolerance):
        raise ModelError(
            "its output layer does more than multiply, scale and cap (tanh), and its log-probabilities would be wrong "
            "here; please report this family"
        )


def _random_sequences(vocab_size: int) -> list[list[int]]:
    """Return four sequences of 12 random tokens, the same ones every time."""
    return torch.randint(0, vocab_size, (4, 12), generator=torch.Generator().manual_seed(0)).tolist()


def _is_close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())
