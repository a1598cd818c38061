"""Recognize that an allocator ran out of memory: the one place that knows how torch and others say so."""

from __future__ import annotations

import errno

import torch

from ..errors import MintLabError

__all__ = ["first_line", "is_out_of_memory"]

# Text in the errors of the allocators: torch on CUDA, MPS and CPU (Linux, Windows), cuBLAS, numpy, and C++.
_TEXTS = ("out of memory", "allocate memory", "not enough memory", "unable to allocate", "alloc_failed", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an allocator raised ``error``, and False for this package's errors and for other failures."""
    if isinstance(error, MintLabError):
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):  # of a file that is mapped into memory, or of a new process
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
