"""Turns what a page asks for into calls of the run. The page never writes state; it only asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import ConfigError, MintLabError
from .protocol import Reply

__all__ = ["Controllable", "answer", "perform"]


class Controllable(Protocol):
    """The part of a run that buttons and sliders reach."""

    def start(self) -> Any: ...
    def pause(self) -> Any: ...
    def resume(self) -> Any: ...
    def step(self, n: int = 1) -> Any: ...
    def stop(self) -> Any: ...
    def set_loss(self, loss: Any, /, **config: float) -> Any: ...
    def set(self, **settings: float) -> Any: ...


_BUTTONS = ("start", "pause", "resume", "step", "stop")


def perform(run: Controllable, request: Mapping[str, Any]) -> None:
    """Do what ``request`` asks.

    Raises:
        ConfigError: the request is of no known kind, or its value is no finite number.
        MintLabError: the run refused it.
    """
    kind = request.get("type")
    if kind in _BUTTONS:
        getattr(run, str(kind))()
    elif kind == "set_loss":
        run.set_loss(_name(request))
    elif kind == "set":
        value = request.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{_name(request)} is {value!r}, expected a number")
        run.set(**{_name(request): value})
    else:
        raise ConfigError(f"unknown request {str(kind)[:60]!r}")


def answer(run: Controllable, request: Mapping[str, Any]) -> Reply:
    """Perform ``request`` and say how it went, in one line."""
    number = request.get("request")
    reply = Reply(type="reply", request=number if isinstance(number, int) else 0, error="")
    try:
        perform(run, request)
    except MintLabError as error:
        reply["error"] = str(error)
    return reply


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{request.get('type')!r} needs a name, got {name!r}")
    return name
