"""The checks of a GPU under pytest, and a run of their code and of the measurements on the CPU with a tiny model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ..benchmarks.gpu import Sizes, measure
from . import __main__ as program
from .checks import CHECKS, CPU, NotHere

CUDA, MPS = torch.cuda.is_available(), torch.backends.mps.is_available()


def check(name: str, device: str) -> None:
    try:
        CHECKS[name](torch.device(device))
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.mark.skipif(not CUDA, reason="this machine has no CUDA device")
@pytest.mark.parametrize("name", CHECKS)
def test_cuda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    check(name, "cuda:0")


@pytest.mark.mps
@pytest.mark.skipif(not MPS, reason="this machine has no MPS device")
@pytest.mark.parametrize("name", CHECKS)
def test_mps(name: str) -> None:
    check(name, "mps")


@pytest.mark.parametrize("name", CHECKS)
def test_checks_pass_on_the_cpu(name: str) -> None:
    if name in ("varlen_is_the_blocks", "memory_that_runs_out_changes_nothing"):
        with pytest.raises(NotHere, match=r"NVIDIA|CUDA"):
            CHECKS[name](CPU)
    else:
        CHECKS[name](CPU)


def test_a_failed_check_is_reported_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(device: torch.device) -> None:
        raise AssertionError("0.3 is above 0.1")

    def passes(device: torch.device) -> float:
        return 0.05

    monkeypatch.setattr(program, "CHECKS", {"fails": fails, "passes": passes})
    out = tmp_path / "gpu.json"
    assert program.main(["--out", str(out), "--checks-only"], CPU) == 1
    found = json.loads(out.read_text())["checks"]
    assert found["fails"]["reason"] == "AssertionError: 0.3 is above 0.1"
    assert found["passes"] == {"passed": True, "found": 0.05}
    assert "fails: False" in capsys.readouterr().out


@pytest.mark.skipif(CUDA or MPS, reason="this machine has a GPU")
def test_a_machine_without_a_gpu_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert "no GPU that PyTorch can use" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_measurements_on_the_cpu() -> None:
    small = {"tokens": 6, "pairs": 2, "prompts": 1, "group": 3, "samples": 3, "new_tokens": 4, "matmul": 32}
    sizes = Sizes(("tiny",), rounds=1, sft=(2, 9), **small)
    found: dict[str, Any] = measure(CPU, torch.float32, sizes, started=0.0)["tiny"]
    # 2 prompts of 6 tokens with 2 completions of 6 each, stored once: 2 x (6 + 2 x 6), of which no prefix is repeated.
    assert (found["dpo step"]["tokens"], found["dpo step"]["stored tokens"]) == (48, 36)
    assert (found["ppo update"]["tokens"], found["ppo update"]["stored tokens"]) == (36, 24)
    assert found["sft step"]["tokens"] == 18
    assert found["attention in one call"] is False
    for name in ("dpo step", "ppo update", "sft step"):
        assert found[name]["share of matmul rate"] > 0
        assert found[name]["median"] == found[name]["seconds"][0] > 0
    assert found["sampling"]["tokens/s"] > 0
    assert found["seconds from start to the first step"] > 0
