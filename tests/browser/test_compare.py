"""A comparison of losses on the bundled model, and the table of its runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from .lab import Lab, Notebook
from .test_page import check_room, contrast

Open = Callable[..., Notebook]

COMPARE = """
import mint_lab as ml
both = ml.compare(["dpo", "simpo"], steps=STEPS, batch_size=16, folder="runs")
both
"""
TABLE = """
import mint_lab as ml
table = ml.RunTable("runs")
table
"""
CHARTS = ["pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "grad_norm", "loss"]

# Three made-up runs, as a folder holds them, and what is none; every name that can be is hostile.
WRITE = """
import pathlib
from mint_lab.recipes.record import Edit
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.store import RunStore
from tests.ui.scripted import record
TEXT = "<img src=x onerror=window.hacked=1>\u202egnp.exe \U0001f642"
for name in ("first", "second", "<b>third<img src=x onerror=window.hacked=1>"):
    store = RunStore(pathlib.Path("runs") / name)
    store.write_info(RunInfo(name=TEXT, recipe="preference", steps=60, status="finished",
                             baseline={"pair_accuracy": 0.5}, seed=0))
    for step in range(1, 61):
        store.append(record(step, 60, **{TEXT: 1.0}), edits=[Edit(30, "setting", TEXT)] if step == 30 else [])
    store.close()
(pathlib.Path("runs") / "foreign").mkdir()
"""


def samples(notebook: Notebook) -> Locator:
    return notebook.widget.locator(".ml-run")


def steps(notebook: Notebook) -> list[int]:
    """Steps of each run, as the page knows them."""
    return samples(notebook).evaluate_all("(runs) => runs.map((run) => Number(run.dataset.steps))")


def lines(notebook: Notebook, chart: str) -> list[tuple[str, str]]:
    """Colour and dashes of every line that is drawn, held-out ones only where there are such."""
    return notebook.chart(chart).evaluate(
        """(chart) => [...chart.querySelectorAll(".scatterlayer .js-line")].filter((line) =>
             Number(line.style.strokeWidth.replace("px", "")) >= 2 && line.getAttribute("d"))
             .map((line) => [line.style.stroke, line.style.strokeDasharray])"""
    )


def cosine(notebook: Notebook, pair: str) -> Locator:
    return notebook.widget.locator(f".ml-cosines td[data-pair='{pair}']")


def cell(notebook: Notebook, source: str) -> str:
    """Run ``source`` in the notebook's last cell."""
    count = notebook.page.locator(".jp-Notebook .jp-Cell").count()
    return notebook.replace_cell(count - 1, source)


def check_the_square(notebook: Notebook) -> None:
    """The same batch at the same weights: 1 on the diagonal, and the same above it and below."""
    expect(cosine(notebook, "0 0")).to_have_text("1.000", timeout=120_000)
    expect(cosine(notebook, "1 1")).to_have_text("1.000")
    assert cosine(notebook, "0 1").inner_text() == cosine(notebook, "1 0").inner_text()
    assert 0 < float(cosine(notebook, "0 1").inner_text()) < 1
    where = notebook.widget.locator(".ml-cosines-where")
    expect(where).to_contain_text("32 sequences of one batch, at the weights before training")


def test_two_losses_learn_together(open_notebook: Open) -> None:
    notebook = open_notebook([COMPARE.replace("STEPS", "12_800"), "0"]).show()
    expect(samples(notebook)).to_have_count(2)
    assert [run.get_attribute("data-run") for run in samples(notebook).all()] == ["dpo", "simpo"]
    expect(notebook.widget.locator(".ml-line")).to_contain_text("only the loss differs")
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 2 * 12)
    # Both grow, and neither runs ahead; that the kernel knows, which tells the page of one run after the other.
    notebook.await_that(lambda: min(steps(notebook)) > 3, "steps of both runs")
    one, other = json.loads(cell(notebook, "[run.steps_done for run in both.runs.values()]"))
    assert abs(one - other) <= 4
    for name in CHARTS:
        expect(notebook.chart(name)).to_have_attribute("data-runs", "2")
    notebook.await_that(lambda: len(lines(notebook, "pair_accuracy")) == 2, "two lines")
    drawn = lines(notebook, "pair_accuracy")
    assert len({colour for colour, _ in drawn}) == len({dash for _, dash in drawn}) == 2

    check_the_square(notebook)
    # A page that is reloaded during the run shows the same as before, and continues.
    notebook.reload()
    notebook.await_points("grad_norm", 2 * 14)
    seen = min(steps(notebook))
    notebook.await_points("grad_norm", 2 * (seen + 6))
    expect(cosine(notebook, "0 0")).to_have_text("1.000")
    where = notebook.widget.locator(".ml-cosines-where")
    notebook.widget.get_by_label("At the weights of").select_option(label="simpo, now")
    expect(where).to_contain_text(re.compile(r"at the weights of simpo after [\d,]+ steps"), timeout=120_000)

    notebook.button("Pause").click()
    notebook.await_status("paused")
    held = json.loads(cell(notebook, "[run.steps_done for run in both.runs.values()]"))
    notebook.await_that(lambda: steps(notebook) == held, f"the last steps: {held}")
    at = re.search(r"after ([\d,]+) steps", where.inner_text())
    assert at
    assert int(at[1].replace(",", "")) <= held[1]
    # The table of results is the kernel's own.
    rows = notebook.widget.locator(".ml-results tbody tr")
    expect(rows).to_have_count(2)
    final = cell(notebook, "[f'{v:.3f}' for v in both.table()['final/pair_accuracy']]")
    shown = rows.locator("td[data-metric='pair_accuracy'] b")
    notebook.await_that(lambda: str(shown.all_inner_texts()) == final, f"the last results: {final}")
    notebook.button("Resume").click()
    notebook.await_points("grad_norm", 2 * held[0] + 4)
    notebook.button("Stop").click()
    notebook.await_status("stopped")
    expect(notebook.button("Stop")).to_be_disabled()


def test_a_press_hides_a_run_and_shows_it_again(open_notebook: Open) -> None:
    notebook = open_notebook([COMPARE.replace("STEPS", "3")]).show()
    notebook.button("Start").click()
    # Displaying it again would take the keyboard focus away.
    notebook.await_end()
    notebook.await_points("grad_norm", 6)
    notebook.await_still()
    simpo = samples(notebook).nth(1)
    simpo.focus()
    notebook.page.keyboard.press("Enter")
    expect(simpo).to_have_attribute("aria-pressed", "false")
    expect(notebook.chart("grad_norm")).to_have_attribute("data-points", "3")
    expect(notebook.chart("grad_norm").locator(".ml-legend")).not_to_contain_text("simpo")
    simpo.click()
    expect(simpo).to_have_attribute("aria-pressed", "true")
    expect(notebook.chart("grad_norm")).to_have_attribute("data-points", "6")
    notebook.command("application:toggle-left-area")
    texts = [".ml-run-label", ".ml-runs-steps", ".ml-results th", ".ml-results td", ".ml-cosines td", ".ml-norm"]
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        for selector in [*texts, ".ml-cosines-where", ".ml-line", ".ml-overlay-key"]:
            assert contrast(notebook, selector) >= 4.5, (theme, selector)
    for width in (700, 900, 2000):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        check_room(notebook, "pair_accuracy")
    # Taken out of the page, nothing of it is left.
    notebook.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
    notebook.command("notebook:clear-cell-output")
    expect(notebook.page.locator(".mint-lab")).to_have_count(0)
    expect(notebook.page.locator(".js-plotly-plot")).to_have_count(0)


@pytest.fixture
def table(open_notebook: Open) -> Notebook:
    """The table of three made-up runs and a folder that holds none."""
    notebook = open_notebook([WRITE, TABLE, "0"]).show()
    notebook.command("application:toggle-left-area")
    return notebook


def row(notebook: Notebook, name: str) -> Locator:
    return notebook.widget.locator(f"tr[data-run='{name}']")


def test_tick_two_open_note_and_delete(table: Notebook, lab: Lab) -> None:
    folder = (lab.root / table.name).parent / "runs"
    expect(table.widget.locator(".ml-table tbody tr")).to_have_count(4)
    expect(row(table, "foreign")).to_contain_text("holds no run")
    expect(row(table, "first")).to_contain_text("60 / 60")
    expect(row(table, "first").locator(".ml-spark polyline")).to_have_count(1)

    for name in ("first", "second"):
        row(table, name).get_by_role("checkbox").check()
        expect(samples(table).filter(has_text=name)).to_have_count(1)
    table.await_points("grad_norm", 2 * 60)
    table.await_that(lambda: len({tuple(line) for line in lines(table, "pair_accuracy")}) == 2, "two lines")
    row(table, "first").get_by_role("checkbox").uncheck()
    expect(samples(table)).to_have_count(1)

    row(table, "second").get_by_role("button", name="Open second").click()
    opened = table.widget.get_by_role("region", name="Open run")
    expect(opened.locator("[data-name='margin']")).to_be_visible()
    expect(opened.locator("[data-name='grad_norm']")).to_have_attribute("data-points", "60")

    row(table, "first").get_by_role("button", name="Note of first").click()
    box = table.widget.get_by_role("textbox", name="Note of first")
    expect(box).to_be_focused()
    box.fill("<img src=x onerror=window.hacked=1> مرحبا")
    table.widget.get_by_role("button", name="Save note").click()
    expect(row(table, "first").locator(".ml-table-note")).to_have_text("<img src=x onerror=window.hacked=1> مرحبا")
    assert (folder / "first" / "note.txt").read_text(encoding="utf-8") == "<img src=x onerror=window.hacked=1> مرحبا"

    # Deleting asks once; whoever keeps the run has lost nothing.
    row(table, "second").get_by_role("button", name="Delete second").click()
    table.widget.get_by_role("button", name="Keep it").click()
    expect(row(table, "second")).to_be_visible()
    assert (folder / "second" / "run.json").exists()
    row(table, "second").get_by_role("button", name="Delete second").click()
    table.widget.get_by_role("button", name="Delete for good").click()
    expect(row(table, "second")).to_have_count(0)
    expect(opened).to_be_hidden()
    expect(samples(table)).to_have_count(0)
    assert not (folder / "second").exists()
    assert (folder / "first" / "run.json").exists()

    # What is ticked outlives the page; what came meanwhile is there after a refresh.
    row(table, "first").get_by_role("checkbox").check()
    expect(samples(table)).to_have_count(1)
    table.reload()
    expect(row(table, "first").get_by_role("checkbox")).to_be_checked()
    table.await_points("grad_norm", 60)
    (folder / "later").mkdir()
    table.button("Refresh").click()
    expect(row(table, "later")).to_be_visible()


def test_hostile_runs_are_text_at_every_width(table: Notebook) -> None:
    third = table.widget.locator("tr").filter(has_text="<b>third<img src=x onerror=window.hacked=1>")
    third.get_by_role("checkbox").check()
    table.await_points("grad_norm", 60)
    third.get_by_role("button", name="Open").click()
    expect(table.widget.get_by_role("region", name="Open run").locator(".ml-marks")).to_contain_text("<img src=x")
    table.widget.get_by_text("More metrics").first.click()
    shown = "<img src=x onerror=window.hacked=1>⟨U+202E⟩gnp.exe"
    expect(third.locator(".ml-table-cell").nth(1)).to_contain_text(shown)
    table.chart("grad_norm").first.locator(".ml-plot").hover()
    table.await_frames()
    assert table.page.evaluate("() => window.hacked") is None
    assert table.widget.locator("img, script").count() == 0
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        table.theme(theme)
        for selector in (
            ".ml-table th",
            ".ml-table-name",
            ".ml-small",
            ".ml-table-problem",
            ".ml-table-note",
            ".ml-table b",
        ):
            assert contrast(table, selector) >= 4.5, (theme, selector)
    for width in (700, 900, 2000):
        table.page.set_viewport_size({"width": width, "height": 1100})
        check_room(table)
        name: Any = third.locator(".ml-table-name").bounding_box()
        assert name["width"] > 90, width
        room = table.widget.locator(".ml-table-room")
        assert room.evaluate("(element) => element.scrollWidth - element.clientWidth") <= 0, width
