"""The device and the type of a base model's weights, and copies to the device that the host does not wait for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError

__all__ = ["add_rows", "dtype_note", "pick_device", "pick_dtype", "to_device"]

# torch's names of the instruction sets that multiply bfloat16: x86-64, then ARM.
_BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx10_1", "bf16", "sve_bf16")


def pick_dtype(device: torch.device, name: str | None = None) -> torch.dtype:
    """Return the requested type, or by default bfloat16 on a CUDA device that supports it and float32 elsewhere.

    Some CPUs multiply bfloat16 faster too. Float32 is their default nevertheless, for equal numbers on all of them.

    Raises:
        ConfigError: If ``name`` is neither "float32" nor "bfloat16".
    """
    if name is not None:
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if name not in dtypes:
            raise ConfigError(f"dtype is {name!r}, expected 'float32' or 'bfloat16'")
        return dtypes[name]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def dtype_note(device: torch.device, dtype: torch.dtype) -> str:
    """Return a warning if the device computes with this type slower than with float32; otherwise an empty string."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return ""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # older versions of torch do not say
    if capabilities is None or any(capabilities().get(name) for name in _BFLOAT16_INSTRUCTIONS):
        return ""
    return (
        "this processor has no instructions for bfloat16, so that its products take several times as long as those of "
        "float32: use dtype='float32', unless memory is short"
    )


def pick_device(name: str | None = None) -> torch.device:
    """Return the requested device, or by default the first available of CUDA, MPS and CPU.

    Raises:
        ConfigError: If torch has no such device.
    """
    if name is not None:
        try:
            return torch.device(name)
        except (RuntimeError, TypeError):
            raise ConfigError(f"device is {name!r}, expected 'cuda', 'mps' or 'cpu'") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def to_device(values: torch.Tensor | NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy ``values`` from the CPU to ``device``; the host does not wait for the work that a CUDA device has queued.

    CUDA first copies pageable memory to a buffer of its own, so the source may be changed or freed afterwards. MPS
    gives no such promise, and its copies block.
    """
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    return tensor.to(device, non_blocking=device.type == "cuda")


def add_rows(x: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> None:
    """Add ``rows``, ``(n, ...)``, to ``x[index]``; ``index`` is ``(n,)`` and may name a row several times.

    The order of the sums is the same in each call: on a CUDA device, ``index_add_`` would add in any order.
    """
    if x.device.type == "cuda":
        x.index_put_((index,), rows, accumulate=True)  # sorts the indices first
    else:
        x.index_add_(0, index, rows)
