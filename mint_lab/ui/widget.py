"""What all widgets that show a run have in common: the bundle, the publisher, requests, and the static picture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import traitlets

from ..errors import ConfigError
from ..losses import LOSSES
from ..runs.store import SavedRun
from ..threads import OwnedLock
from .background import Background
from .bundle import widget_view
from .data_inspection import DataInspection
from .data_messages import DataReport
from .display import Outputs, after_each_cell, load_cell_magics
from .loss_catalogue import loss_catalogue
from .messages import Document, Losses, Message, Samples, Snapshot, Tokens
from .page_widget import PageWidget, weakly
from .pictures import picture_of_run
from .publisher import Publisher
from .requests import TEXT_REQUESTS, perform, reply_to, requested_step, requested_text
from .utf8 import as_utf8

__all__ = ["RunWidget"]


class RunWidget(PageWidget):
    """Show one run. :meth:`close` ends the widget's thread and subscriptions.

    Attributes:
        part: The widget of the bundle; fixed by the class.
        snapshot: See :class:`~mint_lab.ui.messages.Snapshot`; computed whenever it is sent, and set only by the kernel.
        tokens: See :class:`~mint_lab.ui.messages.Tokens`: a few examples, after a page has requested them.
        samples: See :class:`~mint_lab.ui.messages.Samples`: the latest responses, if the run stores any.
        audit: See :class:`~mint_lab.ui.data_messages.DataReport`: the data of the run, after a page has requested them.

    Raises:
        ConfigError: If ``run`` is not a run that can be trained, but for example a list, or a run read from a folder.
    """

    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)
    snapshot = traitlets.Any(None).tag(sync=True, to_json=lambda _, widget: widget._snapshot())
    tokens = traitlets.Any(None).tag(sync=True)
    samples = traitlets.Any(None).tag(sync=True)
    audit = traitlets.Any(None).tag(sync=True)

    _has_loss_picker: ClassVar[bool] = False

    # Class attributes, so that close() works if the constructor raised.
    _publisher: Publisher | None = None
    _end_cell_calls: Callable[[], None] | None = None
    _end_loss_calls: Callable[[], None] | None = None

    def __init__(self, run: Any, *, base_model: str = "", data: str = "") -> None:
        self._outputs = Outputs()
        self._show_lock = OwnedLock("this page")  # held while the run changes, and while something of the run is shown
        self._pictured = (0, 0)  # rewinds and steps in the picture for readers without a kernel
        self._background = Background(weakly(self._wake))
        self._base_model, self._data = base_model, data
        self._check_run(run)
        super().__init__()
        self.show(run)
        if self._has_loss_picker:
            self._end_loss_calls = LOSSES.subscribe(weakly(self._send_losses))

    @property
    def run(self) -> Any:
        """The run that the widget shows."""
        return self._run

    def show(self, run: Any) -> None:
        """Show ``run`` in all views, in place of the present one.

        Raises:
            ConfigError: If ``run`` is not a run that can be trained; the widget keeps showing the present one.
        """
        self._check_run(run)
        with self._show_lock:
            if self._publisher is not None:
                self._publisher.close()
            self._run = run
            self._pictured = (0, 0)
            self.tokens = self.samples = self.audit = None
            self._inspection = DataInspection(run, functools.partial(weakly(self._set_trait_of), run, "audit"))
            self._publisher = Publisher(
                run,
                weakly(self._send_message),
                base_model=self._base_model,
                data=self._data,
                on_idle=weakly(self._on_idle),
                on_tokens=functools.partial(weakly(self._set_trait_of), run, "tokens"),
                on_samples=functools.partial(weakly(self._set_trait_of), run, "samples"),
                on_rewind=functools.partial(weakly(self._forget_examples), run),
                activity=self._background.activity,
            )
            self._publisher.send_snapshot()

    def _end(self) -> None:
        if self._end_loss_calls is not None:
            self._end_loss_calls()
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        if self._end_cell_calls is not None:
            self._end_cell_calls()
        super()._end()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._run.name!r})" if getattr(self._run, "name", None) else type(self).__name__

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget, a text, and once there are curves their picture for readers without a kernel."""
        mimebundle: dict[str, Any] = {"text/plain": repr(self), **widget_view(self.model_id)}
        if self._publisher is not None and len(self._run.records):
            mimebundle["image/png"] = picture_of_run(self._run, self.samples)
        return mimebundle, {}

    def _ipython_display_(self, **_: Any) -> None:
        """Display with an id, so that the picture for readers without a kernel can be updated when the run ends."""
        self._outputs.add(self._repr_mimebundle_()[0])
        load_cell_magics()
        self.show_on_page()
        if self._end_cell_calls is None:
            self._end_cell_calls = after_each_cell(weakly(self._on_cell_done))

    def _check_run(self, run: Any) -> None:
        if callable(getattr(run, "subscribe", None)):
            return
        if isinstance(run, list | tuple):
            hint = "ml.compare trains several side by side, ml.RunTable(folder) overlays recorded ones"
        elif isinstance(run, SavedRun):
            hint = "what load_run reads has ended: run.figure() draws it, and ml.RunTable(folder) shows all its charts"
        elif hasattr(run, "runs"):
            hint = "show one of its runs: .runs[label]"
        else:
            hint = "show its run: .run" if hasattr(run, "run") else "make one with ml.Run(...)"
        raise ConfigError(f"{type(self).__name__} shows one run, got {type(run).__name__}; {hint}")

    def _snapshot(self) -> Snapshot | None:
        return None if self._publisher is None else self._publisher.snapshot()

    def _on_idle(self) -> None:
        """Store what a saved notebook shows without a kernel; called when the run has paused or ended."""
        with self._show_lock:
            self.send_state("snapshot")
            if self._is_picture_outdated():
                pictured = self._progress()
                self._outputs.update(self._repr_mimebundle_()[0])
                self._pictured = pictured

    def _on_cell_done(self) -> None:
        """Update the picture; a cell that waited for the end of the run can be the last one of a notebook."""
        if self._is_picture_outdated():
            self._on_idle()

    def _is_picture_outdated(self) -> bool:
        return self._run.status in ("stopped", "finished") and self._progress() != self._pictured

    def _progress(self) -> tuple[int, int]:
        return len(self._run.rewinds), len(self._run.records)

    def _send_message(self, message: Message, buffers: Sequence[bytes]) -> None:
        if self.comm is not None:
            self.send(message, list(buffers))

    def _send_losses(self, _: object) -> None:
        self._send_message(Losses(type="losses", losses=loss_catalogue(self.run.data_kind)), [])

    def _on_message(self, content: dict[str, Any]) -> None:
        publisher = self._publisher
        if publisher is None:
            return
        if content.get("type") == "sync":
            since, epoch = content.get("since"), content.get("epoch")
            publisher.sync(since if isinstance(since, int) else -1, str(epoch))
        elif content.get("type") in TEXT_REQUESTS:
            self._send_document(content)
        else:
            self._background.forget_error()
            self._send_message(reply_to(content, self._perform), [])

    def _perform(self, request: Mapping[str, Any]) -> None:
        if request.get("type") == "rewind":
            self._rewind(requested_step(request))
            return
        perform(self._run, request, self._request_tokens, self._inspection.request)

    def _send_document(self, request: Mapping[str, Any]) -> None:
        texts: list[str] = []
        reply = reply_to(request, lambda request: texts.append(requested_text(self._run, request)))
        if reply["error"]:
            self._send_message(reply, [])
        else:
            self._send_message(Document(type="document", request=reply["request"]), [as_utf8(texts[0]).encode()])

    def _rewind(self, step: int) -> None:
        """Return to the state after ``step`` without waiting for it."""
        run = self._run
        text = f"Returning to step {step}: steps after the snapshot before it are computed again…"
        self._background.start(text, lambda: run.rewind(step))

    def _wake(self) -> None:
        publisher = self._publisher
        if publisher is not None:
            publisher.wake()

    def _forget_examples(self, run: Any) -> None:
        """Remove tokens and responses of ``run``, which is at an earlier step now, from the page."""
        with self._show_lock:
            if run is self._run:
                self.tokens = self.samples = None

    def _request_tokens(self) -> None:
        if self._publisher is not None:
            self._publisher.request_tokens()

    def _set_trait_of(self, run: Any, trait: str, message: Tokens | Samples | DataReport) -> None:
        """Show tokens, samples or data of ``run``, unless the widget shows another run by now.

        The threads that compute them call this.
        """
        with self._show_lock:
            if run is self._run:
                self.set_trait(trait, message)
