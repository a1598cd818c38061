"""Tell whoever listens that something changed, without ever waiting for them.

The worker rings; a thread of the bell's own calls the subscribers. A subscriber that is slow, raises or never returns
costs the training nothing; changes that come while it is busy are told as one.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable

__all__ = ["Bell"]

_log = logging.getLogger(__name__)


class Bell:
    """Subscribers without arguments, called some time after :meth:`ring`, at least once after the last ring."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._rung = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify()`` after changes, until the returned function is called (any number of times)."""
        # An object of its own, so that one function subscribed twice is two subscriptions.
        entry = functools.partial(notify)
        with self._lock:
            self._subscribers.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=contextvars.copy_context().run, args=(self._serve,), daemon=True, name="mint_lab-bell"
                )
                self._thread.start()

        def dispose() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._subscribers.remove(entry)
            self._rung.set()  # the thread looks whether anyone is left

        return dispose

    def ring(self) -> None:
        """Something changed."""
        self._rung.set()

    def _serve(self) -> None:
        while True:
            self._rung.wait()
            self._rung.clear()
            with self._lock:
                subscribers = list(self._subscribers)
                if not subscribers:
                    self._thread = None
                    return
            for notify in subscribers:
                try:
                    notify()
                except Exception:
                    _log.debug("a subscriber of the run raised", exc_info=True)
