"""What all widgets have in common: the bundle, and an end.

ipywidgets keeps every widget that is not closed, in a table and through its comm. A widget of this package is kept only
while a page shows it, or a program refers to it; otherwise it is freed with its threads, and its run with it. The last
widget that was removed from its page is kept, because the removal can be undone.

A widget with controls does not train unseen: if its cell is run again, or its output is removed, or it is closed, it
pauses what it trains.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets
from ipywidgets.widgets import widget as registry

from ..threads import close_later, start_closer
from .bundle import bundle
from .display import Execution, current_execution, forget_output

__all__ = ["PageWidget", "pause_run", "weakly"]

UNSEEN, SEEN = "unseen", "seen"  # messages of a page that has removed the last view, or shows one again

_removed: deque[PageWidget] = deque(maxlen=1)
_controls: list[tuple[Execution, weakref.ref[PageWidget]]] = []  # widgets with controls, by the cell that made them


def weakly(method: Callable[..., object]) -> Callable[..., None]:
    """Return a function that calls a method of an object as long as that exists; it does not keep the object."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        found = reference()
        if found is not None:
            found(*args)

    return call


def pause_run(run: Any, why: str) -> bool:
    """Pause a run if it is running, and add the reason to its notes; return whether it was running."""
    if run.status != "running":
        return False
    run.notes.append(f"Paused after {run.steps_done} steps, because {why}.")
    run.pause()
    return True


class PageWidget(anywidget.AnyWidget):
    """A widget that shows a part of the bundle. Subclasses fix ``part``."""

    _esm = traitlets.Unicode().tag(sync=True)

    _is_shown = False  # a class attribute, so that __del__ works if the constructor raised
    _is_replaced = False  # its cell was run again: it has paused what it trains, which the new page may have continued

    def __init__(self, **traits: Any) -> None:
        start_closer()
        super().__init__(**traits)
        self.on_msg(self._on_any_message)

    def show_on_page(self) -> None:
        """Keep the widget, because an output or a page shows it."""
        self._is_shown, self._is_replaced = True, False
        if self in _removed:
            _removed.remove(self)
        self._register()

    def leave_page(self) -> None:
        """Pause what the widget trains, and keep the widget no longer: only a program's references count."""
        self._is_shown = False
        _removed.append(self)
        forget_output(self)
        self._register()
        if not self._is_replaced:
            self.pause_unseen("its output was removed")

    def pause_unseen(self, why: str) -> None:
        """Pause what the widget trains, with the reason as a note of the run; nothing if the widget has no controls.

        Args:
            why: The end of a sentence that begins with "Paused, because".
        """

    def replace_earlier(self) -> list[PageWidget]:
        """Pause what earlier executions of the running cell train, and return their widgets, the latest first.

        Several widgets that one execution creates do not replace each other.
        """
        execution = current_execution()
        if execution is None:
            return []
        known = [(made, page) for made, reference in _controls if (page := reference()) is not None]
        earlier = [page for made, page in known if made.cell == execution.cell and made.request != execution.request]
        _controls[:] = [(made, weakref.ref(page)) for made, page in known if page not in earlier]
        _controls.append((execution, weakref.ref(self)))
        for page in earlier:
            page.pause_unseen("its cell was run again")
            page._is_replaced = True
        return earlier[::-1]

    def close(self) -> None:
        """Remove the widget from the page; one with controls pauses what it trains."""
        self.pause_unseen("its page was closed")
        self._end()

    def _end(self) -> None:
        if self in _removed:
            _removed.remove(self)
        layout = None if self.comm is None else self.layout
        super().close()
        if layout is not None:
            layout.close()

    def __del__(self) -> None:
        # The garbage collector can run at any line of any thread, also of one that holds a lock which close() needs.
        close_later(self._end)

    @traitlets.observe("comm")
    def _comm_changed(self, change: Any) -> None:
        super()._comm_changed(change)
        if self.comm is not None:
            self.comm.on_msg(weakly(self._handle_msg))
            self._register()

    def _register(self) -> None:
        """Put the widget into the table of ipywidgets, which describes it to a page that is loaded again."""
        if self.comm is not None:
            entry: Any = self if self._is_shown else weakref.proxy(self)
            registry._instances[self.model_id] = entry  # pyright: ignore[reportPrivateUsage]

    def _on_any_message(self, _: Any, content: Any, __: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == UNSEEN:
            self.leave_page()
            return
        if not self._is_shown:
            self.show_on_page()
        if isinstance(content, dict) and kind != SEEN:
            self._on_message(content)

    def _on_message(self, content: dict[str, Any]) -> None:
        """Handle a message of a page; a widget that expects none ignores it."""

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()
