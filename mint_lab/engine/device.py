"""The device and the type of a base model's weights."""

from __future__ import annotations

import torch

from ..errors import ConfigError

__all__ = ["dtype_note", "pick_device", "pick_dtype"]

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
