"""The source of a registered loss as a cell: what ``%%loss mine --from simpo`` and "Edit as a cell" write.

The text is a Python file that runs without the notebook: names that the function uses from its module are imported at
the top. A built-in loss, which has another call form, gets an adapter to the custom call form.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ..errors import ConfigError
from ..losses.spec import BUILTIN_KEYWORDS, LossSpec

__all__ = ["cell_from", "imports_for", "source_from"]

FUTURE = "from __future__ import annotations"


def cell_from(spec: LossSpec, name: str = "") -> str:
    """Return a whole ``%%loss`` cell that defines the same loss as ``spec``.

    Args:
        spec: A registered loss. The text of a loss that a cell defined is returned unchanged.
        name: Name of the new loss; by default ``my_NAME``, or the same name if a cell defined the loss.

    Raises:
        ConfigError: As :func:`source_from`.
    """
    found = re.match(r"(?P<imports>.*  )?# (?P<line>%%loss .*)\n", spec.source)
    if found and not name:
        return f"{found['line']}\n{spec.source[found.end() :]}"
    name = name or f"my_{spec.name}"
    # --from, so that the new loss keeps what a function cannot say of itself: that it takes pairs, or what it clips.
    return f"%%loss {name} --from {spec.name}\n{source_from(spec, name)}"


def source_from(spec: LossSpec, name: str) -> str:
    """Return a cell's body that defines ``name`` as a copy of ``spec``.

    Raises:
        ConfigError: If the source is not available, or depends on a function around it.
    """
    fn = _function(spec)
    text = _definition(spec, fn)
    own = fn.__name__
    if spec.builtin:
        text = f"{text}\n\n\n{_adapter(spec, name, own)}"
    else:
        text = re.sub(rf"(?m)^def {re.escape(own)}\b", f"def {name}", text)
    lines = _imports(text, fn)
    # Annotations name types that only the checker imports.
    head = [FUTURE, ""] if FUTURE not in text else []
    return "\n".join([*head, *lines, *([""] * 2 if lines else []), text.strip()]) + "\n"


def imports_for(body: str, spec: LossSpec, present: Iterable[str]) -> list[str]:
    """Return import statements for the names that ``body`` uses from the module of ``spec``, except ``present``."""
    try:
        return _imports(body, _function(spec), set(present))
    except SyntaxError:
        return []  # compiling the cell reports the error with its line


def _function(spec: LossSpec) -> Callable[..., Any]:
    fn = spec.fn
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.unwrap(fn)


def _definition(spec: LossSpec, fn: Callable[..., Any]) -> str:
    refusal = f"--from {spec.name}: its source cannot be copied"
    text = textwrap.dedent(spec.source)
    try:
        tree = ast.parse(text)
    except SyntaxError:
        tree = ast.Module([], [])
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == fn.__name__]
    if not found:
        raise ConfigError(f"{refusal}; write the function with def, at the top level of a cell or module")
    if fn.__closure__:
        names = ", ".join(fn.__code__.co_freevars)
        raise ConfigError(f"{refusal}: it uses {names} of a function around it")
    lines = text.splitlines()
    for node in found:  # a decorator such as @loss would register the original again
        for decorator in node.decorator_list:
            for number in range(decorator.lineno - 1, decorator.end_lineno or decorator.lineno):
                lines[number] = ""
    if re.match(r".*# %%loss ", lines[0]):
        lines[0] = lines[0].partition("# %%loss ")[0].replace("; ", "\n")
    return "\n".join(lines).strip("\n")


def _adapter(spec: LossSpec, name: str, own: str) -> str:
    settings = "".join(f", {p.name}={p.default!r}" for p in spec.params)
    keys = [key for key in (*spec.inputs, *spec.optional) if key in BUILTIN_KEYWORDS and key != "weights"]
    fields = "".join(f'\n            {BUILTIN_KEYWORDS[k]}=datum.loss_fn_inputs["{k}"].to_torch(),' for k in keys)
    passed = "".join(f"\n            {p.name}={p.name}," for p in spec.params)
    return f'''\
def {name}(data, logprobs_list{settings}):
    """{spec.summary}"""
    total = 0.0
    for datum, logprobs in zip(data, logprobs_list, strict=True):
        weights = datum.loss_fn_inputs.get("weights")  # if absent, every token counts
        per_token = {own}(
            logprobs,
            weights=torch.ones_like(logprobs) if weights is None else weights.to_torch(),{fields}{passed}
        )
        total = total + per_token.sum()
    return total, {{}}
'''


def _imports(text: str, fn: Callable[..., Any], present: set[str] | None = None) -> list[str]:
    """Return import statements for names that ``text`` uses and the function's module defines."""
    nodes = list(ast.walk(ast.parse(text)))
    loaded = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    defined = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    defined |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    defined |= {(alias.asname or alias.name).partition(".")[0] for n in imports for alias in n.names}
    wanted = loaded - defined - set(dir(builtins)) - (present or set())
    scope: dict[str, Any] = fn.__globals__
    found = [_import(name, scope[name], fn.__module__) for name in sorted(wanted) if name in scope]
    modules = sorted(line for line in found if line.startswith("import "))
    names: dict[str, list[str]] = {}
    for line in found:
        place, _, name = line.removeprefix("from ").partition(" import ")
        if name:
            names.setdefault(place, []).append(name)
    return [*modules, *(f"from {place} import {', '.join(names[place])}" for place in sorted(names))]


def _import(name: str, value: Any, home: str) -> str:
    if isinstance(value, ModuleType):
        return f"import {name}" if value.__name__ == name else f"import {value.__name__} as {name}"
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    for place, known in ((module, own), (home, name)):
        if place and known and place != "__main__" and getattr(sys.modules.get(place), known, None) is value:
            return f"from {place} import {known}" + (f" as {name}" if known != name else "")
    return ""  # defined in the notebook, where the cell finds it
