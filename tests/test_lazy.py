"""Names imported at their first use."""

from __future__ import annotations

import importlib
import sys
import types
from fractions import Fraction
from pathlib import Path

import pytest

PACKAGE = """
from mint_lab.lazy import lazy_names
__getattr__, __dir__ = lazy_names(__name__, {"answer": ".inner", "Fraction": "fractions", "inner": None})
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package with a lazy name of its own module, one of another package, and a lazy submodule."""
    name = f"room_{tmp_path.name}".replace("-", "_")
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE)
    (tmp_path / name / "inner.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


def test_a_name_is_imported_when_it_is_used_and_stands_in_the_module_from_then_on(room: types.ModuleType) -> None:
    assert f"{room.__name__}.inner" not in sys.modules
    assert room.answer == 42
    assert vars(room)["answer"] == 42
    assert room.Fraction is Fraction


def test_none_is_the_submodule_of_that_name(room: types.ModuleType) -> None:
    assert room.inner is sys.modules[f"{room.__name__}.inner"]


def test_an_unknown_name_is_an_attribute_error_that_names_the_module(room: types.ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{room.__name__}' has no attribute 'question'"):
        _ = room.question
    assert not hasattr(room, "question")


def test_dir_lists_the_names_before_they_are_used(room: types.ModuleType) -> None:
    assert dir(room) == ["Fraction", "answer", "inner"]


def test_a_function_named_like_its_submodule_stays_the_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import system binds the submodule ``check`` in its package; the public function has that name."""
    name = f"package_{tmp_path.name}".replace("-", "_")
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE.replace('"inner": None', '"check": ".check"'))
    (tmp_path / name / "check.py").write_text("def check():\n    return 'called'\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(f"{name}.check")  # binds the submodule before the name is used
    package = importlib.import_module(name)
    assert package.check() == "called"
    assert importlib.import_module(f"{name}.check") is sys.modules[f"{name}.check"]
