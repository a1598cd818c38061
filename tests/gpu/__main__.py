"""``python -m tests.gpu``: run the checks and the measurements on this machine's GPU, and write them to a JSON file."""

from __future__ import annotations

import os
import time

STARTED = time.perf_counter()  # before torch is imported
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic algorithms; read when CUDA starts

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

from ..benchmarks.gpu import Sizes, measure  # noqa: E402
from .checks import CHECKS, NotHere  # noqa: E402


def device_here() -> torch.device | None:
    """Return the GPU of this machine, or None."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps") if torch.backends.mps.is_available() else None


def run_checks(device: torch.device) -> dict[str, dict[str, Any]]:
    """Run every check; one that fails does not stop the others."""
    found: dict[str, dict[str, Any]] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = {"passed": True, "found": check(device)}
        except NotHere as reason:
            found[name] = {"passed": None, "reason": str(reason)}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            found[name] = {"passed": False, "reason": reason, "trace": traceback.format_exc()}
        detail = found[name].get("found") or found[name].get("reason") or ""
        print(f"{name}: {found[name]['passed']} {detail}", flush=True)
    return found


def main(arguments: list[str] | None = None, device: torch.device | None = None) -> int:
    """Return the exit status: 1 if a check failed, and 0 also on a machine without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON file")
    parser.add_argument("--checks-only", action="store_true", help="measure nothing")
    parser.add_argument("--shapes", default="0.6B,4B", help="models to measure, of 0.6B, 4B and tiny")
    options = parser.parse_args(arguments)
    device = device or device_here()
    if device is None:
        print("this machine has no GPU that PyTorch can use (CUDA or MPS): nothing was run")
        return 0
    cuda = device.type == "cuda"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.type} of {platform.machine()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "checks": run_checks(device),
    }
    if not options.checks_only:
        dtype = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float32
        report["figures"] = measure(device, dtype, Sizes(shapes=tuple(options.shapes.split(","))), STARTED)
        print(json.dumps(report["figures"], indent=2))
    report["seconds"] = time.perf_counter() - STARTED
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(check["passed"] is False for check in report["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
