"""Turns what a page asks for into calls of the run. The page never writes state; it only asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..errors import ConfigError, MintLabError
from .protocol import Reply
from .wire import travels

__all__ = ["Controllable", "perform", "reply_to"]

_log = logging.getLogger(__name__)


class Controllable(Protocol):
    """The part of a run that buttons and sliders reach."""

    def start(self) -> Any: ...
    def pause(self) -> Any: ...
    def resume(self) -> Any: ...
    def step(self, n: int = 1) -> Any: ...
    def stop(self) -> Any: ...
    def set_loss(self, loss: Any, /, **config: float) -> Any: ...
    def set(self, /, **settings: float) -> Any: ...


_BUTTONS = ("start", "pause", "resume", "step", "stop")


def perform(run: Controllable, request: Mapping[str, Any], show_tokens: Callable[[], None] | None = None) -> None:
    """Do what ``request`` asks; ``show_tokens`` is what there is to do for a page that wants tokens.

    Raises:
        ConfigError: the request is of no known kind, or its value is no finite number.
        MintLabError: the run refused it.
    """
    kind = request.get("type")
    if kind in _BUTTONS:
        getattr(run, str(kind))()
    elif kind == "tokens" and show_tokens is not None:
        show_tokens()
    elif kind == "set_loss":
        run.set_loss(_name(request))
    elif kind == "set":
        value = request.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{_name(request)} is {value!r}, expected a number")
        run.set(**{_name(request): value})
    else:
        raise ConfigError(f"unknown request {str(kind)[:60]!r}")


def reply_to(request: Mapping[str, Any], do: Callable[[Mapping[str, Any]], object]) -> Reply:
    """``do(request)``, and in one line how that went. Whatever happens there is a reply, for the page waits for one.

    An error that is not of this package is one in it, and is logged.
    """
    refused = ""
    try:
        do(request)
    except MintLabError as error:
        refused = str(error)
    except Exception as error:
        _log.exception("a page's request %r failed", request.get("type"))
        refused = f"{type(error).__name__}: {error}".rstrip(": ")
    return Reply(type="reply", request=_number(request), error=travels(refused))


def _number(request: Mapping[str, Any]) -> int:
    """Under which the page waits for an answer; 0 where it gave none."""
    number = request.get("request")
    return number if isinstance(number, int) else 0


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{request.get('type')!r} needs a name, got {name!r}")
    return name
