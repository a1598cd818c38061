"""Notify subscribers of changes without ever waiting for them.

The training thread only sets a flag; a separate thread calls the subscribers. A subscriber that is slow, raises or
never returns costs the training nothing. Changes that come while it is busy reach it as one notification.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable

from ..threads import OwnedLock, PackageThread, ProcessExit

__all__ = ["ChangeNotifier"]

_log = logging.getLogger(__name__)


class ChangeNotifier:
    """Calls subscribers, which take no arguments, after :meth:`notify`; at least once after its last call."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []
        self._lock = OwnedLock("this run")
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback()`` after changes, until the returned function is called (once or several times)."""
        # A new object for each subscription, so that one function can be subscribed twice.
        subscription = functools.partial(callback)
        with self._lock:
            if self._thread is None:
                thread = PackageThread(self._serve, "mint_lab-notifier", end=self._end)
                thread.start()  # if the system allows no further thread, nothing has changed
                self._thread = thread
            self._subscribers.append(subscription)

        def dispose() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._subscribers.remove(subscription)
            self._changed.set()  # the thread checks whether a subscriber is left

        return dispose

    def notify(self) -> None:
        """Report a change; returns at once."""
        self._changed.set()

    def _end(self) -> None:
        with self._lock:
            self._subscribers.clear()
        self._changed.set()

    def _serve(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                subscribers = list(self._subscribers)
                if not subscribers:
                    self._thread = None
                    return
            for callback in subscribers:
                try:
                    callback()
                except ProcessExit:
                    raise
                except BaseException:  # also a SystemExit, which would end the calls of all others
                    _log.debug("a subscriber of the run raised", exc_info=True)
