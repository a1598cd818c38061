"""``mint-lab serve`` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .sdk_program import KEY

__all__ = ["ENVIRONMENT", "served"]

ENVIRONMENT = os.environ | {"TINKER_TELEMETRY": "0", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@contextlib.contextmanager
def served(folder: Path, port: int = 0, environment: dict[str, str] | None = None) -> Iterator[tuple[Any, str]]:
    """Start a server process; yield it and its URL. It must end with nothing but its first lines on the terminal."""
    command = [
        sys.executable,
        "-m",
        "mint_lab.cli",
        "serve",
        "--port",
        str(port),
        "--key",
        KEY,
        "--folder",
        str(folder),
    ]
    process = subprocess.Popen(
        command, env=environment or ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.communicate()[1]
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert (process.returncode, errors) in ((0, ""), (-signal.SIGKILL, "")), errors
