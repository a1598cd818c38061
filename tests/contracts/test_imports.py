"""Importing the package is quick, because it imports nothing heavy; and no module imports itself in a circle."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import mint_lab

HEAVY = {"torch", "transformers", "peft", "tinker", "pandas", "plotly", "IPython", "ipywidgets", "datasets", "pyarrow"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_the_standard_library_only() -> None:
    """So it is fast, whatever else is installed."""
    code = (
        "import sys; before = set(sys.modules); import mint_lab\n"
        "loaded = {name for name in sys.modules.keys() - before if name.split('.')[0] not in sys.stdlib_module_names}\n"
        "print(*sorted(loaded))"
    )
    assert python(code) == "mint_lab mint_lab.lazy"


def test_import_brings_nothing_heavy() -> None:
    code = f"import sys, mint_lab; dir(mint_lab); print(sorted({HEAVY!r} & set(sys.modules)))"
    assert python(code) == "[]"


def test_data_brings_nothing_heavy() -> None:
    assert python(f"import sys, mint_lab.data; print(sorted({HEAVY!r} & set(sys.modules)))") == "[]"


# -- import circles ----------------------------------------------------------------------------------------------------

PACKAGE = Path(mint_lab.__file__).parent


def module_name(path: Path) -> str:
    parts = ("mint_lab", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(module: str, *, type_checking: bool) -> set[str]:
    """Modules of the package that ``module`` imports, also inside its functions."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not type_checking:
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else base for name in names}
        else:
            waiting += ast.iter_child_nodes(node)
    return {name for name in found if name in MODULES and name != module}


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that are left when those that import nothing any more are removed again and again."""
    left = {module: set(imports) for module, imports in graph.items()}
    while free := [module for module, imports in left.items() if not imports & left.keys()]:
        for module in free:
            del left[module]
    # Modules that only import a circle are left too; those that nothing left imports are in none.
    while unused := [module for module in left if not any(module in imports for imports in left.values())]:
        for module in unused:
            del left[module]
    return [f"{module} -> {', '.join(sorted(imports & left.keys()))}" for module, imports in sorted(left.items())]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == ["b -> c", "c -> b"]


def test_imports_are_found() -> None:
    """A relative import, one of a submodule, one inside a function, and one for type checkers."""
    assert {"mint_lab.recipes.plan", "mint_lab.data.rewards"} <= imports_of("mint_lab.runs.loop", type_checking=False)
    assert "mint_lab.runs.store" in imports_of("mint_lab.runs.loop", type_checking=True)
    assert "mint_lab.runs.store" not in imports_of("mint_lab.runs.loop", type_checking=False)
    assert "mint_lab.data.render" in imports_of("mint_lab.runs.sample_batch", type_checking=False)


@pytest.mark.parametrize("type_checking", [False, True])
def test_no_module_imports_itself_in_a_circle(type_checking: bool) -> None:
    graph = {module: imports_of(module, type_checking=type_checking) for module in MODULES}
    assert len(graph) > 100
    assert circles(graph) == []
