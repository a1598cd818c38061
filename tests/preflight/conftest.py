"""What the tests of preflight share."""

from __future__ import annotations

import pytest

from mint_lab.preflight import check, preflight


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the checks of a loss may take longer than the limit that people get."""
    for function in (preflight, check):
        monkeypatch.setitem(function.__kwdefaults__, "limit", 300.0)
