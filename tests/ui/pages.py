"""A page's end of the channel, which remembers what went through."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["Comm", "comms"]


class Comm:
    """A channel to a page that remembers what went through."""

    comm_id = "a-page"

    def __init__(self, data: Any = None, buffers: Any = None, **_: Any) -> None:
        self.opened, self.sent, self.closed = data, [], False

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        assert not self.closed
        self.sent.append((data, buffers or []))

    def on_msg(self, callback: Any) -> None:
        self.receive = callback

    def close(self, *_: Any, **__: Any) -> None:
        self.closed = True

    @property
    def custom(self) -> list[Any]:
        return [data["content"] for data, _ in self.sent if data["method"] == "custom"]

    def ask(self, **request: Any) -> list[Any]:
        before = len(self.custom)
        self.receive({"content": {"data": {"method": "custom", "content": request}}, "buffers": []})
        return self.custom[before:]


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> list[Comm]:
    made: list[Comm] = []

    def create(**options: Any) -> Comm:
        comm = Comm(**options)
        if "part" in comm.opened["state"]:  # and not that of the widget's layout
            made.append(comm)
        return comm

    monkeypatch.setattr("comm.create_comm", create)
    return made
