from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from mint_lab.ui import protocol, protocol_runs

SOURCES = Path(__file__).parents[2] / "widgets" / "src"
TWINS = {
    module: (SOURCES / f"{module.__name__.rpartition('.')[2]}.ts").read_text() for module in (protocol, protocol_runs)
}
TWIN = "".join(TWINS.values())
TYPES = [
    value
    for module in TWINS
    for value in vars(module).values()
    if is_typeddict(value) and value.__module__ == module.__name__ and value is not protocol.StateChange
]
# What a page asks for, and the name that the twin has for its kinds: it cannot send a request of no kind.
REQUESTS = {
    protocol.Request: "RequestType",
    protocol_runs.CompareRequest: "CompareRequestType",
    protocol_runs.TableRequest: "TableRequestType",
}
PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", bytes: "DataView", type(None): "null"}


def typescript(annotation: Any) -> str:
    """How the twin has to write a Python type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(typescript(argument) for argument in arguments)
    if origin is list:
        inner = typescript(arguments[0])
        return f"({inner})[]" if re.search(r" \| .*[^\]]$", inner) else f"{inner}[]"
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
    if kind in REQUESTS:
        expected["type"] = expected.pop("type?")
        assert expected["type"] == alias(REQUESTS[kind])
        expected["type"] = REQUESTS[kind]
    if kind is protocol_runs.OfRun:
        assert expected["message"] == alias("Message")
        expected["message"] = "Message"
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
    for module, twin in TWINS.items():
        ours = {kind.__name__ for kind in TYPES if kind.__module__ == module.__name__}
        assert set(re.findall(r"export interface (\w+)", twin)) == ours
