from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from mint_lab.ui import protocol

TWIN = (Path(__file__).parents[2] / "widgets" / "src" / "protocol.ts").read_text()
TYPES = [value for value in vars(protocol).values() if is_typeddict(value) and value is not protocol.StateChange]
PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", bytes: "DataView", type(None): "null"}


def typescript(annotation: Any) -> str:
    """How the twin has to write a Python type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(typescript(argument) for argument in arguments)
    if origin is list:
        return f"{typescript(arguments[0])}[]"
    if origin is dict:
        return f"Record<{typescript(arguments[0])}, {typescript(arguments[1])}>"
    if annotation in PLAIN:
        return PLAIN[annotation]
    return annotation.__name__


def interface(name: str) -> dict[str, str]:
    """Fields of an interface of the twin, as written."""
    found = re.search(rf"export interface {name} {{\n(.*?)\n}}", TWIN, re.DOTALL)
    assert found, f"protocol.ts has no interface {name}"
    return dict(re.findall(r"^  (\w+\??): (.+);$", found[1], re.MULTILINE))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_both_sides_agree_on_every_field(kind: Any) -> None:
    hints = get_type_hints(kind)
    optional = "?" if not kind.__total__ else ""
    expected = {f"{name}{optional}": typescript(hint) for name, hint in hints.items()}
    if kind is protocol.Request:
        expected["type"] = expected.pop("type?")  # the page cannot send a request of no kind
        assert expected["type"] == alias("RequestType")
        expected["type"] = "RequestType"
    assert interface(kind.__name__) == expected


def alias(name: str) -> str:
    found = re.search(rf"export type {name} =\s*(.*?);", TWIN, re.DOTALL)
    assert found, f"protocol.ts has no type {name}"
    return " ".join(found[1].split()).removeprefix("| ")


def test_both_sides_agree_on_the_version_and_the_messages() -> None:
    assert f"export const PROTOCOL = {protocol.PROTOCOL};" in TWIN
    assert alias("Message") == typescript(protocol.Message)
    assert alias("StateChange") == "Partial<State>"
    assert set(get_type_hints(protocol.StateChange)) == set(get_type_hints(protocol.State))


def test_the_twin_has_nothing_of_its_own() -> None:
    assert set(re.findall(r"export interface (\w+)", TWIN)) == {kind.__name__ for kind in TYPES}
