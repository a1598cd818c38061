"""A cell's text as a module of its own."""

from __future__ import annotations

import inspect
import linecache
from typing import Any

import pytest

from mint_lab.cells.source import cell_source, compile_cell


def test_lines_are_numbered_as_the_editor_numbers_them() -> None:
    source = cell_source("mine --beta 1", "def mine(data, logprobs_list):\n    return 1")
    assert source == "# %%loss mine --beta 1\ndef mine(data, logprobs_list):\n    return 1\n"
    namespace: dict[str, Any] = {}
    found = compile_cell(source, "mine", 3, namespace)
    assert found.fn.__code__.co_firstlineno == 2
    assert found.filename == "<loss mine v3>"
    assert inspect.getsource(found.fn) == "def mine(data, logprobs_list):\n    return 1\n"
    linecache.checkcache()  # what tracebacks call first
    assert linecache.getline("<loss mine v3>", 3) == "    return 1\n"


def test_versions_keep_their_own_text() -> None:
    for version, value in ((1, "one"), (2, "two")):
        compile_cell(f"def mine(a, b):\n    return '{value}'\n", "mine", version, {})
    assert "one" in linecache.getline("<loss mine v1>", 2)
    assert "two" in linecache.getline("<loss mine v2>", 2)


def test_what_a_cell_raises_passes_through() -> None:
    with pytest.raises(SyntaxError):
        compile_cell("def", "mine", 1, {})
    with pytest.raises(ZeroDivisionError):
        compile_cell("1 / 0", "mine", 1, {})
