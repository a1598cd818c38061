"""``python -m tests.browser.pictures``: makes the README's picture of the workbench from a real run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from .lab import REPOSITORY, Lab, chromium, serve

__all__ = ["main"]

PICTURES = REPOSITORY / "notebooks" / "pictures"
CELL = "import mint_lab as ml\n\nlab = ml.Workbench(seed=0)\nlab"


def main() -> None:
    """Start a run as a person would, change the loss in the middle, and photograph the page towards the end."""
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder)) as server,
        sync_playwright() as playwright,
        chromium(playwright, width=1360, height=900) as context,
    ):
        lab = Lab(server, context, Path(folder))
        notebook = lab.notebook("first_run.ipynb", [CELL]).show()
        notebook.command("application:toggle-left-area")
        notebook.button("Start").click()
        notebook.await_points("grad_norm", 120, timeout=90)
        notebook.widget.get_by_label("Loss", exact=True).select_option("hinge")
        notebook.await_points("grad_norm", 190, timeout=90)
        notebook.page.screenshot(path=PICTURES / "workbench.png")
        lab.stop_kernels()


if __name__ == "__main__":
    main()
