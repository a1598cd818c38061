"""A person clicks a step: the run returns to it, or a fork continues from it; what was left stays as a faint curve."""

from __future__ import annotations

import ast
from collections.abc import Callable

from playwright.sync_api import expect

from .lab import Notebook

Open = Callable[..., Notebook]

CREATE = """\
import mint_lab as ml
lab = ml.Workbench(steps=9, batch_size=4, eval_every=3, folder="run", name="first")
lab.run.step(6).wait()
lab"""
LOSSES = "[record.metrics['loss'] for record in lab.run.records]"
FAINT = """(chart) => [...chart.querySelectorAll(".scatterlayer .trace path.js-line")]
  .filter((line) => line.style.strokeDasharray && line.style.strokeDasharray !== "none").length"""


def await_faint_curves(notebook: Notebook, label: str, curves: int) -> None:
    """Wait until the legend has the faint curve, and the chart of the loss draws it for training and held-out data."""
    expect(notebook.widget.locator(".ml-branches button", has_text=label)).to_be_visible()
    chart = notebook.chart("loss")
    notebook.await_that(lambda: chart.evaluate(FAINT) == curves, f"{curves} faint curves in the chart of the loss")


def test_a_click_rewinds_the_run_which_repeats_its_steps(open_notebook: Open) -> None:
    notebook = open_notebook([CREATE, LOSSES, LOSSES, "[rewind.step for rewind in lab.run.rewinds]"]).show()
    notebook.await_points("grad_norm", 6)
    before = ast.literal_eval(notebook.run_cell(1))
    notebook.click_step("loss", 3)
    menu = notebook.widget.get_by_role("dialog", name="Step 3")
    expect(menu).to_contain_text("The 3 later steps stay as faint curves")
    notebook.page.keyboard.press("Enter")  # the focus is on "Rewind here"
    expect(menu).to_be_hidden()
    await_faint_curves(notebook, "before rewind to 3", 2)
    notebook.await_status("paused")
    notebook.await_that(lambda: notebook.points("grad_norm") == 3, "a chart of 3 steps")
    notebook.button("Resume").click()
    notebook.await_status("finished")
    notebook.await_points("grad_norm", 9)
    after = ast.literal_eval(notebook.run_cell(2))
    assert (after[:6], len(after)) == (before, 9)
    assert notebook.run_cell(3) == "[3]"


def test_a_fork_has_another_loss_and_its_parent_as_a_faint_curve(open_notebook: Open) -> None:
    where = "lab.run.name, lab.run.loss.name, lab.run.steps_done, [fork.name for fork in lab.forks]"
    notebook = open_notebook([CREATE, where, where]).show()
    notebook.await_points("grad_norm", 6)
    plot = notebook.chart("loss").locator(".ml-plot")
    plot.focus()
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("Enter")  # the step before the last of the axis is not complete
    expect(notebook.widget.get_by_role("dialog")).to_be_hidden()
    for _ in range(4):
        notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("Enter")
    menu = notebook.widget.get_by_role("dialog", name="Step 4")
    expect(menu).to_be_visible()
    notebook.page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(plot).to_be_focused()

    notebook.click_step("grad_norm", 3)
    notebook.button("Fork from here").click()
    notebook.widget.get_by_label("Loss of the fork").select_option("hinge")
    notebook.widget.get_by_label("Name of the fork").fill("with hinge")
    notebook.page.keyboard.press("Enter")
    shown = notebook.widget.locator(".ml-tab[aria-current=true]")
    expect(shown).to_have_text("with hinge")
    await_faint_curves(notebook, "first", 2)
    assert ast.literal_eval(notebook.run_cell(1)) == ("with hinge", "hinge", 3, ["with hinge"])
    notebook.button("Resume").click()
    notebook.await_status("finished")
    notebook.await_points("grad_norm", 9)
    await_faint_curves(notebook, "first", 2)

    notebook.widget.locator(".ml-tab", has_text="first").click()
    expect(shown).to_have_text("first")
    notebook.await_that(lambda: notebook.points("grad_norm") == 6, "the 6 steps of the parent")
    expect(notebook.widget.locator(".ml-branches")).to_be_hidden()
    assert ast.literal_eval(notebook.run_cell(2)) == ("first", "pairwise_preference", 6, ["with hinge"])
