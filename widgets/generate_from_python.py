"""Writes the TypeScript files that follow from Python: the message types and the palette.

Run it from the repository after a change to ``mint_lab/ui/messages.py``, ``mint_lab/ui/data_messages.py``,
``mint_lab/ui/run_messages.py`` or ``mint_lab/charts/palette.py``::

    python widgets/generate_from_python.py

The files are committed, so that a build of the page needs no Python package. ``tests/ui/test_messages.py`` fails while
one of them is out of date. The output is formatted as biome formats it.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "widgets" / "src"
LINE_LENGTH = 120

_SCALARS = {str: "string", int: "number", float: "number", bool: "boolean", bytes: "DataView", type(None): "null"}
_FIELD = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)
# ``code`` becomes `code`, a role such as :class:`Chart` becomes `Chart`, and None becomes null.
_MARKUP = (
    (re.compile(r"``([^`]*)``"), r"`\1`"),
    (re.compile(r":\w+:`[~.]*([^`]*)`"), r"`\1`"),
    (re.compile(r"\bNone\b"), "null"),
)


def type_name(annotation: Any, aliases: Mapping[Any, str]) -> str:
    """Translate a Python annotation into a TypeScript type.

    Args:
        annotation: A scalar, ``Literal``, ``TypedDict``, or a union, list or dict of those.
        aliases: Names for annotations that have one.

    Raises:
        TypeError: If the annotation has no counterpart in a message.
    """
    arguments = get_args(annotation)
    if annotation in aliases:
        return aliases[annotation]
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if is_typeddict(annotation):
        return str(annotation.__name__)
    match get_origin(annotation):
        case origin if origin is Literal:
            written = " | ".join(f'"{value}"' for value in arguments)
        case origin if origin in (Union, types.UnionType):
            written = " | ".join(type_name(argument, aliases) for argument in arguments)
        case origin if origin is list:
            inner = type_name(arguments[0], aliases)
            written = f"({inner})[]" if _is_union(arguments[0]) and arguments[0] not in aliases else f"{inner}[]"
        case origin if origin is dict:
            written = f"Record<{type_name(arguments[0], aliases)}, {type_name(arguments[1], aliases)}>"
        case _:
            raise TypeError(
                f"{annotation!r} has no TypeScript counterpart; use scalars, Literal, list, dict, TypedDict"
            )
    return written


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Literal, Union, types.UnionType)


def module_types(
    module: types.ModuleType, header: str, imports: str = "", known: Mapping[Any, str] | None = None
) -> str:
    """Write the message types of one module: an interface for each TypedDict, a type for each alias of a union.

    Args:
        module: The module; its members are written in the order of their definition.
        header: Comment at the top.
        imports: Import lines for the types of other modules.
        known: Aliases that other modules define.
    """
    known = known or {}
    own = {value: name for name, value in vars(module).items() if _is_union(value) and value not in known}
    aliases = {**known, **own}
    parts = [header + imports]
    if hasattr(module, "PROTOCOL"):
        parts.append(f"export const PROTOCOL = {module.PROTOCOL};\n")
    total: dict[frozenset[str], str] = {}
    for name, value in vars(module).items():
        if is_typeddict(value) and value.__module__ == module.__name__:
            fields = frozenset(value.__annotations__)
            if not value.__total__ and fields in total:
                parts.append(f"{_comment(_documentation(value)[0])}export type {name} = Partial<{total[fields]}>;\n")
                continue
            total[fields] = name
            parts.append(_interface(value, aliases))
        elif _is_union(value) and own.get(value) == name:
            parts.append(_alias(name, type_name(value, {**known})))
    return "\n".join(parts)


def _interface(kind: Any, aliases: Mapping[Any, str]) -> str:
    summary, fields = _documentation(kind)
    lines: list[str] = []
    for name, annotation in get_type_hints(kind).items():
        # A page always says what it requests; the other fields depend on the type of the request.
        optional = "" if kind.__total__ or name == "type" else "?"
        lines.append(_comment(fields.get(name, ""), "  ") + f"  {name}{optional}: {type_name(annotation, aliases)};\n")
    return _comment(summary) + f"export interface {kind.__name__} {{\n{''.join(lines)}}}\n"


def _alias(name: str, written: str) -> str:
    line = f"export type {name} = {written};\n"
    if len(line) <= LINE_LENGTH + 1:
        return line
    return f"export type {name} =\n" + "\n".join(f"  | {part}" for part in written.split(" | ")) + ";\n"


def _documentation(kind: Any) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text and the descriptions of the fields."""
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    fields = {name: " ".join(words.split()) for name, words in _FIELD.findall(attributes)}
    return text, fields


def _comment(text: str, indent: str = "") -> str:
    """Write a JSDoc comment; nothing without a text."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    if not text:
        return ""
    line = f"{indent}/** {text} */\n"
    if "\n" not in text and len(line) <= LINE_LENGTH + 1:
        return line
    width = LINE_LENGTH - len(indent) - len(" * ")
    rows = [row for paragraph in text.split("\n\n") for row in [*_wrapped(paragraph, width), ""]][:-1]
    return f"{indent}/**\n" + "".join(f"{indent} * {row}".rstrip() + "\n" for row in rows) + f"{indent} */\n"


def _wrapped(paragraph: str, width: int) -> list[str]:
    rows: list[str] = [""]
    for word in paragraph.split():
        if rows[-1] and len(rows[-1]) + 1 + len(word) > width:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    return rows


def _header(subject: str, source: str) -> str:
    return (
        f"/**\n * {subject}. Generated from `{source}`; after a change there, run\n"
        " * `python widgets/generate_from_python.py`.\n */\n"
    )


def messages_source() -> str:
    """``widgets/src/messages.ts``."""
    from mint_lab.ui import messages

    return module_types(messages, _header("Messages between kernel and page", "mint_lab/ui/messages.py"))


def data_messages_source() -> str:
    """``widgets/src/data_messages.ts``."""
    from mint_lab.ui import data_messages, messages

    header = _header("The message about the data of a run", "mint_lab/ui/data_messages.py")
    imports = '\nimport type { Tokens } from "./messages";\n'
    return module_types(data_messages, header, imports, {messages.Message: "Message"})


def run_messages_source() -> str:
    """``widgets/src/run_messages.ts``."""
    from mint_lab.ui import messages, run_messages

    header = _header("Messages about several runs", "mint_lab/ui/run_messages.py")
    imports = '\nimport type { Message, Snapshot } from "./messages";\n'
    return module_types(run_messages, header, imports, {messages.Message: "Message"})


def palette_source() -> str:
    """``widgets/src/lib/palette.ts``: every constant of the palette that the page uses."""
    from mint_lab.charts import palette

    names = ("ROLES", "RUNS", "DASHES", "BRANCH_DASHES", "TOKENS", "BASE")
    constants = [f"export const {name} = {literal(getattr(palette, name))} as const;\n" for name in names]
    return "\n".join([_header("Colours of the page", "mint_lab/charts/palette.py"), *constants])


def literal(value: Any, indent: str = "") -> str:
    """Write dicts, sequences, strings and numbers as TypeScript, in one line if they are short enough.

    A dict of containers and a sequence of sequences have one entry per line, as biome writes them.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return str(value)
    inner = indent + "  "
    if isinstance(value, Mapping):
        entries = [f"{key}: {literal(entry, inner)}" for key, entry in value.items()]
        opening, closing, space, contents = "{", "}", " ", list(value.values())
    else:
        entries = [literal(entry, inner) for entry in value]
        opening, closing, space, contents = "[", "]", "", list(value)
    is_nested = any(not isinstance(entry, str | int | float) for entry in contents)
    line = f"{opening}{space}{', '.join(entries)}{space}{closing}"
    if not is_nested and len(indent) + len(line) < LINE_LENGTH - len("key: ,"):
        return line
    return f"{opening}\n" + "".join(f"{inner}{entry},\n" for entry in entries) + f"{indent}{closing}"


GENERATED: dict[Path, Callable[[], str]] = {
    SOURCES / "messages.ts": messages_source,
    SOURCES / "data_messages.ts": data_messages_source,
    SOURCES / "run_messages.ts": run_messages_source,
    SOURCES / "lib" / "palette.ts": palette_source,
}


def main() -> None:
    """Write every generated file that is out of date."""
    sys.path.insert(0, str(ROOT))
    for path, source in GENERATED.items():
        written = source()
        if not path.is_file() or path.read_text(encoding="utf-8") != written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
