"""A shell of its own, and a registry that forgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mint_lab.losses import LOSSES


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
def registry() -> Iterator[None]:
    before = dict(LOSSES._specs)
    yield
    LOSSES._specs.clear()
    LOSSES._specs.update(before)
