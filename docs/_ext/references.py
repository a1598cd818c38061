"""Resolve Python references that name an object by less, or by other, than its documented path.

Docstrings name things as their module does: ``:class:`ConfigError```. Sphinx looks such a name up in the module that
the docstring documents, which is not where another module's class is documented. Here it stands for the one documented
object of that name. ``mint_lab.data.encode``, a name that a package re-exports, stands for the object itself.

A name of ours that exists and is not part of the documented API links to its source on GitHub. A name that does not
exist, or that stands for several objects, stays unresolved, and the strict build fails.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).parents[2].resolve()
GITHUB = "https://github.com/mint-lab/mint_lab/blob/main/"


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part when Sphinx has found no target for a reference."""
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element) -> Any:
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    assert isinstance(domain, PythonDomain)
    target, module, role = str(node["reftarget"]).lstrip("."), str(node.get("py:module") or ""), str(node["reftype"])
    full = _documented(domain, target, role, module)
    if full is None and "." in target:  # a member that its class documents in its own text
        owner = _documented(domain, target.rpartition(".")[0], "class", module)
        full = owner if owner and _find(f"{owner}.{target.rpartition('.')[2]}") else None
    if full is not None:
        entry = domain.objects[full]
        docname = str(node.get("refdoc") or env.docname)
        return make_refnode(app.builder, docname, entry.docname, entry.node_id, content, full)
    scopes = ("", f"{module}.", f"{module}.{node.get('py:class')}.")
    found = next(filter(None, (_find(scope + target) for scope in scopes)), None)
    source = None if found is None else _source(*found)
    return None if source is None else nodes.reference("", "", content, internal=False, refuri=GITHUB + source)


def _documented(domain: PythonDomain, target: str, role: str, module: str) -> str | None:
    """Return the path under which the object is documented; None if it is not, or if several have that name."""
    found = _find(target)
    if found is not None and _path(*found) in domain.objects:
        return _path(*found)
    types = domain.objtypes_for_role(role) or []
    names = [
        name
        for name, entry in domain.objects.items()
        if name.endswith("." + target) and entry.objtype in types and not entry.aliased
    ]
    near = [name for name in names if name.startswith(module + ".")]
    names = near if module and len(names) > 1 and near else names
    return names[0] if len(names) == 1 else None


def _find(target: str) -> tuple[ModuleType, list[str], Any] | None:
    """Import what ``target`` names: its module, the names below the module, and the object; None if it is not ours."""
    if target != "mint_lab" and not target.startswith("mint_lab."):
        return None
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            fields = getattr(value, "__annotations__", {}) | getattr(value, "__dataclass_fields__", {})
            value = getattr(value, name, fields.get(name))
            if value is None:
                return None
        return module, parts[length:], value
    return None


def _path(module: ModuleType, names: list[str], value: Any) -> str:
    """Return where the object is defined, which is not where a package re-exports it."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{home}.{name}" if home and name else ".".join([module.__name__, *names])


def _source(module: ModuleType, names: list[str], value: Any) -> str | None:
    home = getattr(value, "__module__", None) or module.__name__
    try:
        file = inspect.getsourcefile(importlib.import_module(home))
        line = f"#L{inspect.getsourcelines(value)[1]}" if names else ""
    except (TypeError, OSError):
        file, line = module.__file__, ""
    if not file or not Path(file).resolve().is_relative_to(ROOT):
        return None
    return Path(file).resolve().relative_to(ROOT).as_posix() + line
