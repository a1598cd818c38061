"""The page's end of a widget's channel, which records every message."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["Comm", "comms"]


class Comm:
    """A channel to a page that records what is sent."""

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
        """Contents of the custom messages so far."""
        return [data["content"] for data, _ in self.sent if data["method"] == "custom"]

    def ask(self, **request: Any) -> list[Any]:
        """Send a request as a page does; return the messages that answer it at once."""
        before = len(self.custom)
        self.receive({"content": {"data": {"method": "custom", "content": request}}, "buffers": []})
        return self.custom[before:]


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> list[Comm]:
    """The channel of each widget that the test creates, in order."""
    created: list[Comm] = []

    def create(**options: Any) -> Comm:
        comm = Comm(**options)
        if "part" in comm.opened["state"]:  # not the channel of the widget's layout
            created.append(comm)
        return comm

    monkeypatch.setattr("comm.create_comm", create)
    return created
