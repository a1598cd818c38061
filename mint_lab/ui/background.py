"""What a page requests and that takes long, such as a rewind: done on a separate thread, one request at a time."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable

from ..errors import ConfigError, MintLabError
from ..threads import PackageThread
from .state import Activity

__all__ = ["Background"]

_log = logging.getLogger(__name__)


class Background:
    """Does one job at a time on a thread of its own, so that the kernel can execute cells meanwhile.

    Args:
        on_change: Called when a job begins or ends, from any thread.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._activity = Activity()
        self._lock = threading.Lock()

    def activity(self) -> Activity:
        """Return what is being done, and why the last job failed."""
        return self._activity

    def forget_error(self) -> None:
        """Forget why the last job failed: a person does something else now."""
        if self._activity.error and self._lock.acquire(blocking=False):
            self._end("")
            self._on_change()

    def start(self, text: str, job: Callable[[], object]) -> None:
        """Begin a job and return.

        Args:
            text: What it does, for the page.
            job: Called on the thread. The page shows the error that it raises.

        Raises:
            ConfigError: If another job is in progress.
        """
        if not self._lock.acquire(blocking=False):
            raise ConfigError(f"{self._activity.text.rstrip('…')}. Wait until that is done")
        try:
            self._activity = Activity(text)
            PackageThread(functools.partial(self._do, job), "mint_lab request").start()
        except BaseException:
            self._end("")
            raise
        self._on_change()

    def _do(self, job: Callable[[], object]) -> None:
        error_text = ""
        try:
            job()
        except MintLabError as error:
            error_text = str(error)
        except BaseException as error:  # a bug in this package, or a SystemExit of a loss: the page waits for the end
            _log.exception("a page's request failed")
            error_text = f"{type(error).__name__}: {error}".rstrip(": ")
        finally:
            self._end(error_text)
        self._on_change()

    def _end(self, error_text: str) -> None:
        self._activity = Activity("", error_text)
        self._lock.release()
