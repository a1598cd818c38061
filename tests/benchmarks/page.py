"""Cost of a page: bytes of an update, work of the browser's main thread, what a closed view leaves behind.

Also the speed of training with and without a page.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from mint_lab.ui.publisher import Publisher
from tests.browser.lab import Lab, Notebook, chromium, serve
from tests.ui.scripted import ScriptedRun, record

__all__ = ["Figure", "bytes_of_an_update", "in_the_browser", "long_run", "page_and_headless", "what_is_left"]

HELD = (1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Figure:
    """One measured number with its target; ``raw`` has the measurements behind it."""

    what: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    raw: Any = None


def long_run(steps: int, *, rate: float = 20.0) -> ScriptedRun:
    """Return a run that already has ``steps`` records, of 200 different ones, with an evaluation in every tenth."""
    run = ScriptedRun(steps + 10**6, rate=rate)
    plain, evaluated = ([record(10 * i + k, 1000) for i in range(100)] for k in (1, 10))
    kinds = (*[plain] * 9, evaluated)
    run.records.extend(replace(kinds[i % 10][i // 10 % 100], step=i + 1) for i in range(steps))
    return run


def bytes_of_an_update(held: Sequence[int] = HELD) -> list[Figure]:
    """Measure an update of four records, and the snapshot, with this many buffered steps: JSON and buffers as sent."""
    updates: dict[int, list[int]] = {}
    snapshots: dict[int, int] = {}
    for steps in held:
        sizes: list[int] = []
        run = long_run(steps)
        publisher = _still(run, sizes)
        publisher.publish()
        sizes.clear()
        for k in range(25):
            run.append(*(replace(record(4 * k + i, 1000), step=steps + 4 * k + i) for i in range(1, 5)))
            publisher.publish()
        updates[steps] = list(sizes)
        sizes.clear()
        publisher.send_snapshot()
        snapshots[steps] = sizes[-1]
        publisher.close()
    means = {steps: statistics.mean(found) for steps, found in updates.items()}
    rows = [Figure(f"update with {n:,} steps held", means[n], "bytes", raw=updates[n]) for n in held]
    ratio = means[held[-1]] / means[held[0]]
    rows.append(Figure(f"the same, {held[-1]:,} / {held[0]:,} steps", ratio, "", "at most 1.05", ratio <= 1.05))
    snapshot = snapshots[held[-1]] / snapshots[held[-2]]
    what = f"snapshot, {held[-1]:,} / {held[-2]:,} steps"
    rows.append(Figure(what, snapshot, "", "at most 2", snapshot <= 2, snapshots))
    return rows


def _still(run: ScriptedRun, sizes: list[int]) -> Publisher:
    """Return a publisher that sends only when called."""
    publisher = Publisher(run, lambda message, buffers: sizes.append(_size(message, buffers)), interval=3600)
    publisher._dispose()
    return publisher


def _size(message: Any, buffers: Sequence[bytes]) -> int:
    return len(json.dumps(message, default=lambda _: "")) + sum(map(len, buffers))


@contextmanager
def _lab() -> Iterator[Lab]:
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder)) as server,
        sync_playwright() as playwright,
        chromium(playwright) as context,
    ):
        yield Lab(server, context, Path(folder))


SHOW = """
import traitlets
from mint_lab.ui import LiveCharts
from mint_lab.ui.widget import RunWidget
from tests.benchmarks.page import long_run

class Bench(RunWidget):
    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)

run = long_run({held})
bench = Bench(run)
bench._publisher._interval = 0.1
bench
"""
WATCH = """() => { window.__tasks = []; window.__frames = [];
  new PerformanceObserver((list) => window.__tasks.push(...list.getEntries().map((entry) => entry.duration)))
    .observe({ type: "longtask" });
  const tick = (now) => { window.__frames.push(now); requestAnimationFrame(tick); }; requestAnimationFrame(tick); }"""
SEEN = """() => { const found = [window.__tasks, window.__frames];
  window.__tasks = []; window.__frames = []; return found; }"""


def in_the_browser(seconds: float = 20.0, held: Sequence[int] = HELD[1:]) -> list[Figure]:
    """Measure the workbench at ten updates a second: main-thread tasks over 50 ms, and dropped frames."""
    rows: list[Figure] = []
    for steps in held:
        with _lab() as lab:
            notebook = lab.notebook("bench.ipynb", [SHOW.format(held=steps)]).show()
            notebook.await_points("grad_norm", steps, timeout=120)
            notebook.button("Start").click()
            notebook.await_points("grad_norm", steps + 20)
            notebook.evaluate(WATCH)
            notebook.page.wait_for_timeout(500)
            notebook.evaluate(SEEN)
            before = notebook.received()["messages"], notebook.points("grad_norm")
            notebook.page.wait_for_timeout(1000 * seconds)
            tasks, frames = notebook.evaluate(SEEN)
            messages = notebook.received()["messages"] - before[0]
            raw = {"tasks": tasks, "messages": messages, "records": notebook.points("grad_norm") - before[1]}
        longest = max(tasks, default=0.0)
        gaps = [later - earlier for earlier, later in pairwise(frames)]
        usual = statistics.median(gaps)
        dropped = sum(round(gap / usual) - 1 for gap in gaps) / (sum(gaps) / usual)
        target, met = ("at most 100", longest <= 100) if steps <= 10_000 else ("", None)
        rows.append(Figure(f"longest task, {steps:,} steps held", longest, "ms", target, met, raw))
        rows.append(Figure(f"tasks over 50 ms in {seconds:g} s, {steps:,} steps held", len(tasks), ""))
        rows.append(Figure(f"frames left out, {steps:,} steps held", 100 * dropped, "%", raw={"frame": usual}))
    return rows


KERNEL = "import gc, threading; gc.collect(); print(run.subscribers, threading.active_count())"
PLAIN = "import ipywidgets\nplain = ipywidgets.IntSlider()"
CELLS = [
    *[KERNEL, PLAIN, "bench", "plain"],
    *[
        "charts = LiveCharts(run)\ncharts",
        "charts.close()",
        "slider = ipywidgets.IntSlider()\nslider",
        "slider.close()",
    ],
]


def what_is_left(times: int = 10) -> list[Figure]:
    """Measure what a closed view and a closed widget leave in the page, compared with a plain slider.

    JupyterLab itself keeps some nodes and listeners when a cell is run and cleared; the slider shows how many.
    """
    with _lab() as lab:
        notebook = lab.notebook("bench.ipynb", [SHOW.format(held=1000)]).show()
        for source in CELLS:
            _add(notebook, source)
        notebook.run_cell(2)
        left = {
            "view": _left(notebook, times, 3, None, ".scatterlayer"),
            "view of a slider": _left(notebook, times, 4, None, ".widget-slider"),
            "widget": _left(notebook, times, 5, 6, ".scatterlayer"),
            "slider": _left(notebook, times, 7, 8, ".widget-slider"),
        }
    rows: list[Figure] = []
    for ours, plain in (("view", "view of a slider"), ("widget", "slider")):
        for name in ("Nodes", "JSEventListeners"):
            found, usual = left[ours][name], left[plain][name]
            what, target = f"{name} left by a closed {ours}", f"at most {1.1 * usual + 5:.0f}, as a slider"
            rows.append(Figure(what, found, "", target, found <= 1.1 * usual + 5, usual))
        rows.append(Figure(f"heap left by a closed {ours}", left[ours]["JSHeapUsedSize"] / 1024, "kB", raw=left[plain]))
        kernel = left[ours]["kernel"]
        rows.append(Figure(f"kernel's threads, subscriptions left by a {ours}", kernel, "", "0", kernel == 0))
    return rows


def _left(notebook: Notebook, times: int, opens: int, closes: int | None, part: str) -> dict[str, float]:
    """Return the growth in each repetition, after two that create what is created only once."""
    counted: list[tuple[dict[str, float], list[int]]] = []
    for k in range(times + 2):
        if k == 2:
            counted.append(_counts(notebook))
        output = notebook.page.locator(".jp-Notebook .jp-Cell").nth(opens).locator(".jp-OutputArea-output")
        notebook.run_cell(opens)
        output.locator(part).first.wait_for(state="attached", timeout=60_000)
        if closes is not None:
            notebook.run_cell(closes)
        notebook.evaluate("(i) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", 5, opens)
        notebook.command("notebook:clear-cell-output")
        output.first.wait_for(state="detached")
    counted.append(_counts(notebook))
    (before, then), (after, now) = counted
    grown = {name: (after[name] - before[name]) / times for name in ("Nodes", "JSEventListeners", "JSHeapUsedSize")}
    return {**grown, "kernel": float(sum(now) - sum(then))}


def _add(notebook: Notebook, source: str) -> None:
    notebook.evaluate(
        """(source) => { const { content } = window.jupyterapp.shell.currentWidget;
             const cells = content.model.sharedModel;
             cells.insertCell(cells.cells.length, { cell_type: "code", source, metadata: { trusted: true } }); }""",
        10,
        source,
    )


def _counts(notebook: Notebook) -> tuple[dict[str, float], list[int]]:
    kernel = [int(count) for count in notebook.run_cell(1).split()]
    notebook.page.wait_for_timeout(1500)  # let short timers end
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {metric["name"]: metric["value"] for metric in metrics}, kernel


RUN = """
import mint_lab as ml
from mint_lab.ui import LiveCharts
run = ml.Run(steps=10**6, eval_every=10**6, folder="run", seed=0)
run.step(10)
run.wait()
"""


def page_and_headless(rounds: int = 6, steps: int = 40) -> list[Figure]:
    """Alternate steps of one mint-tiny run with its charts on the page and without a page."""
    cells = [RUN, "charts = LiveCharts(run)\ncharts", "charts.close()", f"run.step({steps})\nrun.wait()"]
    cells.append(
        f"print([round(b.time - a.time, 5) for a, b in zip(run.records[-{steps}:], run.records[1 - {steps}:])])"
    )
    taken: dict[str, list[float]] = {"page": [], "headless": []}
    with _lab() as lab:
        notebook = lab.notebook("bench.ipynb", cells)
        notebook.run_cell(0)
        for k in range(rounds):
            for way in ("page", "headless") if k % 2 else ("headless", "page"):
                if way == "page":
                    notebook.run_cell(1)
                    notebook.page.locator(".scatterlayer path").first.wait_for(state="attached", timeout=60_000)
                notebook.run_cell(3)
                gaps = json.loads(notebook.run_cell(4))
                taken[way].append(1 / statistics.median(gaps))
                if way == "page":
                    notebook.run_cell(2)
    ratios = [page / headless for page, headless in zip(taken["page"], taken["headless"], strict=True)]
    ratio = statistics.median(ratios)
    return [
        Figure("steps/s with a page", statistics.median(taken["page"]), "", raw=taken["page"]),
        Figure("steps/s without one", statistics.median(taken["headless"]), "", raw=taken["headless"]),
        Figure("the first over the second", ratio, "", "at least 0.97", ratio >= 0.97, ratios),
    ]
