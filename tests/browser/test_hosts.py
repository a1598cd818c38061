"""The workbench beyond JupyterLab: the same page, with the bundled model, in Notebook 7 and as a voila application."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from .lab import Lab, Notebook, Shown

WORKBENCH = "import mint_lab as ml\nlab = ml.Workbench(steps=20_000, eval_every=5, folder='run')\nlab"


@pytest.fixture(params=["notebook", "voila"])
def shown(request: pytest.FixtureRequest, lab: Lab, numbers: Iterator[int]) -> Iterator[Shown]:
    """A workbench; afterwards the page must not have complained of anything that an empty one does not complain of."""
    folder = f"test{next(numbers)}"
    if request.param == "notebook":
        shown: Shown = lab.notebook(f"{folder}/bench.ipynb", [WORKBENCH], "notebook")
        settle(shown)
        own = list(shown.complaints)
        assert isinstance(shown, Notebook)
        shown.show()
    else:
        empty = lab.voila(f"{folder}/empty.ipynb", ["print(1)"])
        empty.page.get_by_text("1", exact=True).wait_for()
        settle(empty)
        own = list(empty.complaints)
        empty.page.close()
        shown = lab.voila(f"{folder}/bench.ipynb", [WORKBENCH])
        shown.widget.wait_for(timeout=240_000)
    yield shown
    shown.page.close()
    lab.stop_kernels()
    assert {nameless(text) for text in shown.complaints} <= {nameless(text) for text in own}


def settle(shown: Shown) -> None:
    """Wait for the host's own complaints: all is loaded, and nothing more comes for a while."""
    shown.page.wait_for_load_state("networkidle")
    known = -1
    while known != len(shown.complaints):
        known = len(shown.complaints)
        shown.await_frames(120)


def nameless(complaint: str) -> str:
    """Without the address of the page and what else differs between two pages of the same kind.

    voila offers an extension for JupyterLab few of the modules that JupyterLab has, and names one that it lacks.
    """
    text = re.sub(r"(Shared module) @[\w/-]+ (doesn't exist).*", r"\1 \2", complaint, flags=re.DOTALL)
    return re.sub(r"http://127\.0\.0\.1:\S+|\(.*\)$", "", text).strip()


def test_a_person_trains_steers_and_looks_at_losses(shown: Shown) -> None:
    shown.button("Start").click()
    shown.await_points("grad_norm", 5)

    shown.widget.locator("[data-setting='beta']").focus()
    shown.press("ArrowRight", 6)
    marks = shown.widget.locator(".ml-marks li")
    expect(marks).to_contain_text("beta 1.2")
    shown.widget.get_by_label("Loss", exact=True).select_option("hinge")
    expect(marks.last).to_contain_text("hinge")
    expect(shown.chart("loss")).to_have_attribute("data-marks", "2")

    shown.button("Pause").click()
    shown.await_status("paused")
    shown.await_still()
    held = shown.points("grad_norm")
    shown.button("Step").click()
    shown.await_points("grad_norm", held + 1)
    shown.await_status("paused")
    assert shown.points("grad_norm") == held + 1

    if isinstance(shown, Notebook):
        put_the_loss_into_a_cell(shown)
    else:
        copy_the_loss(shown)
    choose_by_keyboard(shown)

    shown.button("Resume").click()
    shown.await_points("grad_norm", held + 4)
    expect(marks.last).to_contain_text("ipo")
    shown.button("Stop").click()
    shown.await_status("stopped")
    expect(shown.button("New run")).to_be_visible()


def put_the_loss_into_a_cell(notebook: Notebook) -> None:
    """Notebook 7 runs JupyterLab's extensions, and ours puts the loss below the workbench."""
    notebook.button("Edit as a cell").first.click()
    cell = notebook.page.locator(".jp-Notebook .jp-Cell").nth(1)
    expect(cell).to_contain_text("%%loss my_hinge")
    expect(cell.locator(".cm-content")).to_be_focused()  # the last thing that it does: no key may come before
    expect(notebook.widget.get_by_role("group", name="The loss as a cell")).to_be_hidden()


def copy_the_loss(shown: Shown) -> None:
    """Where no extension can put a cell into the notebook, the page shows it, to be copied."""
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.button("Edit as a cell").first.click()
    cell = shown.widget.get_by_role("group", name="The loss as a cell")
    expect(cell.locator("pre")).to_contain_text("%%loss my_hinge")
    source = cell.locator("pre").text_content()
    expect(cell.get_by_role("button", name="Copy")).to_be_focused()
    shown.page.keyboard.press("Enter")
    expect(cell.get_by_role("button", name="Copied")).to_be_visible()
    assert shown.page.evaluate("() => navigator.clipboard.readText()") == source
    cell.get_by_role("button", name="Close").click()
    expect(cell).to_be_hidden()


def choose_by_keyboard(shown: Shown) -> None:
    """From the card in use to the next one that can be used, with Tab and Enter alone."""
    shown.button("All losses").focus()
    shown.page.keyboard.press("Enter")
    gallery = shown.widget.get_by_role("region", name="All losses")
    expect(gallery.locator("[aria-current='true'] h4")).to_have_text("hinge")
    expect(gallery.locator("[aria-current='true'] button:focus")).to_have_text("Edit as a cell")
    for _ in range(60):
        shown.page.keyboard.press("Tab")
        if gallery.locator("[data-loss='ipo'][data-action='use']:focus").count():
            break
    shown.page.keyboard.press("Enter")
    expect(gallery).to_be_hidden()
    expect(shown.button("All losses")).to_be_focused()
    expect(shown.widget.get_by_label("Loss", exact=True)).to_have_value("ipo")
    # Escape closes it, and leaves the loss alone.
    shown.page.keyboard.press("Enter")
    expect(gallery).to_be_visible()
    shown.page.keyboard.press("Escape")
    expect(gallery).to_be_hidden()
    expect(shown.widget.get_by_label("Loss", exact=True)).to_have_value("ipo")
