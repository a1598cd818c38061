"""Two corrections of what napoleon makes of a docstring.

``low, high: what the slider spans`` documents two attributes. Napoleon splits such an entry in ``Args:``, but not in
``Attributes:``, where it would read ``low,`` as the type of ``high``. Here each name gets an entry.

The text of a property or a constant may have a colon in its first line. Napoleon would read what stands before the
colon as a type. Here a docstring without sections is left as it is.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+):( .*|$)")
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Note|Example):$")

_plain: dict[str, list[str]] = {}


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part before napoleon, whose priority is 500, and after it; call attributes by the section's own name."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", _before, priority=400)
    app.connect("autodoc-process-docstring", _after, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _before(*event: Any) -> None:
    what, name, lines = event[1], event[2], event[-1]
    if what in ("attribute", "data", "property") and not any(map(SECTION.match, lines)):
        _plain[name] = list(lines)
    lines[:] = split_shared_entries(lines)


def _after(*event: Any) -> None:
    name, lines = event[2], event[-1]
    lines[:] = _plain.pop(name, lines)


def split_shared_entries(lines: list[str]) -> list[str]:
    """Return the docstring's lines with each shared attribute entry repeated for each of its names."""
    result: list[str] = []
    inside = False
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line and not line.startswith(" "):
            inside = line.strip() == "Attributes:"
        match = ENTRY.match(line) if inside else None
        if match is None:
            result.append(line)
            continue
        indent, names, text = match.groups()
        rest: list[str] = []
        while index < len(lines) and lines[index].startswith(indent + " "):
            rest.append(lines[index])
            index += 1
        for name in names.split(", "):
            result += [f"{indent}{name}:{text}", *rest]
    return result
