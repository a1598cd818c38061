"""Each lesson's kernel has to stay well under the 2 GB that mybinder.org gives a container."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

LIMIT_MB = 1200


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Read the kernel's peak after a lesson's last cell, and before nbval ends it."""
    kernel = getattr(item.parent, "kernel", None)
    last = kernel is not None and (nextitem is None or nextitem.parent is not item.parent)
    peak = _peak_mb(kernel.km.provisioner.pid) if last else None
    result = yield
    if peak is not None:
        assert 100 < peak < LIMIT_MB, f"the kernel of {item.path.name} took {peak} MB, expected less than {LIMIT_MB}"
    return result


def _peak_mb(pid: int) -> int | None:
    """Peak resident memory; None where the system has no /proc.

    ru_maxrss would not do: a kernel inherits the peak of the process that started it.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    facts = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(facts["VmHWM"].split()[0]) // 1024
