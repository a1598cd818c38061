"""A process environment with the oldest supported ``tinker``, beside everything else at its newest version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["OLDEST", "ROOT", "oldest_tinker"]

ROOT = Path(__file__).resolve().parents[2]
OLDEST = "0.22.0"


def oldest_tinker() -> dict[str, str]:
    """Return an environment in which ``import tinker`` gives the oldest version; downloaded once, then kept."""
    folder = ROOT / ".cache" / f"tinker-{OLDEST}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh)]
        done = subprocess.run([*pip, f"tinker=={OLDEST}", "grpcio"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"tinker {OLDEST} could not be installed:\n{done.stderr}"
        if not folder.is_dir():  # another process may have been faster
            fresh.rename(folder)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "PYTHONWARNINGS": "default"}
