"""Named tensors in safetensors files, all of whose numbers are finite: others are neither written nor read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .errors import CheckpointError

__all__ = ["first_nonfinite", "load_tensors", "save_tensors"]


def first_nonfinite(
    tensors: Iterable[tuple[str, torch.Tensor]], *, minus_inf: bool = False
) -> tuple[str, float] | None:
    """Return the name of the first tensor with a number that is not finite in float32, and that number; or None.

    Args:
        tensors: Names and tensors.
        minus_inf: Whether -inf counts as finite; it is the logarithm of a probability of 0.
    """
    named = list(tensors)
    by_device: dict[torch.device, list[tuple[int, torch.Tensor]]] = {}
    for i, (_, tensor) in enumerate(named):
        by_device.setdefault(tensor.device, []).append((i, _is_good(tensor, minus_inf).all()))
    # One read a device: the host waits for each.
    bad = [
        i
        for flags in by_device.values()
        for (i, _), good in zip(flags, torch.stack([flag for _, flag in flags]).tolist(), strict=True)
        if not good
    ]
    if not bad:
        return None
    name, tensor = named[min(bad)]
    return name, float(tensor.detach().float()[~_is_good(tensor, minus_inf)][0])


def _is_good(tensor: torch.Tensor, minus_inf: bool) -> torch.Tensor:
    values = tensor.detach().float()  # a number of float64 may be too large for the float32 of weights
    return values.isfinite() | values.isneginf() if minus_inf else values.isfinite()


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path, *, minus_inf: bool = False) -> None:
    """Write tensors to ``file``.

    Args:
        tensors: The tensors by name.
        file: Its path.
        minus_inf: As in :func:`first_nonfinite`.

    Raises:
        CheckpointError: If a number is not finite. Nothing is written then.
        OSError, SafetensorError: If the file cannot be written.
    """
    # Clones, because safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if (found := first_nonfinite(whole.items(), minus_inf=minus_inf)) is not None:
        raise CheckpointError(f"{file} was not written: {found[0]} has the value {found[1]:g}, expected finite numbers")
    save_file(whole, file, metadata={"format": "pt"})


def load_tensors(file: Path, *, minus_inf: bool = False) -> dict[str, torch.Tensor]:
    """Read the tensors in ``file``.

    Args:
        file: Its path.
        minus_inf: As in :func:`first_nonfinite`.

    Raises:
        CheckpointError: If a number is not finite.
        OSError, SafetensorError: If the file is missing or damaged.
    """
    tensors = load_file(file)
    if (found := first_nonfinite(tensors.items(), minus_inf=minus_inf)) is not None:
        raise CheckpointError(f"{file} is damaged: {found[0]} has the value {found[1]:g}, expected finite numbers")
    return tensors
