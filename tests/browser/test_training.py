"""The whole path with the bundled model: a person presses Start, and it learns."""

from __future__ import annotations

import ast
from collections.abc import Callable

from playwright.sync_api import expect

from .lab import Notebook

Open = Callable[..., Notebook]


def accuracy(notebook: Notebook, series: str) -> float:
    """The latest number in the legend of the pair_accuracy chart."""
    key = notebook.chart("pair_accuracy").locator(".ml-key", has_text=series)
    return float(key.locator(".ml-value").inner_text())


def test_a_model_learns_while_one_watches(open_notebook: Open) -> None:
    notebook = open_notebook(
        [
            "import mint_lab as ml\nlab = ml.Workbench(steps=12_800, eval_every=5, folder='run')\nlab",
            "6 * 7, lab.run.status",
            "lab.run.steps_done, lab.run.loss.name, len(lab.run.edits)",
        ]
    ).show()
    notebook.button("Start").click()
    notebook.await_points("mean_margin", 6)
    notebook.await_points("pair_accuracy", 6)
    first = accuracy(notebook, "held-out")
    assert notebook.run_cell(1) == "(42, 'running')"

    entry = notebook.widget.locator("[data-entry='beta']")
    entry.fill("0.5")
    entry.press("Enter")
    notebook.widget.get_by_label("Loss", exact=True).select_option("hinge")
    marks = notebook.widget.locator(".ml-marks li")
    expect(marks.last).to_contain_text("hinge v1")

    notebook.reload()
    notebook.await_points("grad_norm", 25)
    expect(marks.last).to_contain_text("hinge v1")
    notebook.await_that(lambda: accuracy(notebook, "held-out") > first, f"a held-out accuracy above {first}")
    notebook.button("Stop").click()
    notebook.await_status("stopped")
    steps, loss, _ = ast.literal_eval(notebook.run_cell(2))
    assert loss == "hinge"
    assert notebook.await_points("grad_norm", steps) == steps
