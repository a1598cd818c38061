"""What all widgets have in common: the bundle, and an end.

ipywidgets keeps every widget that is not closed, in a table and through its comm. A widget of this package is kept only
while a page shows it, or a program refers to it; otherwise it is freed with its threads, and its run with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets
from ipywidgets.widgets import widget as registry

from ..threads import close_later, start_closer
from .bundle import bundle

__all__ = ["PageWidget", "weakly"]


def weakly(method: Callable[..., object]) -> Callable[..., None]:
    """Return a function that calls a method of an object as long as that exists; it does not keep the object."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        found = reference()
        if found is not None:
            found(*args)

    return call


class PageWidget(anywidget.AnyWidget):
    """A widget that shows a part of the bundle. Subclasses fix ``part``."""

    _esm = traitlets.Unicode().tag(sync=True)

    _is_shown = False  # a class attribute, so that __del__ works if the constructor raised

    def __init__(self, **traits: Any) -> None:
        start_closer()
        super().__init__(**traits)
        self.on_msg(self._on_any_message)

    def show_on_page(self) -> None:
        """Keep the widget, because an output or a page shows it."""
        self._is_shown = True
        self._register()

    def leave_page(self) -> None:
        """Keep the widget no longer: only a program's references count."""
        self._is_shown = False
        self._register()

    def close(self) -> None:
        """Remove the widget from the page."""
        layout = None if self.comm is None else self.layout
        super().close()
        if layout is not None:
            layout.close()

    def __del__(self) -> None:
        # The garbage collector can run at any line of any thread, also of one that holds a lock which close() needs.
        close_later(self.close)

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

    def _on_any_message(self, *_: Any) -> None:
        if not self._is_shown:
            self.show_on_page()

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()
