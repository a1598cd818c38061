"""What allocators raise when memory runs out."""

from __future__ import annotations

import errno

import pytest
import torch

from mint_lab.errors import DataError, LossError, ModelError
from mint_lab.usercode.out_of_memory import first_line, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (ModelError("out of memory twice"), False),
        (LossError("out of memory"), False),
        (DataError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognized(error: BaseException, verdict: bool) -> None:
    assert is_out_of_memory(error) == verdict


def test_torchs_own_error_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_first_line_of_an_error_without_text_is_its_class() -> None:
    assert first_line(RuntimeError("\nfirst\nsecond")) == "first"
    assert first_line(MemoryError()) == "MemoryError"
