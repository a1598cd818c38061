r"""Estimate how many tokens fit into memory at a time, and how many are of use.

The estimate of a training pass, in bytes a token, follows from the shapes of the linear layers in attention and MLP
(and so from hidden size, number of heads, intermediate size and number of layers):

.. math:: 2\,b \sum_{\text{layers}} (\text{in} + \text{out})

with :math:`b` the bytes of an element. Measured on nine families, autograd keeps 1.2 to 2.0 times :math:`b` times the
sum. The head adds 8 bytes a vocabulary entry (logits, and what is computed from them) for as many positions as one of
its chunks has. Half of the free memory is used. The budget is rounded down to a power of two, so that two runs on one
machine split their batches alike.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "MemoryCost",
    "free_memory",
    "max_useful_tokens",
    "needs_gradient_checkpointing",
    "release_memory",
    "token_budget",
]

FREE_MEMORY_SHARE = 0.5
# Assumed free memory if the system does not report any, in bytes: what a small Binder machine has to spare.
FALLBACK_FREE_BYTES = 1 << 30
# The smallest budget: if a batch of this size does not fit, nothing does.
MIN_BUDGET_TOKENS = 64
# Products of fewer rows do not use a CUDA device fully; and a coupled loss on a batch that is split takes a second
# forward pass, which costs as much as gradient checkpointing.
MIN_USEFUL_CUDA_TOKENS = 4096
# On a CPU, a product of 2,048 rows takes as long a row as one of 8,192.
MAX_USEFUL_CPU_TOKENS = 2048


@dataclass(frozen=True)
class MemoryCost:
    """Memory that a training pass takes.

    Attributes:
        backbone: Bytes a token, forward and backward.
        backbone_checkpointed: The same with gradient checkpointing.
        head: Bytes a position in the head.
        chunk: The largest number of positions that are in the head at a time.
    """

    backbone: int
    backbone_checkpointed: int
    head: int
    chunk: int

    def tokens(self, spare: int, *, gradient_checkpointing: bool) -> int:
        """Return the largest number of tokens that a pass of at most ``spare`` bytes can have."""
        each = self.backbone_checkpointed if gradient_checkpointing else self.backbone
        # Up to `chunk` tokens, all positions are in the head at a time; above, the head's memory no longer grows.
        tokens = spare // (each + self.head)
        return tokens if tokens < self.chunk else (spare - self.chunk * self.head) // each

    def bytes_of(self, tokens: int, *, gradient_checkpointing: bool) -> int:
        """Return the bytes that a pass over ``tokens`` takes: the inverse of :meth:`tokens`."""
        each = self.backbone_checkpointed if gradient_checkpointing else self.backbone
        return tokens * each + min(tokens, self.chunk) * self.head


def token_budget(cost: MemoryCost, device: torch.device, *, gradient_checkpointing: bool) -> int:
    """Return the default token budget of a micro-batch: a power of two, at least ``MIN_BUDGET_TOKENS``."""
    spare = int(FREE_MEMORY_SHARE * free_memory(device))
    tokens = cost.tokens(spare, gradient_checkpointing=gradient_checkpointing)
    return max(MIN_BUDGET_TOKENS, 1 << max(tokens, 1).bit_length() - 1)


def needs_gradient_checkpointing(cost: MemoryCost, device: torch.device) -> bool:
    """Return whether memory holds too few tokens without gradient checkpointing; always False on a CPU or with MPS."""
    if device.type != "cuda":
        return False
    return token_budget(cost, device, gradient_checkpointing=False) < MIN_USEFUL_CUDA_TOKENS


def max_useful_tokens(device: torch.device) -> int | None:
    """Return the tokens above which a larger micro-batch takes more memory but no less time; None if not known."""
    return MAX_USEFUL_CPU_TOKENS if device.type == "cpu" else None


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on ``device``; ``FALLBACK_FREE_BYTES`` if they are unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch has reserved but not allocated counts as used to CUDA, and is free to torch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    sources = (_system_memory, _container_memory, _address_space)
    sizes = [size for source in sources if (size := _or_none(source)) is not None]
    return min(sizes, default=FALLBACK_FREE_BYTES)


def _or_none(source: Callable[[], int | None]) -> int | None:
    try:
        return source()
    except (OSError, ValueError, AttributeError, KeyError, ImportError):
        return None


def _system_memory() -> int:
    """Return the memory that programs can allocate: on Linux as reported, elsewhere half of the machine's memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024  # reported in KiB; includes caches that can be dropped
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _container_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the memory left below a container's limit, or None if there is no limit.

    Binder, for example, has a limit of 2 GB on a much larger machine. The files are those of cgroups 2, then 1.
    """
    versions = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit, used, statistics, cached in versions:
        if (root / limit).is_file():
            text = (root / limit).read_text(encoding="ascii").strip()
            if text == "max":
                return None
            counts = dict(line.split() for line in (root / statistics).read_text(encoding="ascii").splitlines())
            # Cached pages of files that were read long ago count as used, and are dropped when a program needs memory.
            return max(int(text) - int((root / used).read_text(encoding="ascii")) + int(counts.get(cached, 0)), 0)
    return None


def _address_space() -> int | None:
    """Return the address space left below the limit of this process, as ``ulimit -v`` sets it; None without one."""
    import resource  # not on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return max(limit - pages * resource.getpagesize(), 0)


def release_memory(device: torch.device) -> None:
    """Free the memory of a failed pass, as far as nothing refers to it any more."""
    gc.collect()
    backend: Any = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    if backend is not None:
        backend.empty_cache()
