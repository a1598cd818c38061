"""A cell's text as a module of its own."""

from __future__ import annotations

import inspect
import linecache
from typing import Any

import pytest

from mint_lab.errors import ConfigError, LossError
from mint_lab.usercode.compile_cell import cell_source, compile_cell, shown_short


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


@pytest.mark.parametrize(
    ("imports", "kind", "body", "source"),
    [
        ((), "loss", "x = 1\n", "# %%loss mine --a 1\nx = 1\n"),
        ((), "reward", "x = 1", "# %%reward mine --a 1\nx = 1\n"),
        (("import a", "from b import c"), "loss", "x = 1", "import a; from b import c  # %%loss mine --a 1\nx = 1\n"),
        ((), "loss", "", "# %%loss mine --a 1\n\n"),
    ],
)
def test_source_by_hand(imports: Any, kind: str, body: str, source: str) -> None:
    """The line of the magic and the imports share the first line."""
    assert cell_source(" mine --a 1  ", body, imports, kind) == source


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("def a(x, y): pass\ndef b(x, y): pass\n", "b"),  # the last one
        ("def b(x, y): pass\ndef a(x, y): return b(x, y)\n", "a"),  # not a helper
        ("def a(x, y): return b(x, y)\ndef b(x, y): return a(x, y)\n", "b"),  # each is one: the last
        ("def a(x, y): return [b(x, i) for i in y]\ndef b(x, y): pass\n", "a"),  # used inside a comprehension
        ("def a(x, y): return a(x, y)\ndef b(x): pass\n", "a"),  # calls itself
        ("def a(x, y): pass\ndef b(x, *, y): pass\n", "a"),  # b takes one by position
        ("def a(x, y): pass\ndef b(x, *y): pass\n", "a"),
        ("def a(x, y): pass\ndef b(x, y, z=1): pass\n", "b"),
        ("def a(x, y): pass\ndef b(x, y, *, z=1): pass\n", "b"),  # what follows the two does not matter
        ("def a(x, y): pass\ndef b(x, y, /): pass\n", "a"),
        ("from os.path import join\ndef a(x, y): pass\n", "a"),  # join is of another file
        ("def mine(x): pass\ndef b(x, y): pass\n", "mine"),  # the name counts more than the parameters
    ],
)
def test_function_that_the_cell_is_about(body: str, name: str) -> None:
    assert compile_cell(body, "mine", 1, {}).fn.__name__ == name


@pytest.mark.parametrize("kind", ["loss", "reward"])
def test_cell_without_a_function_shows_the_one_that_is_expected(kind: str) -> None:
    shape = {
        "loss": "def mine(data, logprobs_list):\n    ...\n    return loss, {}",
        "reward": "def mine(response_text, example):\n    ...\n    return 1.0",
    }[kind]
    with pytest.raises(ConfigError) as caught:
        compile_cell("def one(x): pass\n", "mine", 1, {}, kind)
    assert str(caught.value) == f"the cell defines no function for the {kind} 'mine'; expected\n{shape}"


def test_file_name_says_kind_name_and_version() -> None:
    found = compile_cell("def mine(a, b):\n    raise ValueError\n", "mine", 4, {}, "reward")
    assert found.filename == found.fn.__code__.co_filename == "<reward mine v4>"
    assert found.source == "def mine(a, b):\n    raise ValueError\n"
    assert linecache.getline("<reward mine v4>", 2) == "    raise ValueError\n"


def test_name_that_is_assigned_again_with_the_notebooks_value_is_the_cells_own() -> None:
    """``same = 1`` in the cell keeps 1 for this version, although the notebook's value was 1 as well."""
    one = 10**9
    notebook: dict[str, Any] = {"same": one, "used": one}
    found = compile_cell("same = used\ndef mine(a, b): return same, used\n", "mine", 1, notebook)
    assert set(found.names) == {"same", "mine"}
    notebook |= {"same": 1, "used": 2}
    assert found.fn(0, 0) == (one, 2)


def test_annotations_are_those_of_the_cell() -> None:
    """The postponed evaluation of this package's own modules is none of the cell."""
    text = "def mine(a: int, b: size): pass\n"
    fn = compile_cell(text, "mine", 1, {}, before=["def size(x: int): pass"]).fn
    assert fn.__annotations__["a"] is int
    assert fn.__annotations__["b"].__annotations__ == {"x": int}


# -- errors as IPython shows them -------------------------------------------------------------------------------------


def rendered(error: Exception) -> str:
    return "\n".join(error._render_traceback_())  # type: ignore[attr-defined]


def test_syntax_error_names_its_line_and_text() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile_cell("# %%loss mine\n  def mine(\n", "mine", 1, {})
    shown = shown_short(caught.value, "loss")
    assert isinstance(shown, LossError)
    assert rendered(shown).startswith("LossError: ")
    assert "the cell is not valid Python, line 2: def mine(\nunexpected indent" in rendered(shown)
    assert "the cell is not valid Python, some words" in rendered(shown_short(SyntaxError("some words"), "loss"))


def test_error_of_a_cell_shows_only_lines_of_its_kind() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        compile_cell("x = 1\n1 / 0\n", "mine", 1, {})
    loss = rendered(shown_short(caught.value, "loss"))
    assert loss.startswith('  File "<loss mine v1>", line 2, in <module>\n    1 / 0')
    assert loss.endswith("ZeroDivisionError: division by zero")
    assert rendered(shown_short(caught.value, "reward")) == "ZeroDivisionError: division by zero"


def test_error_of_the_package_and_a_message_are_one_line() -> None:
    error = ConfigError("no such thing")
    assert shown_short(error, "loss") is error
    assert rendered(error) == "ConfigError: no such thing"
    assert rendered(shown_short(error, "loss", "see above")) == "LossError: see above"
