"""The generated parts of the site: the losses of ``LOSSES`` and the metrics of ``METRICS``.

``{losses} FAMILY`` writes one section for each loss of that family, ``{loss-table}`` the overview, ``{metrics}`` the
table of metrics, ``{recipe-options} NAME`` the options of a recipe, ``{data-types}`` the re-exported types.
``{loss-modules}`` and ``{recipe-modules}`` document the modules that define a bundled loss or recipe. All of it is read
from the package when the site is built, so a loss, a metric or a recipe that is added appears here without an edit.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

UNITS = {
    "datum": "one sequence",
    "pair": "a chosen and a rejected sequence",
    "group": "the samples of one prompt",
}
REDUCTIONS = {
    "sum": "sum over the batch",
    "mean": "mean over the batch",
    "coupled": "coupled: the value depends on the whole batch at once",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("loss-table", LossTable)
    app.add_directive("losses", Losses)
    app.add_directive("loss-modules", LossModules)
    app.add_directive("metrics", Metrics)
    app.add_directive("recipe-modules", RecipeModules)
    app.add_directive("recipe-options", RecipeOptions)
    app.add_directive("data-types", DataTypes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def losses() -> list[Any]:
    """Return the registered losses in the order of the registry, grouped by family."""
    from mint_lab.losses import LOSSES

    return [LOSSES[name] for name in LOSSES]


class LossTable(SphinxDirective):
    """One line for each loss: name, summary, inputs."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()  # a new loss changes the page, though no file of the page changes
        rows = [(f"[`{spec.name}`](#loss-{_anchor(spec.name)})", spec.summary, _inputs(spec)) for spec in losses()]
        return self.parse_text_to_nodes(_table(("loss", "what it does", "reads"), rows))


class Losses(SphinxDirective):
    """One section for each loss of a family."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        text = "\n\n".join(_loss_text(spec) for spec in losses() if spec.family == self.arguments[0])
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class LossModules(SphinxDirective):
    """One section for each module that defines a bundled loss."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_reread()
        text = _modules_text(spec.fn.__module__ for spec in losses())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class RecipeModules(SphinxDirective):
    """One section for each module that defines a bundled recipe."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        from mint_lab.recipes import RECIPES

        self.env.note_reread()
        text = _modules_text(type(recipe).__module__ for recipe in RECIPES.values())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Metrics(SphinxDirective):
    """The table of metrics."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        from mint_lab.metrics.registry import METRICS

        rows = [
            (f"`{spec.name}`", _definition(spec), _unit_and_range(spec), f"${spec.formula}$" if spec.formula else "")
            for spec in METRICS.values()
        ]
        return self.parse_text_to_nodes(_table(("metric", "definition", "unit and range", "formula"), rows))


class RecipeOptions(SphinxDirective):
    """The table of a recipe's options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        from mint_lab.recipes import RECIPES

        recipe = RECIPES[self.arguments[0]]
        docs = recipe.option_docs()
        rows = [(f"`{name}`", f"`{value!r}`", docs[name]) for name, value in recipe.option_values().items()]
        return self.parse_text_to_nodes(_table(("option", "default", "meaning"), rows))


class DataTypes(SphinxDirective):
    """One entry for each type of ``mint_lab.types``, so that references to it resolve."""

    def run(self) -> list[nodes.Node]:
        """Return the entries."""
        from mint_lab import types

        entries = [
            f"```{{py:class}} mint_lab.types.{name}\n\n`{getattr(types, name).__module__}.{name}`\n```"
            for name in types.__all__
        ]
        return self.parse_text_to_nodes("\n\n".join(entries))


def _modules_text(names: Iterable[str]) -> str:
    """Return a section for each module of this package, once each, in their order."""
    modules = dict.fromkeys(name for name in names if name.startswith("mint_lab."))
    return "\n\n".join(
        f"### `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```" for name in modules
    )


def _loss_text(spec: Any) -> str:
    facts = [
        ("reads", _inputs(spec)),
        ("unit", UNITS[spec.unit]),
        ("reduction", REDUCTIONS[spec.reduction]),
        ("function", f"{{py:func}}`{spec.fn.__module__}.{spec.fn.__qualname__}`"),
    ]
    if spec.paper:
        facts.append(("paper", f"[{spec.paper.removeprefix('https://')}]({spec.paper})"))
    lines = [
        f"(loss-{_anchor(spec.name)})=",
        f"### `{spec.name}`",
        "",
        spec.summary,
        "",
        f"$$\n{spec.formula}\n$$",
        "",
        "{.facts}",
        *(f"{name}\n: {value}\n" for name, value in facts),
    ]
    if spec.params:
        rows = [(f"`{p.name}`", f"{p.default:g}", f"{p.low:g} to {p.high:g}", p.doc) for p in spec.params]
        lines += ["", _table(("setting", "default", "slider", "meaning"), rows)]
    return "\n".join(lines)


def _inputs(spec: Any) -> str:
    required = [f"`{name}`" for name in spec.inputs]
    optional = [f"`{name}` (optional)" for name in spec.optional]
    return ", ".join([*required, *optional]) or "tokens only"


def _definition(spec: Any) -> str:
    """Return the definition, and what other tools call the metric."""
    # The definition is plain text: its characters mean nothing to Markdown.
    text = re.sub(r"([\\`*_\[\]<>$|])", r"\\\1", spec.definition)
    elsewhere = f" Also called {', '.join(spec.also_called)}." if spec.also_called else ""
    return text + elsewhere


def _unit_and_range(spec: Any) -> str:
    low, high = spec.range or (None, None)
    if low is not None and high is not None:
        bounds = f"{low:g} to {high:g}"
    elif low is not None:
        bounds = f"at least {low:g}"
    else:
        bounds = "" if high is None else f"at most {high:g}"
    return ", ".join(part for part in (spec.unit, bounds) if part)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; line breaks and bars in a cell would end it."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    cells = [[inspect.cleandoc(cell).replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _anchor(name: str) -> str:
    return name.replace("_", "-")
