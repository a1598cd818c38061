"""The JupyterLab extension: launcher, lessons, cells on request, the run in the status bar, and marked cells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, expect

from .lab import REPOSITORY, Lab, Notebook
from .test_cells import CELL, LATE, LOAD, LOSS, MENDED, RAISES, WORKBENCH
from .test_page import CONTRAST, HOSTILE

Open = Callable[..., Notebook]

LESSONS = sorted(path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
REWARD = "%%reward right\ndef right(response_text, example):\n    return 1.0\n"
THEMES = ("JupyterLab Dark", "JupyterLab Light")


@pytest.fixture
def launcher(lab: Lab, numbers: Iterator[int]) -> Iterator[tuple[Notebook, Path]]:
    """JupyterLab with its launcher, its file browser in an empty folder; and that folder."""
    name = f"test{next(numbers)}"
    (lab.root / name).mkdir()
    page = Notebook(lab.context.new_page(), lab.url(name), name)
    page.load()
    card(page, "Loss workbench").wait_for()
    yield page, lab.root / name
    page.page.close()
    lab.stop_kernels()
    assert page.complaints == []


def card(page: Notebook, label: str) -> Locator:
    return page.page.locator(".jp-LauncherCard:visible", has_text=label)


def status(notebook: Notebook) -> Locator:
    return notebook.page.get_by_role("group", name="Training run")


def badge(notebook: Notebook, index: int) -> Locator:
    return notebook.page.locator(".jp-Notebook:visible .jp-Cell").nth(index).locator(".mint-lab-mark")


def contrasts(notebook: Notebook, element: Locator) -> list[float]:
    """Contrast of an element's text in the dark and in the light theme."""
    found: list[float] = []
    for theme in THEMES:
        notebook.theme(theme)
        found.append(float(element.evaluate(CONTRAST)))
    return found


def sources(notebook: Notebook) -> list[str]:
    return notebook.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map((cell) => cell.getSource())"
    )


def ask_for_cell(notebook: Notebook, source: str, origin: str) -> bool:
    """What the widget does; whether nobody took it."""
    return notebook.evaluate(
        """([source, origin]) => window.dispatchEvent(new CustomEvent("mint-lab:insert-cell",
             { cancelable: true, detail: { source, origin: document.querySelector(origin) } }))""",
        argument=[source, origin],
    )


def test_from_the_launcher_to_a_learning_model_without_typing(launcher: tuple[Notebook, Path]) -> None:
    page, folder = launcher
    card(page, "Loss workbench").click()
    page.widget.wait_for(timeout=240_000)
    page.button("Start").click()
    page.await_points("mean_margin", 8)
    value = page.chart("pair_accuracy").locator(".ml-key", has_text="held-out").locator(".ml-value")
    expect(value).to_have_text(re.compile(r"\d"))
    first = float(value.inner_text())
    page.await_points("mean_margin", 40)
    page.await_that(lambda: float(value.inner_text()) > first, f"a held-out accuracy above {first}")
    assert page.page.locator(".jp-Dialog").count() == 0
    assert [path.name for path in folder.glob("*.ipynb")] == ["Loss workbench.ipynb"]
    expect(status(page)).to_contain_text("pairwise_preference v1")

    page.button("Stop").click()
    page.await_end("stopped")
    # A cell that the workbench asks for runs as it stands.
    assert ask_for_cell(page, LOSS, ".mint-lab .ml-bar") is False
    expect(page.page.locator(".jp-Cell.jp-mod-active .cm-content")).to_be_focused()
    page.page.keyboard.press("Shift+Enter")
    expect(badge(page, 1)).to_have_text("✓bentv1", timeout=120_000)

    # And once more, from the palette: another notebook, in the same folder.
    page.command("apputils:activate-command-palette")
    expect(page.page.locator(".lm-CommandPalette-input")).to_be_focused()
    page.page.keyboard.insert_text("new loss workbench")
    expect(page.page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text("New Loss Workbench")
    page.page.keyboard.press("Enter")
    expect(page.page.locator(".mint-lab:visible").get_by_role("button", name="Start", exact=True)).to_be_visible(
        timeout=240_000
    )
    assert sorted(path.name for path in folder.glob("*.ipynb")) == ["Loss workbench 2.ipynb", "Loss workbench.ipynb"]


def test_lessons_are_copied_and_nothing_is_overwritten(lab: Lab, launcher: tuple[Notebook, Path]) -> None:
    page, _ = launcher
    folder = lab.root / "mint_lab lessons"
    mine = folder / LESSONS[1]
    folder.mkdir()
    mine.write_text("what I wrote")
    card(page, "mint_lab lessons").click()
    opened = page.page.locator(".jp-Notebook:visible .jp-MarkdownOutput h1").first
    expect(opened).to_have_text(re.compile("1. A first run"), timeout=120_000)
    assert sorted(path.name for path in folder.glob("*.ipynb")) == LESSONS
    assert mine.read_text() == "what I wrote"
    for name in (LESSONS[0], *LESSONS[2:]):
        copied = nbformat.read(folder / name, as_version=4)
        original = nbformat.read(REPOSITORY / "notebooks" / name, as_version=4)
        assert [cell.source for cell in copied.cells] == [cell.source for cell in original.cells]

    # What was changed since stays changed; what was thrown away comes back.
    (folder / LESSONS[0]).write_text(json.dumps(nbformat.v4.new_notebook(metadata={"changed": True})))
    (folder / LESSONS[2]).unlink()
    page.command("mint-lab:open-lessons")
    assert json.loads((folder / LESSONS[0]).read_text())["metadata"]["changed"] is True
    assert mine.read_text() == "what I wrote"
    assert (folder / LESSONS[2]).is_file()


def test_a_cell_is_made_below_the_widget_that_asks(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(400)", "6 * 7")
    notebook.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    source = f"%%loss mine\n# {HOSTILE}\ndef mine(data, logprobs_list): ...\n"
    assert ask_for_cell(notebook, source, ".mint-lab .ml-bar") is False
    expect(notebook.page.locator(".jp-Notebook .jp-Cell")).to_have_count(4)
    assert sources(notebook)[1:] == [sources(notebook)[1], source, "6 * 7"]
    active = notebook.page.locator(".jp-Cell.jp-mod-active")
    expect(active.locator(".cm-content")).to_be_focused()
    expect(active).to_contain_text("%%loss mine")
    expect(active).to_be_in_viewport()
    notebook.page.keyboard.press("Control+Home")
    notebook.page.keyboard.insert_text("# mine now\n")
    notebook.await_that(lambda: sources(notebook)[2].startswith("# mine now\n%%loss mine"), "what was typed")

    # Nobody takes what does not come from a notebook, or is no request: the widget then shows the source itself.
    assert ask_for_cell(notebook, source, "#jp-main-statusbar") is True
    assert notebook.evaluate("() => window.dispatchEvent(new CustomEvent('mint-lab:insert-cell', {cancelable: true}))")
    assert len(sources(notebook)) == 4
    assert notebook.page.evaluate("() => window.hacked") is None


def test_the_status_bar_follows_a_run_and_stops_it(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=40)", "run.calls, run.status", "1\n" * 80)
    expect(status(notebook)).to_be_hidden()
    notebook.button("Start").click()
    expect(status(notebook)).to_contain_text(re.compile(r"step [\d,]+ / 20,000"))
    expect(status(notebook)).to_contain_text("pairwise_preference v1")
    expect(status(notebook)).to_contain_text(re.compile(r"held-out pair_accuracy 0\.\d{3}"))
    step = status(notebook).locator(".mint-lab-status-number").first
    before = step.inner_text()
    expect(step).not_to_have_text(before)
    for part in (step, status(notebook).get_by_role("button", name="Stop")):
        assert min(contrasts(notebook, part)) >= 4.5

    notebook.widget.get_by_label("Loss", exact=True).select_option("simpo")
    expect(status(notebook)).to_contain_text("simpo v1")
    notebook.button("Pause").click()
    expect(status(notebook)).to_contain_text("paused")
    notebook.button("Resume").click()
    expect(status(notebook)).not_to_contain_text("paused")

    # From another tab it leads back.
    notebook.command("launcher:create")
    expect(notebook.widget).to_be_hidden()
    status(notebook).get_by_role("button", name=re.compile("step")).click()
    expect(notebook.widget).to_be_in_viewport()
    notebook.page.wait_for_function(
        "(name) => window.jupyterapp.shell.currentWidget.context?.path === name", arg=notebook.name
    )

    status(notebook).get_by_role("button", name="Stop").click()
    notebook.await_status("stopped")
    expect(status(notebook)).to_be_hidden()
    assert notebook.run_cell(2) == "(['start', 'pause', 'resume', 'stop'], 'stopped')"


def test_the_status_bar_after_a_reload_and_without_the_kernel(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=40)")
    notebook.button("Start").click()
    notebook.await_points("loss", 10)
    notebook.reload()
    expect(status(notebook)).to_contain_text(re.compile(r"step [\d,]+ / 20,000"))
    # JupyterLab's own: it asks the old kernel's debugger for its state.
    notebook.ignored = ("debugger state",)
    # Nobody is left to say that the run is over.
    notebook.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()", 600)
    expect(status(notebook)).to_be_hidden()


def test_the_status_bar_when_the_notebook_is_closed(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=40)")
    notebook.button("Start").click()
    expect(status(notebook)).to_contain_text(re.compile(r"step [\d,]+ / 20,000"))
    notebook.command("docmanager:save")
    notebook.command("application:close")
    expect(status(notebook)).to_be_hidden()


def test_hostile_names_are_text(scripted: Open) -> None:
    name = f"{HOSTILE}\u202e" + "w" * 3000
    hostile = (
        f"ScriptedRun(20_000, rate=20)\nimport dataclasses\nrun.loss = dataclasses.replace(run.loss, name={name!r})"
    )
    notebook = scripted(hostile)
    notebook.button("Start").click()
    expect(status(notebook)).to_contain_text(HOSTILE)
    assert status(notebook).locator("img").count() == 0
    assert notebook.page.evaluate("() => window.hacked") is None
    bell = notebook.page.locator(".jp-Notification-Status")
    expect(bell).to_be_in_viewport(ratio=1)
    stop = status(notebook).get_by_role("button", name="Stop")
    expect(stop).to_be_in_viewport(ratio=1)
    stop.click()
    notebook.await_status("stopped")


def test_cells_are_marked_and_stay_so(open_notebook: Open) -> None:
    notebook = open_notebook([LOAD, LOSS, REWARD, "6 * 7"])
    notebook.run_all()
    expect(badge(notebook, 1)).to_have_text("✓bentv1")
    expect(badge(notebook, 2)).to_have_text("✓rightv1")
    assert badge(notebook, 3).count() == 0
    assert badge(notebook, 0).count() == 0
    notebook.run_cell(1)
    expect(badge(notebook, 1)).to_have_text("✓bentv2")
    ink = contrasts(notebook, badge(notebook, 1))
    notebook.edit_cell(2, REWARD.replace("return 1.0", "return 1.0 +"))
    expect(badge(notebook, 2)).to_have_text("✕rightrefused")
    expect(badge(notebook, 2)).to_have_attribute("title", "This reward was refused; v1 stays in use")
    notebook.edit_cell(1, RAISES)
    expect(badge(notebook, 1)).to_have_text("✕bentrefused")
    expect(badge(notebook, 1)).to_have_attribute("title", "This loss was refused; v2 stays in use")
    sign = badge(notebook, 1).locator(".mint-lab-mark-sign")
    assert min(*ink, *contrasts(notebook, badge(notebook, 1))) >= 4.5
    assert min(contrasts(notebook, sign)) >= 3  # WCAG's norm for what is no text: the word beside it says the same
    notebook.edit_cell(1, LOSS)
    expect(badge(notebook, 1)).to_have_text("✓bentv3")

    notebook.command("docmanager:save")
    notebook.open()
    expect(badge(notebook, 1)).to_have_text("✓bentv3")
    expect(badge(notebook, 2)).to_have_text("✕rightrefused")
    # A cell that does not say so any more is not marked any more.
    notebook.edit_cell(2, "6 * 7")
    expect(badge(notebook, 2)).to_have_count(0)


def test_a_loss_that_fails_in_a_run_is_marked_until_it_is_mended(open_notebook: Open) -> None:
    notebook = open_notebook(
        [LOAD, LOSS, WORKBENCH, "%%loss other\n" + LOSS.replace("bent", "other").partition("\n")[2]]
    )
    notebook.show()
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 10)
    notebook.edit_cell(CELL, LATE)
    notebook.await_status("failed")
    expect(badge(notebook, CELL)).to_have_text("!bentv2 failed")
    expect(badge(notebook, 3)).to_have_text("✓otherv1")
    expect(status(notebook)).to_contain_text("failed")
    notebook.edit_cell(CELL, MENDED)
    notebook.await_status("running")
    expect(badge(notebook, CELL)).to_have_text("✓bentv3")
    expect(status(notebook)).not_to_contain_text("failed")


def marked(source: str, mark: Any) -> nbformat.NotebookNode:
    """A cell as it is saved, with any metadata somebody may have written."""
    output = nbformat.v4.new_output("display_data", {"text/plain": "ok"}, metadata={"mint_lab": mark})
    return nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)


def test_marks_of_a_foreign_notebook_are_text_and_reach_cells_out_of_view(
    lab: Lab, numbers: Iterator[int], open_notebook: Open
) -> None:
    opened = open_notebook(["1"])
    mark = {"kind": "loss", "name": HOSTILE + "w" * 3000, "version": 7, "state": "registered"}
    cells = [
        marked("a = 1", mark),
        marked("b = 2", {**mark, "state": HOSTILE}),
        marked("c = 3", [HOSTILE]),
        *(nbformat.v4.new_code_cell("x = 1\n" * 30) for _ in range(40)),
        marked("z = 1", {**mark, "name": "last"}),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.root / opened.name)
    opened.open()
    expect(badge(opened, 0)).to_contain_text(f"✓{HOSTILE}")
    assert badge(opened, 0).locator("img").count() == 0
    assert opened.page.evaluate("() => window.hacked") is None
    for index in (1, 2):
        expect(badge(opened, index)).to_have_count(0)
    opened.evaluate(
        """async () => { const { content } = window.jupyterapp.shell.currentWidget;
             content.activeCellIndex = content.widgets.length - 1; await content.scrollToCell(content.activeCell); }"""
    )
    last = opened.page.locator(".jp-Cell.jp-mod-active .mint-lab-mark")
    expect(last).to_have_text("✓lastv7")
    expect(last).to_be_in_viewport()
