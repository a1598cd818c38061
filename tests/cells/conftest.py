"""A shell of its own."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mint_lab.runs import live_runs


@pytest.fixture
def shell() -> Iterator[Any]:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "mint_lab")
    shell.reset(new_session=False)
    yield shell
    shell.run_line_magic("unload_ext", "mint_lab")
    InteractiveShell.clear_instance()


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell tells what paused runs use, and they must not be those of another test."""
    monkeypatch.setattr(live_runs, "_live_loops", weakref.WeakSet())
