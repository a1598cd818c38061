r"""How many tokens fit into memory at a time, and what to do when they did not.

Estimate of a training pass, bytes a token, from the shapes of the model's linear layers (in x out; attention and MLP
alike, so from hidden size, head count, intermediate size and layers):

.. math:: 2\,b \sum_{\text{layers}} (\text{in} + \text{out})

with :math:`b` the bytes of an element. What autograd keeps was measured at 1.2 to 2.0 times :math:`b` times the sum
on nine families. The head adds 8 bytes a vocabulary entry (logits, and what is made of them) for as many positions as
one of its chunks holds. Half of the free memory may be used, and the budget is rounded down to a power of two: two runs
on one machine cut their batches alike.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import MintLabError

__all__ = ["MemoryCost", "enough", "free_memory", "is_out_of_memory", "release", "token_budget"]

SHARE = 0.5
# Where nothing can be found out: what a small Binder machine has to spare.
UNKNOWN = 1 << 30
# No budget is smaller: a batch this small fits or nothing does.
LEAST = 64

# Words of the allocators: torch on CUDA, MPS and CPU, cuBLAS, numpy, and the operating system's own.
_WORDS = ("out of memory", "allocate memory", "unable to allocate", "alloc_failed", "bad_alloc")


@dataclass(frozen=True)
class MemoryCost:
    """What a token costs in a training pass, bytes.

    Attributes:
        trunk: a token, forward and backward; ``recomputed``: the same with gradient checkpointing.
        head: a position in the head; ``chunk``: positions that the head holds at most.
    """

    trunk: int
    recomputed: int
    head: int
    chunk: int

    def tokens(self, spare: int, *, recompute: bool) -> int:
        """The most tokens whose cost is within ``spare`` bytes."""
        each = self.recomputed if recompute else self.trunk
        together = spare // (each + self.head)
        return together if together < self.chunk else (spare - self.chunk * self.head) // each


def token_budget(cost: MemoryCost, device: torch.device, *, recompute: bool) -> int:
    """Tokens a micro-batch may hold by default: a power of two, at least ``LEAST``."""
    tokens = cost.tokens(int(SHARE * free_memory(device)), recompute=recompute)
    return max(LEAST, 1 << max(tokens, 1).bit_length() - 1)


def enough(device: torch.device) -> int | None:
    """Tokens beyond which a larger micro-batch is no faster, only larger; None where the memory may as well be used.

    A CPU multiplies 2,048 rows as fast as 8,192; of a GPU one cannot say.
    """
    return 2048 if device.type == "cpu" else None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on ``device``; a cautious guess where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    found = [value for ask in (_available, _cgroup_room) if (value := _try(ask)) is not None]
    return min(found, default=UNKNOWN)


def _try(ask: Callable[[], int | None]) -> int | None:
    try:
        return ask()
    except (OSError, ValueError, AttributeError, KeyError):
        return None


def _available() -> int:
    """Linux says what programs can have, caches given up; elsewhere half of what the machine has is taken for free."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _cgroup_room(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves (Binder gives one of 2 GB on a far larger machine); None without a limit."""
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit, used, statistics, cached in names:
        if (root / limit).is_file():
            text = (root / limit).read_text(encoding="ascii").strip()
            if text == "max":
                return None
            facts = dict(line.split() for line in (root / statistics).read_text(encoding="ascii").splitlines())
            # files that were read long ago count as used, and are given up when a program asks
            return max(int(text) - int((root / used).read_text(encoding="ascii")) + int(facts.get(cached, 0)), 0)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, and not this package or a bug, raised ``error``."""
    if isinstance(error, MintLabError):
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release(device: torch.device) -> None:
    """Give back what a failed pass held, as far as nobody refers to it any more."""
    gc.collect()
    backend: Any = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    if backend is not None:
        backend.empty_cache()
