"""The generated TypeScript files are up to date, and the generator translates every type that messages use."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path
from typing import Any, Literal, TypedDict, get_type_hints, is_typeddict

import pytest

from mint_lab.ui import data_messages, messages, run_messages

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "widgets" / "generate_from_python.py"


def _load_generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate_from_python", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = _load_generator()


@pytest.mark.parametrize("path", generator.GENERATED, ids=lambda path: path.name)
def test_generated_file_is_up_to_date(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    assert written == generator.GENERATED[path](), f"{path} is out of date: run python {GENERATOR.relative_to(ROOT)}"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, "string"),
        (float, "number"),
        (bool, "boolean"),
        (bytes, "DataView"),
        (int | None, "number | null"),
        (list[float | None], "(number | null)[]"),
        (list[list[float | None]], "(number | null)[][]"),
        (list[float] | None, "number[] | null"),
        (dict[str, list[str]], "Record<string, string[]>"),
        (Literal["a", "b"], '"a" | "b"'),
        (messages.Chart, "Chart"),
        (list[messages.Chart | None], "(Chart | null)[]"),
    ],
)
def test_annotation_becomes_its_typescript_type(annotation: Any, expected: str) -> None:
    assert generator.type_name(annotation, {}) == expected


@pytest.mark.parametrize("annotation", [set[str], Path, tuple[int, int]])
def test_annotation_without_counterpart_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match="has no TypeScript counterpart"):
        generator.type_name(annotation, {})


def test_alias_is_used_by_name_and_may_be_part_of_a_union() -> None:
    assert generator.type_name(messages.Message, {messages.Message: "Message"}) == "Message"
    assert generator.type_name(list[messages.Message], {messages.Message: "Message"}) == "Message[]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", 'b"'], '["a", "b\\""]'),
        ((1, 2.5), "[1, 2.5]"),
        ({"light": "#fff"}, '{ light: "#fff" }'),
        ({"light": {"inks": [(0, 1)]}}, "{\n  light: {\n    inks: [\n      [0, 1],\n    ],\n  },\n}"),
    ],
)
def test_constant_becomes_a_typescript_literal(value: Any, expected: str) -> None:
    assert generator.literal(value) == expected


class _Fruit(TypedDict):
    """A fruit; see :class:`~mint_lab.Basket`.

    Attributes:
        weight: In ``kg``; None if it was
            not weighed.
    """

    name: str
    weight: float | None


class _FruitRequest(TypedDict, total=False):
    """A request."""

    type: Literal["eat", "peel"]
    name: str


def _module(**members: Any) -> types.ModuleType:
    module = types.ModuleType(__name__)
    vars(module).update(members)
    return module


def test_docstrings_become_comments_and_optional_fields_get_a_question_mark() -> None:
    kind = Literal["eat", "peel"]
    written = generator.module_types(_module(_Fruit=_Fruit, Kind=kind, _FruitRequest=_FruitRequest), "// fruit\n")
    assert written == (
        "// fruit\n\n"
        "/** A fruit; see `mint_lab.Basket`. */\n"
        "export interface _Fruit {\n"
        "  name: string;\n"
        "  /** In `kg`; null if it was not weighed. */\n"
        "  weight: number | null;\n"
        "}\n\n"
        'export type Kind = "eat" | "peel";\n\n'
        "/** A request. */\n"
        "export interface _FruitRequest {\n"
        "  type: Kind;\n"
        "  name?: string;\n"
        "}\n"
    )


def test_state_change_has_the_fields_of_the_state() -> None:
    assert get_type_hints(messages.StateChange) == get_type_hints(messages.State)
    assert "export type StateChange = Partial<State>;" in generator.messages_source()


@pytest.mark.parametrize("module", [messages, data_messages, run_messages], ids=lambda module: module.__name__)
def test_described_attributes_are_fields(module: types.ModuleType) -> None:
    """A description of a field that was renamed would silently vanish from the TypeScript file."""
    kinds = [kind for kind in vars(module).values() if is_typeddict(kind)]
    for kind in kinds:
        _, described = generator._documentation(kind)
        assert described.keys() <= kind.__annotations__.keys(), kind.__name__
