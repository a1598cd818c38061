r"""From logits to a token: temperature, truncation, and one random number a token.

The token is found by inverting the cumulative distribution, first over blocks of the vocabulary and then within a
block: cumulative sums over all of it, in double precision, would take longer than the rest. Log-probabilities are those
of the distribution that was drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["SamplingSettings", "draw"]

# Tokens whose probabilities are added up before the search goes into single ones.
BLOCK = 128
# So many of the most likely tokens usually hold the nucleus; where not, the whole vocabulary is sorted.
NUCLEUS = 256
# A temperature below this is as good as 0, and dividing by it would overflow.
COLDEST = 1e-6


@dataclass(frozen=True)
class SamplingSettings:
    """How each row wants its token; every tensor is ``(rows,)``.

    Attributes:
        temperature: float32; 0 takes the most likely token, whose log-probability is then the one at temperature 1,
            and truncation changes nothing.
        top_k: int64, -1 for no limit; ``top_p``: float64, 1 for no limit.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor

    def select(self, rows: torch.Tensor) -> SamplingSettings:
        """The settings of these rows."""
        return SamplingSettings(self.temperature[rows], self.top_k[rows], self.top_p[rows])


def draw(logits: torch.Tensor, settings: SamplingSettings, random: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each row and its log-probability.

    Args:
        logits: ``(rows, vocab)`` float32 on the CPU; overwritten.
        random: ``(rows,)`` float64, uniform in [0, 1).

    Returns:
        Tokens ``(rows,)`` int64 and log-probabilities ``(rows,)`` float32, nats.
    """
    greedy = settings.temperature == 0
    best = logits.argmax(-1) if greedy.any() else None
    heat = settings.temperature.masked_fill(greedy, 1.0)
    if (heat != 1).any():
        logits /= heat.clamp(min=COLDEST)[:, None]
    logits -= logits.amax(-1, keepdim=True)
    cut = ((settings.top_k != -1) | (settings.top_p < 1)) & ~greedy
    if cut.any():
        rows = cut.nonzero().flatten()
        logits[rows] = _truncated(logits[rows], settings.top_k[rows], settings.top_p[rows])
    mass = logits.exp()
    picked, total = _invert(mass, random)
    if best is not None:
        picked = torch.where(greedy, best, picked)
    return picked, logits.gather(-1, picked[:, None]).squeeze(-1) - total.log().float()


def _invert(mass: torch.Tensor, random: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First token at which the cumulative ``mass``, ``(rows, vocab)``, exceeds ``random`` of the total; the total."""
    vocab = mass.shape[-1]
    whole = vocab // BLOCK * BLOCK
    sums = mass[:, :whole].unflatten(-1, (whole // BLOCK, BLOCK)).sum(-1)
    if whole < vocab:
        sums = torch.cat([sums, mass[:, whole:].sum(-1, keepdim=True)], dim=-1)
    sums = sums.double()
    upto = sums.cumsum(-1)  # (rows, blocks)
    target = (random * upto[:, -1])[:, None]
    block = _first_above(upto, target)
    share = (target - (upto - sums).gather(-1, block)) / sums.gather(-1, block)
    columns = block * BLOCK + torch.arange(BLOCK)  # (rows, BLOCK)
    piece = mass.gather(-1, columns.clamp(max=vocab - 1)).masked_fill_(columns >= vocab, 0.0)
    inside = piece.cumsum(-1, dtype=torch.float64)
    within = _first_above(inside, share * inside[:, -1:])
    return (block * BLOCK + within).squeeze(-1), upto[:, -1]


def _first_above(upto: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Index ``(rows, 1)`` of the first sum above ``target``; never one behind the last that has any mass.

    The bound matters where rounding puts the target at the total.
    """
    last = torch.searchsorted(upto, upto[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(upto, target, right=True), last)


def _truncated(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """``logits`` with -inf where a token is not among the ``top_k`` or not in the nucleus of ``top_p``.

    The token that crosses ``top_p`` stays in. Among equal logits the lower token goes first, whatever the other rows
    ask for.
    """
    vocab = logits.shape[-1]
    top_k = torch.where(top_k == -1, vocab, top_k).clamp(max=vocab)
    nucleus = top_p < 1
    total = logits.exp().sum(-1, keepdim=True).double()
    width = min(max(int(top_k[~nucleus].max()) if (~nucleus).any() else 1, NUCLEUS), vocab)
    largest, before = _largest(logits, width, total)
    short = nucleus & (top_k > width) & (before[:, -1] < top_p)
    if short.any():
        largest, before = _largest(logits, vocab, total)
    ranks = torch.arange(largest.shape[-1])
    kept = ((ranks < top_k[:, None]) & ((before < top_p[:, None]) | ~nucleus[:, None])).sum(-1, keepdim=True)
    least = largest.gather(-1, kept - 1)
    above = logits > least
    equal = logits == least
    equal &= equal.cumsum(-1) <= kept - above.sum(-1, keepdim=True)
    return logits.masked_fill(~(above | equal), float("-inf"))


def _largest(logits: torch.Tensor, width: int, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logits in order, ``(rows, width)``, and the probability of those before each."""
    largest = logits.topk(width, dim=-1).values
    p = largest.double().exp() / total
    return largest, p.cumsum(-1) - p
