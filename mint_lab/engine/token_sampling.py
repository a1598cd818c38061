r"""From logits to a token: temperature, truncation, and one random number a token.

The token is found by inverting the cumulative distribution, first over blocks of the vocabulary and then within one
block: a cumulative sum over the whole vocabulary, in double precision, would take longer than everything else. The
log-probabilities are those of the distribution sampled from, after temperature and truncation. At temperature 0 nothing
is sampled: they are those at temperature 1 without truncation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .device import to_device

__all__ = ["SamplingSettings", "sample_tokens"]

# Tokens whose probabilities are summed before the search goes into single tokens.
BLOCK_TOKENS = 128
# The nucleus of top_p is usually among this many most likely tokens; otherwise the whole vocabulary is sorted.
USUAL_NUCLEUS_TOKENS = 256
# Lower temperatures are raised to this one, which is as good as 0: dividing by them would overflow.
MIN_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of each row; every tensor is ``(rows,)`` and on the CPU, so that reading it never waits for a device.

    Attributes:
        temperature: float32. 0 selects the most likely token and ignores ``top_k`` and ``top_p``; its log-probability
            is the one at temperature 1.
        top_k: int64; only the ``top_k`` most likely tokens can be sampled; -1 for no limit.
        top_p: float64; only the smallest set of most likely tokens whose probability reaches ``top_p`` can be sampled;
            1 for no limit.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor

    def select(self, rows: torch.Tensor) -> SamplingSettings:
        """Return the settings of the rows at these indices."""
        return SamplingSettings(self.temperature[rows], self.top_k[rows], self.top_p[rows])


def sample_tokens(
    logits: torch.Tensor, settings: SamplingSettings, random: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample a token for each row.

    Without truncation, the plain equivalent is::

        p = torch.softmax(logits.double() / temperature[:, None], dim=-1)
        tokens = torch.searchsorted(p.cumsum(-1), random[:, None], right=True).squeeze(-1)
        logprobs = p.gather(-1, tokens[:, None]).squeeze(-1).log()

    Args:
        logits: ``(rows, vocab)`` float32; overwritten.
        settings: Temperature and truncation of each row.
        random: ``(rows,)`` float64, uniform in [0, 1), on the device of ``logits``.

    Returns:
        Tokens, ``(rows,)`` int64, and their log-probabilities, ``(rows,)`` float32, nats.
    """
    device = logits.device
    # 1. Temperature. Rows at temperature 0 take the most likely token and keep temperature 1.
    greedy = settings.temperature == 0
    most_likely = logits.argmax(-1) if greedy.any() else None
    temperature = settings.temperature.masked_fill(greedy, 1.0)
    if (temperature != 1).any():
        logits /= to_device(temperature.clamp(min=MIN_TEMPERATURE), device)[:, None]
    logits -= logits.amax(-1, keepdim=True)
    # 2. Truncation, of the rows that ask for it.
    is_truncated = ((settings.top_k != -1) | (settings.top_p < 1)) & ~greedy
    if is_truncated.any():
        rows = is_truncated.nonzero().flatten()
        index = to_device(rows, device)
        logits[index] = _truncate(logits[index], settings.top_k[rows], settings.top_p[rows])
    # 3. Inversion of the cumulative distribution, without normalizing it.
    mass = logits.exp()  # (rows, vocab)
    tokens, total = _invert_cumulative(mass, random)
    if most_likely is not None:
        tokens = torch.where(to_device(greedy, device), most_likely, tokens)
    return tokens, logits.gather(-1, tokens[:, None]).squeeze(-1) - total.log().float()


def _invert_cumulative(mass: torch.Tensor, random: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the first token at which the cumulative mass exceeds ``random`` times the total.

    Args:
        mass: Unnormalized probabilities, ``(rows, vocab)``, float32.
        random: ``(rows,)``, float64.

    Returns:
        Tokens ``(rows,)`` and the total mass ``(rows,)``, float64.
    """
    # 1. The block. The last one is shorter if BLOCK_TOKENS does not divide the vocabulary.
    vocab = mass.shape[-1]
    in_full_blocks = vocab // BLOCK_TOKENS * BLOCK_TOKENS
    sums = mass[:, :in_full_blocks].unflatten(-1, (in_full_blocks // BLOCK_TOKENS, BLOCK_TOKENS)).sum(-1)
    if in_full_blocks < vocab:
        sums = torch.cat([sums, mass[:, in_full_blocks:].sum(-1, keepdim=True)], dim=-1)
    sums = sums.double()  # (rows, blocks)
    cumulative = sums.cumsum(-1)  # (rows, blocks)
    target = (random * cumulative[:, -1])[:, None]  # (rows, 1)
    block = _first_above(cumulative, target)  # (rows, 1)
    # 2. The token within the block, at the same fraction of the block's mass.
    fraction = (target - (cumulative - sums).gather(-1, block)) / sums.gather(-1, block)
    columns = block * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=mass.device)  # (rows, BLOCK_TOKENS)
    block_mass = mass.gather(-1, columns.clamp(max=vocab - 1)).masked_fill_(columns >= vocab, 0.0)
    cumulative_in_block = block_mass.cumsum(-1, dtype=torch.float64)
    # A fraction of the block's mass, because this sum in double precision differs by rounding from the one above.
    token_in_block = _first_above(cumulative_in_block, fraction * cumulative_in_block[:, -1:])
    return (block * BLOCK_TOKENS + token_in_block).squeeze(-1), cumulative[:, -1]


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the index of the first sum above ``target``, ``(rows, 1)``, but none after the last that adds mass.

    The bound matters if rounding puts the target at the total.
    """
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(cumulative, target, right=True), last)


def _truncate(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Set logits to -inf outside the ``top_k`` most likely tokens and outside the nucleus of ``top_p``.

    The token that crosses ``top_p`` is kept. Among equal logits the lower token id comes first, so that the result does
    not depend on the other rows.

    Args:
        logits: ``(rows, vocab)``, with a maximum of 0 in each row.
        top_k: ``(rows,)``, -1 for no limit, on the CPU.
        top_p: ``(rows,)``, 1 for no limit, on the CPU.

    Returns:
        ``(rows, vocab)``.
    """
    vocab = logits.shape[-1]
    top_k = torch.where(top_k == -1, vocab, top_k).clamp(max=vocab)
    has_nucleus = top_p < 1
    total = logits.exp().sum(-1, keepdim=True).double()
    # 1. Sort as few of the largest logits as usually suffice, and all of them if they do not.
    width = min(max(int(top_k[~has_nucleus].max()) if (~has_nucleus).any() else 1, USUAL_NUCLEUS_TOKENS), vocab)
    largest, mass_before = _largest(logits, width, total)
    may_be_wider = has_nucleus & (top_k > width)
    rows = (top_k, top_p, has_nucleus, may_be_wider)
    top_k, top_p, has_nucleus, on_device = (to_device(each, logits.device) for each in rows)
    if may_be_wider.any() and (on_device & (mass_before[:, -1] < top_p)).any():
        largest, mass_before = _largest(logits, vocab, total)
    # 2. The number of tokens to keep in each row, and the smallest logit among them.
    rank = torch.arange(largest.shape[-1], device=logits.device)
    in_nucleus = (mass_before < top_p[:, None]) | ~has_nucleus[:, None]
    n_kept = ((rank < top_k[:, None]) & in_nucleus).sum(-1, keepdim=True)  # (rows, 1)
    smallest = largest.gather(-1, n_kept - 1)  # (rows, 1)
    # 3. Keep all above that logit, and of those equal to it the first ones.
    above = logits > smallest
    equal = logits == smallest
    equal &= equal.cumsum(-1) <= n_kept - above.sum(-1, keepdim=True)
    return logits.masked_fill(~(above | equal), float("-inf"))


def _largest(logits: torch.Tensor, width: int, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``width`` largest logits in descending order, and the probability of those before each."""
    largest = logits.topk(width, dim=-1).values  # (rows, width)
    p = largest.double().exp() / total
    return largest, p.cumsum(-1) - p
