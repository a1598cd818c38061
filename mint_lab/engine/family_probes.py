"""What a base model's attention really does, found out on a small random batch when the model is loaded."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import ModelError
from .packing import Layout, pack

__all__ = ["check_causal", "check_head", "packs_exactly"]

# Hidden states ``(N, hidden)`` of one sequence run by itself, as transformers would.
Alone = Callable[[list[int]], torch.Tensor]


def packs_exactly(alone: Alone, trunk: Callable[[Layout], torch.Tensor], vocab_size: int, tolerance: float) -> bool:
    """Whether packed hidden states are those of each sequence alone, within ``tolerance`` of the largest.

    A family whose attention does not go through transformers' registry, or adds something to the scores (ALiBi), fails.
    """
    draw = _draw(vocab_size)
    sequences = [draw[0][:9] + draw[1], draw[0][:9] + draw[2][:5], draw[3]]
    try:
        packed = pack(sequences)
        together = trunk(packed).flatten(0, 1)
        return all(
            _near(together[torch.from_numpy(place)], alone(sequence), tolerance)
            for place, sequence in zip(packed.places, sequences, strict=True)
        )
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError):
        return False


def check_causal(alone: Alone, vocab_size: int, tolerance: float) -> None:
    """Raise :class:`ModelError` where hidden states depend on later tokens: there is no next-token distribution then.

    BERT and its kin load as causal language models and are none, unless their configuration says ``is_decoder``.
    """
    draw = _draw(vocab_size)
    same = draw[0][:9]
    first, second = (alone(same + later)[: len(same)] for later in draw[1:3])
    if not _near(first, second, tolerance):
        raise ModelError(
            "its hidden states depend on later tokens: it is a bidirectional model, which has no next-token "
            "distribution; expected a causal language model"
        )


def check_head(
    alone: Alone, logits: Alone, head: Callable[[torch.Tensor], torch.Tensor], vocab_size: int, tolerance: float
) -> None:
    """Raise :class:`ModelError` where ``head`` does not make the logits that the model itself makes."""
    sequence = _draw(vocab_size)[0]
    if not _near(head(alone(sequence)), logits(sequence).float(), tolerance):
        raise ModelError(
            "its output layer does more than multiply, scale and cap (tanh), and its log-probabilities would be wrong "
            "here; please report this family"
        )


def _draw(vocab_size: int) -> list[list[int]]:
    return torch.randint(0, vocab_size, (4, 12), generator=torch.Generator().manual_seed(0)).tolist()


def _near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())
