"""Nothing trains unseen: a cell that is run again, an output that is removed, and several runs in the status bar."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from .lab import Notebook

Open = Callable[..., Notebook]

CELL = "bench = ml.Workbench(steps=12_800, eval_every=50, batch_size=4)\nmade.append(bench.run)\nbench"
STATES = "[run.status for run in made]"


def workbenches(open_notebook: Open, *further: str) -> Notebook:
    return open_notebook(["import mint_lab as ml\nmade = []", CELL, STATES, *further]).show()


def count(notebook: Notebook) -> Locator:
    """The number of running runs in the status bar, which is shown if there are several."""
    return notebook.page.locator(".mint-lab-status-count")


def await_states(notebook: Notebook, cell: int, states: str) -> None:
    notebook.await_that(lambda: notebook.run_cell(cell) == states, f"the states {states}")


def delete_cell(notebook: Notebook, index: int) -> None:
    notebook.evaluate("(index) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", 5, index)
    notebook.command("notebook:delete-cell")


def test_a_cell_that_is_run_again_pauses_its_run_and_offers_to_continue_it(open_notebook: Open) -> None:
    notebook = workbenches(open_notebook)
    offer = notebook.widget.locator(".ml-earlier")
    expect(offer).to_be_hidden()
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 3)
    notebook.run_cell(1)
    expect(offer).to_be_visible()
    expect(offer).to_have_text(
        re.compile(
            r"^This cell started a run before, which is paused: pairwise_preference v1, [\d,]+ of 12,800 steps\."
        )
    )
    await_states(notebook, 2, "['paused', 'ready']")
    expect(count(notebook)).to_be_hidden()

    offer.get_by_role("button", name="Continue it").click()
    notebook.await_status("running")
    expect(offer).to_be_hidden()
    await_states(notebook, 2, "['running', 'ready']")
    expect(count(notebook)).to_be_hidden()
    notebook.button("Pause").click()
    notebook.await_status("paused")
    expect(notebook.widget.locator(".ml-warnings")).to_contain_text("because its cell was run again")


def test_a_deleted_cell_pauses_its_run_and_undo_brings_it_back(open_notebook: Open) -> None:
    notebook = workbenches(open_notebook)
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 3)
    delete_cell(notebook, 1)
    expect(notebook.widget).to_be_hidden()
    await_states(notebook, 1, "['paused']")
    notebook.command("notebook:undo-cell-action")
    notebook.widget.wait_for()
    notebook.await_status("paused")
    notebook.button("Resume").click()
    notebook.await_status("running")
    await_states(notebook, 2, "['running']")


def test_a_closed_notebook_trains_on(open_notebook: Open) -> None:
    notebook = workbenches(open_notebook)
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 3)
    notebook.command("docmanager:save")
    notebook.command("application:close")
    notebook.open()
    notebook.widget.wait_for()
    await_states(notebook, 2, "['running']")


def test_the_status_bar_counts_all_runs_and_stops_each(open_notebook: Open) -> None:
    notebook = workbenches(
        open_notebook,
        "both = ml.compare(['hinge', 'simpo'], steps=12_800, batch_size=4, folder='both')\n"
        "made += both.runs.values()\nboth",
    )
    widgets = notebook.page.locator(".mint-lab:visible")
    expect(widgets).to_have_count(2)
    for number, name in enumerate(("Loss workbench", "Comparison of losses")):
        expect(count(notebook)).to_be_hidden()
        notebook.page.get_by_role("region", name=name).get_by_role("button", name="Start", exact=True).click()
        await_states(notebook, 2, ["['running', 'ready', 'ready']", "['running', 'running', 'running']"][number])
    expect(count(notebook)).to_have_text("3 runs")
    menu = notebook.page.get_by_role("dialog", name="Training runs")
    expect(menu).to_be_hidden()
    count(notebook).click()
    rows = menu.locator(".mint-lab-run-menu-row")
    expect(rows).to_have_count(3)
    simpo = rows.filter(has_text="simpo v1")
    expect(simpo).to_contain_text(re.compile(r"step [\d,]+ / 12,800"))
    expect(menu).to_be_in_viewport(ratio=1)
    simpo.get_by_role("button", name="Stop").click()
    expect(rows).to_have_count(2)
    expect(count(notebook)).to_have_text("2 runs")
    notebook.page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    await_states(notebook, 2, "['running', 'running', 'stopped']")
