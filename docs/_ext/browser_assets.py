"""Serve KaTeX and plotly from the site itself, so that the built pages request nothing from elsewhere.

Both come from the front end's ``node_modules``, at the versions that the workbench uses: a formula looks the same on
both. Formulas are set in the browser; `test_docs.py` sets each of them with Node and fails if KaTeX refuses one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ConfigError

MODULES = Path(__file__).parents[2] / "widgets" / "node_modules"
KATEX = MODULES / "katex" / "dist"
PLOTLY = MODULES / "plotly.js" / "dist" / "plotly-cartesian.min.js"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the math renderer and copy the assets when a build starts."""
    app.add_html_math_renderer("katex", (_visit_inline, None), (_visit_block, None))
    app.config["html_math_renderer"] = "katex"
    app.connect("builder-inited", _add_files)
    app.connect("build-finished", _copy_assets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _add_files(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    for path in (KATEX, PLOTLY):
        if not path.exists():
            raise ConfigError(
                f"{path} is missing, expected the front end's packages; run `make lab` or `make test` once"
            )
    app.add_css_file("katex/katex.min.css")
    app.add_js_file("katex/katex.min.js", loading_method="defer")
    app.add_js_file("formulas.js", loading_method="defer")


def _copy_assets(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "katex" / "fonts").mkdir(parents=True, exist_ok=True)
    for name in ("katex.min.css", "katex.min.js"):
        shutil.copyfile(KATEX / name, static / "katex" / name)
    for font in (KATEX / "fonts").glob("*.woff2"):  # every browser of this decade reads woff2
        shutil.copyfile(font, static / "katex" / "fonts" / font.name)
    shutil.copyfile(PLOTLY, static / PLOTLY.name)


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(translator.starttag(node, "span", "", CLASS="formula"))
    translator.body.append(translator.encode(node.astext()) + "</span>")
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", "", CLASS="formula display"))
    translator.body.append(translator.encode(node.astext()) + "</div>")
    raise nodes.SkipNode
