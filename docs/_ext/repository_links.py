"""Include CONTRIBUTING and CHANGELOG as pages, and check every link to a file of the repository.

``[the log](repo:tests/benchmarks/LOG.md)`` links to that file on GitHub. In the two included files, which GitHub also
shows, links are relative to the repository: a link to ``docs/x.md`` becomes a link to that page, any other becomes a
``repo:`` link. A link to a file that does not exist is a warning, so the strict build fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
GITHUB = "https://github.com/mint-lab/mint_lab/blob/main/"
INCLUDED = {"contributing": ROOT / "CONTRIBUTING.md", "changelog": ROOT / "CHANGELOG.md"}
LINK = re.compile(r"\]\((?!https?:|#|repo:)([^)\s]+)\)")
logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the ``repo:`` scheme, the two pages and the check."""
    app.connect("config-inited", _add_scheme, priority=100)
    app.connect("source-read", _include)
    app.connect("doctree-read", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _add_scheme(app: Sphinx, config: Any) -> None:
    web = {"http": None, "https": None, "mailto": None}
    config.myst_url_schemes = {**web, "repo": GITHUB + "{{path}}"}


def _include(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname in INCLUDED:
        app.env.note_dependency(str(INCLUDED[docname]))
        source[0] = LINK.sub(_site_link, INCLUDED[docname].read_text(encoding="utf-8"))


def _site_link(match: re.Match[str]) -> str:
    target = match.group(1)
    return f"]({target.removeprefix('docs/')})" if target.startswith("docs/") else f"](repo:{target})"


def _check(app: Sphinx, doctree: nodes.document) -> None:
    for link in doctree.findall(nodes.reference):
        uri = str(link.get("refuri", ""))
        if uri.startswith(GITHUB) and not (ROOT / uri.removeprefix(GITHUB).partition("#")[0]).exists():
            logger.warning("%s is not in the repository", uri.removeprefix(GITHUB), location=link, type="repo")
