"""One JupyterLab and one chromium for all browser tests; a page that complained fails its test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import pytest
from playwright.sync_api import expect, sync_playwright

from .lab import Lab, Notebook, chromium, chromium_path, serve

SCRIPTED = """
import traitlets
from mint_lab.ui.widget import RunWidget
from tests.ui.scripted import ScriptedRun, record

class Bench(RunWidget):
    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)
"""

Open = Callable[..., Notebook]

# Everything here waits for a condition; a busy machine may take ten times as long as a quiet one to bring it about.
expect.set_options(timeout=240_000)
TEST_TIMEOUT = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the browser tests, and run them last: playwright keeps an event loop running, beside which nobody else's
    ``asyncio.run`` works.
    """
    for item in items:
        if _in_browser(item):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))
    items.sort(key=_in_browser)


def _in_browser(item: pytest.Item) -> bool:
    return "/browser/" in item.path.as_posix()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    try:
        chromium_path()
    except FileNotFoundError as error:  # a failure, never a skipped test; the message needs no traceback
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    root = tmp_path_factory.mktemp("notebooks")
    with serve(root) as server, sync_playwright() as playwright, chromium(playwright) as context:
        yield Lab(server, context, root)


@pytest.fixture
def open_notebook(lab: Lab, numbers: Iterator[int], request: pytest.FixtureRequest) -> Iterator[Open]:
    """``open_notebook(cells)`` opens a notebook in JupyterLab; afterwards the page must not have complained."""
    with opener(lab, numbers, request.session) as open_:
        yield open_


@contextlib.contextmanager
def opener(lab: Lab, numbers: Iterator[int], session: pytest.Session) -> Iterator[Open]:
    """What :func:`open_notebook` gives, also for a whole module.

    Each notebook has a folder to itself, so that no run finds another test's ``folder="run"``, and a page that no
    failed test left behind.
    """
    failed = session.testsfailed
    opened: list[Notebook] = []

    def open_(cells: Sequence[str]) -> Notebook:
        notebook = lab.notebook(f"test{next(numbers)}/notebook.ipynb", cells)
        opened.append(notebook)
        return notebook

    yield open_
    for notebook in opened:
        if session.testsfailed > failed:
            notebook.page.close()
        else:
            lab.keep(notebook)
    lab.stop_kernels()
    assert [complaint for notebook in opened for complaint in notebook.complaints] == []


@pytest.fixture
def scripted(open_notebook: Open) -> Open:
    """``scripted("ScriptedRun(400)")`` shows a workbench on a scripted run, whose name in the kernel is ``run``."""

    def show(run: str, *cells: str) -> Notebook:
        bench = "bench = Bench(run, base_model='mint-tiny', data='arithmetic pairs, 4,000 train / 400 held out')\nbench"
        return open_notebook([SCRIPTED, f"run = {run}\n{bench}", *cells]).show()

    return show


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return count(1)
