"""What every widget that shows a run has in common: the bundle, the publisher, requests, and the static fallback."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..errors import ConfigError, RunError
from ..runs.store import SavedRun
from .display import Outputs, after_each_cell, know_cells
from .documents import DOCUMENTS, document
from .pictures import picture_of_run
from .protocol import Document, Message, Samples, Snapshot, Tokens
from .publisher import Publisher
from .requests import perform, reply_to
from .wire import travels

__all__ = ["BUNDLE", "WIDGET_MIME", "RunWidget", "bundle"]

BUNDLE = Path(__file__).parent / "static" / "widgets.js"
"""The page's half, built from ``widgets/``; one file for every widget, with nothing to load later."""

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


class RunWidget(anywidget.AnyWidget):
    """Shows one run. :meth:`close` ends its thread and its subscriptions; the run goes on.

    Attributes:
        part: which widget of the bundle this is; fixed by the class.
        snapshot: see :class:`~mint_lab.ui.protocol.Snapshot`; made anew whenever it is sent, and written only here.
        tokens: see :class:`~mint_lab.ui.protocol.Tokens`: a few examples, once a page has asked for them.
        samples: see :class:`~mint_lab.ui.protocol.Samples`: of a run that keeps some, the latest.

    Raises:
        ConfigError: what is given is no run that could go on, such as a list of runs, or one read from a folder.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)
    snapshot = traitlets.Any(None).tag(sync=True, to_json=lambda _, widget: widget._picture())
    tokens = traitlets.Any(None).tag(sync=True)
    samples = traitlets.Any(None).tag(sync=True)

    # Also when the constructor raised half-way.
    _publisher: Publisher | None = None
    _forget_cells: Callable[[], None] | None = None

    def __init__(self, run: Any, *, base_model: str = "", data: str = "") -> None:
        self._outputs = Outputs()
        self._showing = threading.RLock()  # held by whoever shows another run, or something of the present one
        self._pictured = 0  # records that the picture for static readers shows
        self._base_model, self._data = base_model, data
        self._check(run)
        super().__init__()
        self.on_msg(self._on_message)
        self.show(run)

    @property
    def run(self) -> Any:
        """The run on show."""
        return self._run

    def show(self, run: Any) -> None:
        """Show ``run`` from now on, in every view there is.

        Raises:
            ConfigError: it is no run that could go on; the present one stays.
        """
        self._check(run)
        with self._showing:
            if self._publisher is not None:
                self._publisher.close()
            self._run = run
            self._pictured = 0
            self.tokens = self.samples = None
            self._publisher = Publisher(
                run,
                self._send_message,
                base_model=self._base_model,
                data=self._data,
                settled=self._on_settled,
                show_tokens=functools.partial(self._show, run, "tokens"),
                show_samples=functools.partial(self._show, run, "samples"),
            )
            self._publisher.send_snapshot()

    def close(self) -> None:
        """Take the widget out of the page and end its thread."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        if self._forget_cells is not None:
            self._forget_cells()
        super().close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._run.name!r})" if getattr(self._run, "name", None) else type(self).__name__

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, a fixed text, and once there are curves a picture of them for readers without a kernel."""
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            WIDGET_MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
        }
        if self._publisher is not None and len(self._run.records):
            bundle["image/png"] = picture_of_run(self._run, self.samples)
        return bundle, {}

    def _ipython_display_(self, **_: Any) -> None:
        """Displayed with an id, so that the picture for static readers can be brought up to date when the run ends."""
        self._outputs.add(self._repr_mimebundle_()[0])
        know_cells()
        if self._forget_cells is None:
            self._forget_cells = after_each_cell(self._on_cell_done)

    def _check(self, run: Any) -> None:
        if callable(getattr(run, "subscribe", None)):
            return
        name, found = type(self).__name__, type(run).__name__
        if isinstance(run, list | tuple):
            hint = "ml.compare trains several side by side, ml.RunTable(folder) overlays recorded ones"
        elif isinstance(run, SavedRun):
            hint = "what load_run reads is over: run.figure() draws it, and ml.RunTable(folder) shows all of its charts"
        elif hasattr(run, "runs"):
            hint = "show one of its runs: .runs[label]"
        else:
            hint = "show its run: .run" if hasattr(run, "run") else "make one with ml.Run(...)"
        raise ConfigError(f"{name} shows one run, got {found}; {hint}")

    def _picture(self) -> Snapshot | None:
        return None if self._publisher is None else self._publisher.snapshot()

    def _on_settled(self) -> None:
        """The run paused or ended: keep what a saved notebook needs to show it without a kernel."""
        with self._showing:
            self.send_state("snapshot")
            if self._run.status in ("stopped", "finished") and len(self._run.records) != self._pictured:
                count = len(self._run.records)
                self._outputs.update(self._repr_mimebundle_()[0])
                self._pictured = count

    def _on_cell_done(self) -> None:
        """A cell that waited for the run's end is the last that may show it."""
        if self._run.status in ("stopped", "finished") and len(self._run.records) != self._pictured:
            self._on_settled()

    def _send_message(self, message: Message, buffers: Sequence[bytes]) -> None:
        if self.comm is not None:
            self.send(message, list(buffers))

    def _on_message(self, _: Any, content: dict[str, Any], __: Any) -> None:
        publisher = self._publisher
        if publisher is None or not isinstance(content, dict):
            return
        if content.get("type") == "sync":
            since, epoch = content.get("since"), content.get("epoch")
            publisher.sync(since if isinstance(since, int) else -1, str(epoch))
        elif content.get("type") in DOCUMENTS:
            self._send_document(content)
        else:
            self._send_message(reply_to(content, self._perform), [])

    def _perform(self, request: Mapping[str, Any]) -> None:
        perform(self._run, request, self._ask_tokens)

    def _send_document(self, request: Mapping[str, Any]) -> None:
        texts: list[str] = []
        reply = reply_to(request, lambda asked: texts.append(document(self._run, asked)))
        if reply["error"]:
            self._send_message(reply, [])
        else:
            self._send_message(Document(type="document", request=reply["request"]), [travels(texts[0]).encode()])

    def _ask_tokens(self) -> None:
        if self._publisher is not None:
            self._publisher.ask_tokens()

    def _show(self, run: Any, trait: str, found: Tokens | Samples) -> None:
        """Something of ``run``, from the thread of its publisher, which may be that of a run that has left the page."""
        with self._showing:
            if run is self._run:
                self.set_trait(trait, found)

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()


def bundle() -> str:
    """The text of :data:`BUNDLE`.

    Raises:
        RunError: the page has not been built.
    """
    try:
        return BUNDLE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"the page has not been built: {BUNDLE} is missing; `pip install -e .` in the repository builds it"
        ) from None
