"""A notebook that was executed and saved, for readers without a kernel: as HTML without a network, and opened again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from playwright.sync_api import expect

from .conftest import SCRIPTED
from .lab import REPOSITORY, Lab, write_notebook
from .shown import Shown

TOKENS = """
from types import SimpleNamespace
import mint_lab as ml
from mint_lab.data import to_datum
letters = SimpleNamespace(decode=lambda ids: chr(97 + ids[0]))
ml.show_tokens([to_datum([1, 2, 3, 4], 2), to_datum([1, 2, 3, 5], 2)], letters)
"""
# The kernel is gone as soon as the cell that waited is done.
ENDS = "run.start()\nrun.wait()"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook with a workbench, whose run ended in the last cell, and a token view."""
    path = tmp_path_factory.mktemp("saved") / "saved.ipynb"
    write_notebook(path, [SCRIPTED, TOKENS, "run = ScriptedRun(40, rate=400)\nbench = Bench(run)\nbench", ENDS])
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(REPOSITORY)}}).execute()
    nbformat.write(notebook, path)
    return path


def test_the_outputs_hold_pictures_although_the_kernel_ended_with_the_run(saved: Path) -> None:
    cells = nbformat.read(saved, as_version=4).cells
    tokens, bench = (cell.outputs for cell in cells[1:3])
    assert len(tokens) == len(bench) == 1
    live = {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert set(tokens[0].data) == live | {"text/html"}
    assert set(bench[0].data) == live
    assert "<script" not in tokens[0].data["text/html"]


def test_html_shows_the_outputs_without_a_network(saved: Path, lab: Lab) -> None:
    """As on GitHub. Where the notebook keeps the state of widgets, a converted page asks a server for their script."""
    notebook = nbformat.read(saved, as_version=4)
    del notebook.metadata["widgets"]
    source = saved.with_name("stateless.ipynb")
    nbformat.write(notebook, source)
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    page = lab.context.new_page()
    page.route("http*://**", lambda route: route.abort())
    page.goto(source.with_suffix(".html").as_uri(), wait_until="domcontentloaded")
    picture = page.locator("img[src^='data:image/png']")
    expect(picture).to_be_visible()
    assert picture.evaluate("(picture) => picture.decode().then(() => picture.naturalHeight)") >= 300
    tokens = page.locator(".jp-OutputArea-output").first.inner_text()
    assert "promptbcchosenderejecteddf" in "".join(tokens.split())
    page.close()


@pytest.fixture
def opened(saved: Path, lab: Lab, numbers: Iterator[int]) -> Iterator[Path]:
    name = Path(f"test{next(numbers)}/saved.ipynb")
    (lab.root / name).parent.mkdir()
    (lab.root / name).write_bytes(saved.read_bytes())
    yield name
    lab.stop_kernels()


def test_an_untrusted_notebook_shows_the_pictures(opened: Path, lab: Lab) -> None:
    notebook = lab.reopen(str(opened))
    picture = notebook.page.locator(".jp-OutputArea-output img[src^='data:image/png']")
    expect(picture).to_be_visible()
    assert picture.evaluate("(picture) => picture.decode().then(() => picture.naturalHeight)") >= 300
    expect(notebook.widget).to_have_count(0)  # no script of an untrusted notebook runs
    close(notebook)


def test_a_trusted_notebook_shows_the_last_state_with_nothing_run(opened: Path, lab: Lab) -> None:
    command = [sys.executable, "-m", "jupyter", "trust", str(lab.root / opened)]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=lab.server.environment)
    notebook = lab.reopen(str(opened))
    bench = notebook.page.get_by_role("region", name="Loss workbench")
    bench.wait_for()
    expect(bench.locator(".ml-count")).to_have_text("step 40 / 40")
    expect(bench.locator(".ml-status")).to_have_text("finished")
    expect(bench.locator("[data-name='loss']")).to_have_attribute("data-points", "44")
    expect(bench.locator("[data-name='loss'] .scatterlayer path").first).to_be_attached()
    expect(notebook.page.locator(".ml-token").first).to_be_visible()
    close(notebook)


def close(shown: Shown) -> None:
    shown.page.close()
    assert shown.complaints == []
