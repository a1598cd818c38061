"""Copy ``notebooks/*.ipynb`` to ``docs/lessons/`` when a build starts, with outputs that a static page can show.

A stored output of a widget holds its live view and, beside it, a picture or a table for readers without a kernel. The
copy keeps the picture or the table. Outputs with a live view only are dropped. A plotly figure becomes a ``div`` that
the page draws with the plotly bundle of the front end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
BINDER = "https://mybinder.org/v2/gh/mint-lab/mint_lab/main?urlpath=lab/tree/notebooks"
FIGURE = """<div class="plotly-figure" style="height: {height}px"></div>
<script type="application/json">{figure}</script>
<script>
window.addEventListener("load", () => {{
  const script = document.createElement("script");
  script.src = "../_static/plotly-cartesian.min.js";
  script.onload = () => {{
    for (const element of document.querySelectorAll(".plotly-figure")) {{
      const {{ data, layout }} = JSON.parse(element.nextElementSibling.textContent);
      Plotly.newPlot(element, data, layout, {{ responsive: true, displaylogo: false }});
    }}
  }};
  document.head.append(script);
}});
</script>"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Copy the lessons before Sphinx looks for source files."""
    app.connect("config-inited", lambda app, _: copy_lessons(NOTEBOOKS, Path(app.srcdir) / "lessons"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def copy_lessons(source: Path, target: Path) -> None:
    """Write each notebook of `source` to `target`; files that would not change keep their time stamp."""
    notebooks = sorted(source.glob("*.ipynb"))
    for stale in {path.name for path in target.glob("*.ipynb")} - {path.name for path in notebooks}:
        (target / stale).unlink()
    for path in notebooks:
        text = json.dumps(static_notebook(json.loads(path.read_text(encoding="utf-8")), path.name), indent=1)
        copy = target / path.name
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def static_notebook(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """Return `notebook` with a line on how to run it, and with outputs that need no kernel."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in map(_static_output, cell["outputs"]) if output is not None]
    title = notebook["cells"][0]
    heading, _, rest = "".join(title["source"]).partition("\n")
    run_it = (
        f":::{{tip}}\nThis page shows stored outputs. To run the lesson: `make lab NOTEBOOK=notebooks/{name}`, or "
        f"[open it on Binder]({BINDER}/{name}).\n:::\n"
    )
    title["source"] = f"{heading}\n\n{run_it}{rest}"
    return notebook


def _static_output(output: dict[str, Any]) -> dict[str, Any] | None:
    data = output.get("data")
    if data is None:
        return output
    if PLOTLY in data:
        figure = data[PLOTLY]
        shown = {"data": figure["data"], "layout": {**figure["layout"], "autosize": True}}
        shown["layout"].pop("width", None)
        text = json.dumps(shown).replace("</", "<\\/")
        div = FIGURE.format(height=int(figure["layout"].get("height", 450)), figure=text)
        return {**output, "data": {"text/html": div}}
    if WIDGET in data:
        data = {kind: value for kind, value in data.items() if kind in ("text/html", "image/png")}
        return {**output, "data": data} if data else None
    return output
