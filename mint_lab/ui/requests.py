"""Requests of a page: to change a run, or for a text. Only the kernel changes the state of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..errors import ConfigError, MintLabError
from ..losses import LOSSES
from ..usercode.cell_source import cell_from
from .messages import Reply
from .state import RunLike
from .utf8 import as_utf8

__all__ = [
    "TEXT_REQUESTS",
    "Controllable",
    "perform",
    "reply_to",
    "requested_step",
    "requested_text",
    "unknown_request",
]

TEXT_REQUESTS = ("cell", "csv", "figure")
"""Requests that :func:`requested_text` answers."""

BUTTONS = ("start", "pause", "resume", "step", "stop")

_log = logging.getLogger(__name__)


class Controllable(Protocol):
    """The part of a run that buttons and sliders use."""

    def start(self) -> Any: ...
    def pause(self) -> Any: ...
    def resume(self) -> Any: ...
    def step(self, n: int = 1) -> Any: ...
    def stop(self) -> Any: ...
    def set_loss(self, loss: Any, /, **config: float) -> Any: ...
    def set(self, /, **settings: float) -> Any: ...


def perform(
    run: Controllable,
    request: Mapping[str, Any],
    request_tokens: Callable[[], None] | None = None,
    request_data: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Perform a request that changes the run, or that asks for tokens or data.

    Args:
        run: The run.
        request: The request.
        request_tokens: Called for a request of tokens; None refuses it.
        request_data: Called with a request of data; None refuses it.

    Raises:
        ConfigError: If the kind of the request is unknown, or its value is not a number.
        MintLabError: If the run refuses it.
    """
    kind = request.get("type")
    if kind in BUTTONS:
        getattr(run, str(kind))()
    elif kind == "tokens" and request_tokens is not None:
        request_tokens()
    elif kind == "data" and request_data is not None:
        request_data(request)
    elif kind == "set_loss":
        run.set_loss(_name(request))
    elif kind == "set":
        value = request.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{_name(request)} is {value!r}, expected a number")
        run.set(**{_name(request): value})
    else:
        raise unknown_request(kind)


def requested_step(request: Mapping[str, Any]) -> int:
    """Return the step of a "rewind" or "fork" request.

    Raises:
        ConfigError: If it is not a whole number from 0 up.
    """
    step = request.get("step")
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ConfigError(f"{request.get('type')!r} needs a step from 0 up, got {step!r}")
    return step


def requested_text(run: RunLike, request: Mapping[str, Any]) -> str:
    """Return the text that a request, one of :data:`TEXT_REQUESTS`, asks for.

    - "cell": a ``%%loss`` cell that computes the same as the loss ``name``.
    - "csv": one row per step, as ``run.history``.
    - "figure": ``run.figure()`` as JSON, which ``plotly.io.from_json`` reads.

    Raises:
        ConfigError: If there is no such loss, its source cannot be copied, or the request is of another kind.
    """
    kind = request.get("type")
    if kind == "cell":
        return cell_from(LOSSES[str(request.get("name"))])
    if kind == "csv":
        from ..runs.store import history_frame

        return history_frame(list(run.records)).to_csv()
    if kind == "figure":
        from ..runs.figure import draw_run
        from ..runs.store import load_parent

        return str(draw_run(run.recipe, run, load_parent(run.parent)).to_json())
    raise unknown_request(kind)


def reply_to(request: Mapping[str, Any], do: Callable[[Mapping[str, Any]], object]) -> Reply:
    """Call ``do(request)`` and return whether it succeeded, with the reason if it did not.

    There is a reply whatever happens, because the page waits for one. An error that is not of this package is a bug in
    this package, so it is logged as well.
    """
    error_text = ""
    try:
        do(request)
    except MintLabError as error:
        error_text = str(error)
    except Exception as error:
        _log.exception("a page's request %r failed", request.get("type"))
        error_text = f"{type(error).__name__}: {error}".rstrip(": ")
    return Reply(type="reply", request=_number(request), error=as_utf8(error_text))


def unknown_request(kind: object) -> ConfigError:
    """Return the error for a request whose kind does not exist."""
    return ConfigError(f"unknown request {str(kind)[:60]!r}")


def _number(request: Mapping[str, Any]) -> int:
    """Return the number under which the page waits for a reply; 0 if the request has none."""
    number = request.get("request")
    return number if isinstance(number, int) else 0


def _name(request: Mapping[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{request.get('type')!r} needs a name, got {name!r}")
    return name
