"""What every widget that shows a run has in common: the bundle, the publisher, requests, and the static fallback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..errors import RunError
from .display import Outputs
from .fallback import picture
from .protocol import Message, Snapshot
from .publisher import Publisher
from .requests import answer

__all__ = ["BUNDLE", "RunWidget"]

BUNDLE = Path(__file__).parent / "static" / "widgets.js"
"""The page's half, built from ``widgets/``; one file for every widget, with nothing to load later."""

_WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


class RunWidget(anywidget.AnyWidget):
    """Shows one run. :meth:`close` ends its thread and its subscriptions; the run goes on.

    Attributes:
        part: which widget of the bundle this is; fixed by the class.
        snapshot: see :class:`~mint_lab.ui.protocol.Snapshot`; made anew whenever it is sent, and written only here.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)
    snapshot = traitlets.Any(None).tag(sync=True, to_json=lambda _, widget: widget._picture())

    _publisher: Publisher | None = None  # also when the constructor raised half-way

    def __init__(self, run: Any, *, base_model: str = "", data: str = "") -> None:
        self._outputs = Outputs()
        self._shown_final = False
        self._base_model, self._data = base_model, data
        super().__init__()
        self.on_msg(self._on_message)
        self.show(run)

    @property
    def run(self) -> Any:
        """The run on show."""
        return self._run

    def show(self, run: Any) -> None:
        """Show ``run`` from now on, in every view there is."""
        if self._publisher is not None:
            self._publisher.close()
        self._run = run
        self._shown_final = False
        self._publisher = Publisher(
            run, self._send_message, base_model=self._base_model, data=self._data, settled=self._on_settled
        )
        self._publisher.send_snapshot()

    def close(self) -> None:
        """Take the widget out of the page and end its thread."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        super().close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._run.name!r})" if getattr(self._run, "name", None) else type(self).__name__

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, a fixed text, and once there are curves a picture of them for readers without a kernel."""
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            _WIDGET_MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
        }
        if self._publisher is not None and len(self._run.records):
            bundle["image/png"] = picture(self._publisher.snapshot())
        return bundle, {}

    def _ipython_display_(self, **_: Any) -> None:
        """Displayed with an id, so that the picture for static readers can be brought up to date when the run ends."""
        self._outputs.add(self._repr_mimebundle_()[0])

    def _picture(self) -> Snapshot | None:
        return None if self._publisher is None else self._publisher.snapshot()

    def _on_settled(self) -> None:
        """The run paused or ended: keep what a saved notebook needs to show it without a kernel."""
        self.send_state("snapshot")
        if self._run.status in ("stopped", "finished") and len(self._run.records) and not self._shown_final:
            self._shown_final = True
            self._outputs.update(self._repr_mimebundle_()[0])

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
        else:
            self._send_message(self._answer(content), [])

    def _answer(self, request: dict[str, Any]) -> Message:
        return answer(self._run, request)

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        try:
            return BUNDLE.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunError(
                f"the page has not been built: {BUNDLE} is missing; `pip install -e .` in the repository builds it"
            ) from None
