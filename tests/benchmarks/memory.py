"""Memory that training leaves: of workbenches that were dropped, and of one run over thousands of steps."""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

import mint_lab as ml
from mint_lab.data import Pair
from mint_lab.ui.workbench import Workbench

__all__ = ["Figure", "Soak", "dropped", "figures_of", "slope", "soak"]

MEGABYTE = 1e6
SLOPE_LIMIT = 1.0  # MB per 1,000 steps; the records of the steps are a part of it
WARM_UP = 0.25  # share of a soak after which memory counts: caches and allocators have filled by then
DISPLAYS = (0.05, 0.1, 0.15, 0.4, 0.6, 0.8)  # shares after which the page is displayed again; three in the warm-up
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Figure:
    """A measured number."""

    what: str
    value: float
    unit: str
    target: str
    met: bool


def resident() -> float:
    """Return the resident memory of this process, MB."""
    return psutil.Process().memory_info().rss / MEGABYTE


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through points ``(x, y)``."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


class PageComm:
    """A widget's channel to a page that reads every message and keeps none."""

    _numbers = itertools.count()

    def __init__(self, data: Any = None, buffers: Any = None, **_: Any) -> None:
        self.comm_id = f"page {next(self._numbers)}"
        self.bytes = 0
        self.receive: Callable[[Any], object] = lambda _: None

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        """Encode the message, as a kernel does."""
        self.bytes += len(json.dumps(data, default=str)) + sum(len(buffer) for buffer in buffers or [])

    def on_msg(self, callback: Callable[[Any], object]) -> None:
        """Remember who answers requests."""
        self.receive = callback

    def close(self, *_: Any, **__: Any) -> None:
        """Forget who answers requests."""
        self.receive = lambda _: None

    def ask(self, **request: Any) -> None:
        """Send a request as a page does."""
        self.receive({"content": {"data": {"method": "custom", "content": request}}, "buffers": []})


def pairs(number: int) -> list[Pair]:
    """Return sums with a right and a wrong answer."""
    return [Pair(f"What is {i} + {i % 7}?", f" {i + i % 7}", f" {i + i % 7 + 1}") for i in range(number)]


def bench(folder: Path, steps: int, **options: Any) -> tuple[Workbench, PageComm]:
    """Return a workbench on the bundled model whose page is a :class:`PageComm`."""
    comms: list[PageComm] = []

    def create(**arguments: Any) -> PageComm:
        comms.append(PageComm(**arguments))
        return comms[-1]

    with patch("comm.create_comm", create):
        found = ml.Workbench(data=pairs(60), steps=steps, batch_size=4, folder=folder, **options)
    page = next(one for one in comms if one.comm_id == found.model_id)
    return found, page


def display(workbench: Workbench, page: PageComm) -> None:
    """Display the workbench once more: an output with its picture, and a page that has nothing yet."""
    workbench._repr_mimebundle_()
    page.ask(type="sync", since=-1, epoch="")


def dropped(times: int, folder: Path, report: Callable[[str], object] = print) -> list[Figure]:
    """Train workbenches and drop them.

    Args:
        times: Number of workbenches.
        folder: Folder of the runs.
        report: Called with a line now and then.
    """
    memory: list[float] = []
    threads: list[int] = []
    for number in range(times):
        workbench, page = bench(folder / str(number), steps=3, eval_every=2)
        display(workbench, page)
        workbench.run.start().wait()
        workbench.leave_page()
        del workbench, page
        _settle()
        memory.append(resident())
        threads.append(threading.active_count())
        if number % 10 == 0 or number + 1 == times:
            report(f"{number + 1} workbenches dropped: {memory[-1]:.0f} MB, {threads[-1]} threads")
    first = times // 5
    growth = 100 * (memory[-1] / memory[first] - 1)
    more = threads[-1] - threads[first]
    return [
        Figure(
            f"memory after {times} dropped workbenches, to that after {first + 1}", growth, "%", "±5", abs(growth) <= 5
        ),
        Figure("threads more", more, "", "0", more == 0),
    ]


def _settle() -> None:
    """Wait until what was dropped is closed, on another thread. The last widget is kept: an undo may bring it back."""
    for _ in range(100):
        gc.collect()
        if sum(thread.name == "mint-lab-page" for thread in threading.enumerate()) <= 1:
            gc.collect()
            return
        time.sleep(0.05)


@dataclass(frozen=True)
class Soak:
    """What a long training took.

    Attributes:
        steps: Steps that were completed.
        slope: Growth of the resident memory after the warm-up, MB per 1,000 steps.
        points: Samples ``(step, MB)``.
        bytes: Bytes that were sent to the page.
    """

    steps: int
    slope: float
    points: list[tuple[float, float]]
    bytes: int


def soak(seconds: float, steps: int, folder: Path, report: Callable[[str], object] = print) -> Soak:
    """Train one workbench with a page, displayed again three times after the warm-up, until both limits are reached.

    Args:
        seconds: Shortest time.
        steps: Smallest number of steps.
        folder: Folder of the run.
        report: Called with a line now and then.
    """
    workbench, page = bench(folder, steps=10_000_000, eval_every=50)
    run = workbench.run
    display(workbench, page)
    points: list[tuple[float, float]] = []
    shown = 0
    run.start()
    start = time.monotonic()
    while run.status == "running":
        share = min((time.monotonic() - start) / seconds, run.steps_done / steps)
        if share >= 1 and len({step for step, _ in _warm(points)}) > 1:
            break
        if shown < len(DISPLAYS) and share >= DISPLAYS[shown]:
            display(workbench, page)
            shown += 1
            report(f"{run.steps_done} steps, {resident():.0f} MB")
        points.append((float(run.steps_done), resident()))
        run.wait(min(SAMPLE_SECONDS, seconds / 50), check=False)
    run.stop().wait(check=False)
    if run.error is not None:
        raise RuntimeError(run.error.message)
    return Soak(run.steps_done, 1000 * slope(_warm(points)), points, page.bytes)


def _warm(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points after the warm-up."""
    return [point for point in points if point[0] >= WARM_UP * points[-1][0]]


def figures_of(found: Soak) -> list[Figure]:
    """Return what a soak has measured."""
    first, last = found.points[0][1], found.points[-1][1]
    return [
        Figure(
            f"memory per 1,000 steps, over {found.steps:,} steps after the warm-up",
            found.slope,
            "MB",
            f"≤ {SLOPE_LIMIT:g}",
            found.slope <= SLOPE_LIMIT,
        ),
        Figure(f"memory at the end (at the start: {first:.0f} MB)", last, "MB", "", met=True),
    ]
