"""A CUDA device that exists for PyTorch's dispatcher only: its tensors are on the CPU, but refuse to meet CPU tensors.

Within :func:`pretended_gpu`, ``"cuda"`` is a device. A tensor there is a wrapper around a CPU tensor, and says that it
is on ``cuda:0``. Every operation passes a dispatch mode, which

- refuses operands on different devices, as CUDA does, except for a CPU scalar and for indices into a CUDA tensor;
- records each operation that makes the host wait for the device: reads of a number, copies that block, and operations
  whose output shape depends on values.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
aten: Any = torch.ops.aten

# The number of elements of their results depends on values, so that the host must wait for them.
DATA_DEPENDENT = {
    aten.nonzero.default, aten.masked_select.default, aten.unique_dim.default, aten._unique2.default,
    aten.unique_consecutive.default, aten.bincount.default, aten.repeat_interleave.Tensor, aten.equal.default,
    aten._local_scalar_dense.default, aten.is_nonzero.default,
}  # fmt: skip
COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor,
    aten._index_put_impl_.default,
}  # fmt: skip


def _widened_product(a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype, **out: torch.Tensor) -> torch.Tensor:
    return torch.mm(a.to(out_dtype), b.to(out_dtype), **out)


# Operations that PyTorch has for CUDA devices only.
EMULATED = {aten.mm.dtype: _widened_product, aten.mm.dtype_out: _widened_product}


class DeviceMixed(Exception):
    """An operation got operands on different devices."""


class GpuTensor(torch.Tensor):
    """A tensor on the pretended device."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> GpuTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device="meta", requires_grad=False,
        )  # fmt: skip
        made.on_cpu = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.on_cpu!r})"

    # Attributes of the class, because PyTorch switches its own mechanism off while a backward pass runs.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    device = GPU  # type: ignore[assignment]
    is_cuda, is_meta, is_cpu = True, False, False  # type: ignore[assignment]

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value: GpuTensor) -> None:
        torch.Tensor.data.__set__(self, value)
        self.on_cpu = value.on_cpu

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise DeviceMixed("numpy() of a tensor on the GPU")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the pretended GPU outside of pretended_gpu()")


class PretendedGpu(TorchDispatchMode):
    """Runs operations on the pretended device, and records those that make the host wait.

    Attributes:
        waits: For each waiting operation, its name and the line of the package that called it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        operands = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        on_gpu = [x for x in operands if isinstance(x, GpuTensor)]
        target = kwargs.get("device")
        to_gpu = bool(on_gpu) if target is None else torch.device(target).type in ("cuda", "meta")
        if func in COPIES:
            self._record_copy(func, args, kwargs, to_gpu)
        elif on_gpu:
            self._check(func, args, operands)
        if target is not None:
            kwargs["device"] = CPU
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        inner_args, inner_kwargs = tree_map(lambda x: x.on_cpu if isinstance(x, GpuTensor) else x, (args, kwargs))
        result = EMULATED.get(func, func)(*inner_args, **inner_kwargs)
        if not to_gpu and not on_gpu:
            return result
        if to_gpu:
            result = tree_map(lambda x: GpuTensor(x) if isinstance(x, torch.Tensor) else x, result)
        if func in COPIES and func is not aten.copy_.default:
            return result
        return return_and_correct_aliasing(func, args, kwargs, result) if on_gpu else result

    def _check(self, func: Any, args: Any, operands: list[torch.Tensor]) -> None:
        for x in operands:
            if isinstance(x, GpuTensor) or x.dim() == 0:
                continue
            if func in INDEXING and isinstance(args[0], GpuTensor) and x.dtype != torch.float32:
                self._record(func, "index on the CPU")
                continue
            raise DeviceMixed(
                f"{func} got {[(tuple(o.shape), 'cuda' if isinstance(o, GpuTensor) else 'cpu') for o in operands]}"
            )
        masks = func in INDEXING and any(
            isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if func in DATA_DEPENDENT or masks:
            self._record(func)

    def _record_copy(self, func: Any, args: Any, kwargs: dict[str, Any], to_gpu: bool) -> None:
        source, out = (args[0], to_gpu) if func is aten._to_copy.default else (args[1], isinstance(args[0], GpuTensor))
        non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        if isinstance(source, GpuTensor) != out and not non_blocking and source.numel():
            self._record(func, "to the GPU" if out else "to the CPU")

    def _record(self, func: Any, what: str = "") -> None:
        frames = [f for f in traceback.extract_stack() if "/mint_lab/" in f.filename or "transformers" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        self.waits[f"{func.__name__} {what}".strip(), where] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counter[tuple[str, str]]]:
        """Within this context, count the waits; the yielded counter is filled at the end."""
        before = Counter(self.waits)
        found: Counter[tuple[str, str]] = Counter()
        yield found
        found.update(self.waits - before)


def _is_cuda(x: Any) -> bool:
    return x == "cuda" if isinstance(x, str) else isinstance(x, torch.device) and x.type == "cuda"


class _WithIndex(TorchFunctionMode):
    """Gives the device ``"cuda"`` its index, for which PyTorch would ask the CUDA driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexed = [GPU if _is_cuda(x) else x for x in args]
        named = {key: GPU if _is_cuda(x) else x for key, x in (kwargs or {}).items()}
        if func in (torch.tensor, torch.as_tensor) and named.get("device") == GPU:  # neither passes the dispatcher
            return func(*indexed, **{**named, "device": CPU}).to(GPU)
        return func(*indexed, **named)


@contextlib.contextmanager
def pretended_gpu(memory: int = 1 << 30) -> Generator[PretendedGpu]:
    """Within this context, ``"cuda"`` is a device with ``memory`` free bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))  # before FlashAttention
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (memory, memory))
        patch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda *_: 0)
        with torch.autograd.set_multithreading_enabled(False), _WithIndex(), PretendedGpu() as mode:
            yield mode
