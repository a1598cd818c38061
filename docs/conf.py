"""Configuration of the documentation: ``make docs`` builds ``docs/_build/html`` and treats warnings as errors."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

project = "mint_lab"
author = "mint_lab contributors"
project_copyright = "mint_lab contributors, MIT license"
release = version = installed_version("mint_lab")
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    # In docs/_ext:
    "browser_assets",
    "docstrings",
    "lessons",
    "references",
    "registry_pages",
    "repository_links",
]
exclude_patterns = ["_build", "README.md"]
templates_path: list[str] = []

# -- Text --------------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
# The lessons are rendered from the outputs stored in them; `make test` compares these with a fresh run.
nb_execution_mode = "off"
nb_merge_streams = True
# A static page has no kernel: show the picture or the table that each widget stores beside itself.
nb_mime_priority_overrides = [
    ("html", "text/html", 0),
    ("html", "image/png", 1),
    ("html", "text/plain", 2),
]

# -- Python ------------------------------------------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
# Every reference to a name of ours must resolve; `references` also finds short ones. What is left to ignore is named
# here: types of other packages, which are not linked because a strict build must work without a network.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(IPython|collections|concurrent|datasets|numpy|pandas|peft|plotly|tinker|torch|transformers|typing|pd)\..*",
    ),
    (r"py:.*", r"(bool|bytes|dict|float|frozenset|int|list|object|set|str|tuple|type|Any|None)"),
    (
        r"py:(class|exc)",
        r"(ArithmeticError|Exception|OSError|RuntimeError|TimeoutError|UserWarning|ValueError|KeyError)",
    ),
]

# -- HTML --------------------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "mint_lab"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "github_url": "https://github.com/mint-lab/mint_lab",
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "logo": {"text": "mint_lab"},
    "secondary_sidebar_items": {"index": [], "metrics": [], "**": ["page-toc"]},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version", "theme-version"],
}
# These pages have no pages below them, so there is nothing to put into a sidebar.
html_sidebars = {
    page: []
    for page in (
        "index", "get_started", "losses", "metrics", "page", "performance", "architecture", "contributing", "changelog"
    )
}  # fmt: skip
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
