"""The receiver of a publisher's messages, in Python: it does what a page does with them."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest

from mint_lab.ui.heat import Heat, HeatHistory
from mint_lab.ui.messages import Histogram
from mint_lab.ui.publisher import Publisher

__all__ = ["Page", "Wire", "assert_same_heats", "attached"]


class Page:
    """Apply messages as the protocol says, and nothing else."""

    def __init__(self) -> None:
        self.epoch, self.number, self.seen = "", 0, 0
        self.state: dict[str, Any] = {}
        self.columns: dict[str, list[tuple[float, float]]] = {}
        self.heats = HeatHistory()
        self.branches: list[tuple[str, int, list[int], dict[str, list[tuple[float, float]]]]] = []
        self.wants_sync = True

    def receive(self, message: Any, buffers: Any) -> None:
        if message["type"] == "snapshot":
            if buffers:  # a message, not the trait
                message = attached(message, buffers)
            if message["epoch"] == self.epoch and message["number"] <= self.number and not self.wants_sync:
                return
            self.epoch, self.number, self.seen = message["epoch"], message["number"], message["seen"]
            self.state, self.wants_sync = dict(message["state"]), False
            self.columns = {s["name"]: points(s) for s in message["series"]}
            self.heats = loaded(message["heats"])
            self.branches = [
                (branch["label"], branch["step"], branch["breaks"], {s["name"]: points(s) for s in branch["series"]})
                for branch in message["branches"]
            ]
            return
        if message["epoch"] != self.epoch or message["first"] > self.seen:
            self.wants_sync = True
            return
        if message["number"] <= self.number:
            return
        if message["number"] > self.number + 1 and not message["full"]:
            self.wants_sync = True
        if message["full"]:
            self.wants_sync = False
        self.append(message, buffers)
        self.number = message["number"]
        self.state |= message["state"]

    def append(self, message: Any, buffers: Any) -> None:
        skip, count = self.seen - message["first"], message["count"]
        if count <= skip:
            return
        steps = struct.unpack(f"<{count}d", buffers[0])
        values = struct.unpack(f"<{count * len(message['columns'])}f", buffers[1])
        for row, name in enumerate(message["columns"]):
            pairs = zip(steps, values[row * count : (row + 1) * count], strict=True)
            new = [pair for pair in list(pairs)[skip:] if not math.isnan(pair[1])]
            self.columns.setdefault(name, []).extend(new)
        last_step = {name: heat.steps[-1] if heat.steps else 0 for name, heat in self.heats.heats.items()}
        for histogram in message["histograms"]:
            if histogram["step"] > last_step.get(histogram["name"], 0):
                self.heats.add(histogram)
        self.seen += count - skip


def points(series: Any) -> list[tuple[float, float]]:
    assert series["width"] == 1
    count = len(series["steps"]) // 8
    steps = struct.unpack(f"<{count}d", series["steps"])
    return list(zip(steps, struct.unpack(f"<{count}f", series["values"]), strict=True))


def attached(snapshot: Any, buffers: Any) -> Any:
    of_branches = [series for branch in snapshot["branches"] for series in branch["series"]]
    parts, rest = [*snapshot["series"], *snapshot["heats"], *of_branches], iter(buffers)
    filled = [{**part, "steps": next(rest), "values": next(rest)} for part in parts]
    assert next(rest, None) is None
    count, heats = len(snapshot["series"]), len(snapshot["heats"])
    left = iter(filled[count + heats :])
    branches = [{**branch, "series": [next(left) for _ in branch["series"]]} for branch in snapshot["branches"]]
    return {**snapshot, "series": filled[:count], "heats": filled[count : count + heats], "branches": branches}


def loaded(heats: Any) -> HeatHistory:
    history = HeatHistory()
    for data in heats:
        first = Histogram(
            **{"name": data["name"], "step": 0, "source": data["source"], "start": data["start"]},
            **{"width": data["bin"], "counts": [0] * data["bins"], "clip": None},
        )
        heat = history.heats[data["name"]] = Heat(first)
        count, bins = len(data["steps"]) // 8, data["bins"]
        heat.width, heat.points = data["width"], data["points"]
        heat.steps = list(struct.unpack(f"<{count}d", data["steps"]))
        values = struct.unpack(f"<{count * bins}f", data["values"])
        heat.columns = [list(values[i * bins : (i + 1) * bins]) for i in range(count)]
    return history


def assert_same_heats(page: Page, publisher: Publisher) -> None:
    expected = loaded(publisher.snapshot()["heats"]).heats
    assert list(page.heats.heats) == list(expected)
    for name, heat in expected.items():
        mine = page.heats.heats[name]
        assert (mine.source, mine.width, mine.points, mine.steps) == (heat.source, heat.width, heat.points, heat.steps)
        assert mine.columns == [pytest.approx(column, abs=1e-6) for column in heat.columns]  # float32 on the way


class Wire:
    """Record what was sent, serialized."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, list[bytes]]] = []

    def __call__(self, message: Any, buffers: Any) -> None:
        self.sent.append((json.loads(json.dumps(message, default=lambda b: f"<{len(b)} bytes>")), list(buffers)))

    def size(self, index: int = -1) -> int:
        message, buffers = self.sent[index]
        return len(json.dumps(message)) + sum(map(len, buffers))
