"""A cell's text as a module of its own."""

from __future__ import annotations

import inspect
import linecache
from typing import Any

import pytest

from mint_lab.cells.compile_cell import cell_source, compile_cell


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


def test_what_a_cell_defines_is_its_versions_own() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__", "outside": 3.0, "same": 1}
    text = "same = 1\ndef helper(): return {}\ndef mine(a, b): return helper() + outside + same\n"
    first = compile_cell(text.format(10), "mine", 1, notebook)
    assert notebook == {"__name__": "__main__", "outside": 3.0, "same": 1}
    assert sorted(first.names) == ["helper", "mine", "same"]
    notebook |= first.names
    second = compile_cell(text.format(20), "mine", 2, notebook)
    assert (first.fn(0, 0), second.fn(0, 0)) == (14, 24)
    notebook |= {"outside": 5.0, "same": 7, "helper": None}  # names of other cells stay the notebook's
    assert (first.fn(0, 0), second.fn(0, 0)) == (16, 26)
    assert first.fn.__module__ == "__main__"
    with pytest.raises(ZeroDivisionError):
        compile_cell(text.format(30) + "1 / 0\n", "mine", 3, notebook)
    assert (first.fn(0, 0), notebook["helper"]) == (16, None)


def test_a_class_in_a_cell_sees_the_notebooks_names() -> None:
    notebook: dict[str, Any] = {"width": 4, "base": dict}
    text = "class Held(base):\n    size = width\n    def __len__(self): return width\n"
    found = compile_cell(f"{text}def mine(a, b): return Held.size, len(Held())\n", "mine", 1, notebook)
    assert found.fn(0, 0) == (4, 4)
    notebook["width"] = 5
    assert found.fn(0, 0) == (4, 5)


def test_a_name_that_is_nowhere_is_a_name_error() -> None:
    with pytest.raises(NameError, match="name 'nowhere' is not defined"):
        compile_cell("def mine(a, b): return nowhere\n", "mine", 1, {}).fn(0, 0)
    assert compile_cell("def mine(a, b): return len(a)\n", "mine", 1, {}).fn("four", 0) == 4  # a built-in


def test_statements_before_share_the_scope() -> None:
    notebook: dict[str, Any] = {}
    text = "from __future__ import annotations\ndef mine(a, b): return math.floor(a)\n"
    found = compile_cell(text, "mine", 1, notebook, before=["import math"])
    assert found.fn(2.5, 0) == 2
    assert not notebook
    assert "math" in found.names
