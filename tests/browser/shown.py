"""A page that shows a widget, in whatever host, and what it complained about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.waiting import TIMEOUT, until

__all__ = ["Shown"]

FRAMES = """(count) => new Promise((resolve) => {
  const next = (left) => left > 0 ? requestAnimationFrame(() => next(left - 1)) : resolve();
  next(count); })"""

# All that a person sees of the widgets; and whether charts have fewer steps than the run beside them, which rests.
PICTURE = """() => { const views = [...document.querySelectorAll(".mint-lab")];
  const parts = (view) => [...view.querySelectorAll("[data-points], svg")];
  const behind = (view) => { const charts = view.querySelector(".ml-charts:not(.ml-overlay)");
    const status = view.querySelector(".ml-status"), bar = view.querySelector(".ml-bar [role=progressbar]");
    return Boolean(charts?.dataset.seen && status && bar) && status.dataset.status !== "running"
      && Number(charts.dataset.seen) < Number(bar.getAttribute("aria-valuenow")); };
  return [views.map((view) =>
    [view.innerText, ...parts(view).map((part) => part.dataset.points ?? part.innerHTML)].join("|")),
    views.some(behind)]; }"""


@dataclass
class Shown:
    """The page, the widget on it, and its complaints: errors on the console or that nobody caught, outside requests."""

    page: Page
    url: str
    name: str
    complaints: list[str] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    """Words of errors that are not ours, whenever they come."""

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_error)
        self.page.on("request", self._on_request)

    def stop_listening(self) -> None:
        """The page belongs to another test from now on."""
        self.page.remove_listener("console", self._on_console)
        self.page.remove_listener("pageerror", self._on_error)
        self.page.remove_listener("request", self._on_request)

    def evaluate(self, source: str, timeout: float = TIMEOUT, argument: Any = None) -> Any:
        """``source``, a JavaScript function, called with ``argument``; fails after ``timeout`` seconds."""
        return self.page.evaluate(
            """async ([source, seconds, argument]) => Promise.race([
                 Promise.resolve((0, eval)("(" + source + ")")(argument)),
                 new Promise((_, reject) => setTimeout(
                   () => reject(new Error("took too long: " + source.slice(0, 80))), seconds * 1000))])""",
            [source, timeout, argument],
        )

    def received(self) -> dict[str, int]:
        """Messages and bytes that came over the kernel's websocket since the page loaded."""
        return self.page.evaluate("() => ({ ...window.__received })")

    @property
    def widget(self) -> Locator:
        return self.page.locator(".mint-lab").first

    def chart(self, name: str) -> Locator:
        return self.widget.locator(f"[data-name='{name}']")

    def scroll_to_output(self) -> None:
        """Scroll the cell of the widget to the top of the window."""
        self.widget.evaluate("(widget) => widget.closest('.jp-Cell').scrollIntoView({ block: 'start' })")

    def click_step(self, name: str, step: int) -> None:
        """Click a step in a chart, in the middle of its height."""
        place = (
            self.chart(name)
            .locator(".ml-plot")
            .evaluate(
                """(plot, step) => { const axis = plot._fullLayout.xaxis, box = plot.getBoundingClientRect();
                 return [box.left + axis._offset + axis.d2p(step), box.top + box.height / 2]; }""",
                step,
            )
        )
        self.page.mouse.click(*place)

    def points(self, name: str) -> int:
        return int(self.chart(name).get_attribute("data-points") or 0)

    def await_points(self, name: str, at_least: int, timeout: float = 600) -> int:
        """Wait until a chart has at least so many points; return the number seen. It may be redrawn right after."""
        try:
            found = self.page.wait_for_function(
                """([name, wanted]) => { const found = [...document.querySelectorAll(`.mint-lab [data-name="${name}"]`)]
                     .map((chart) => Number(chart.dataset.points)).filter((points) => points >= wanted);
                     return found.length > 0 && found; }""",
                arg=[name, at_least],
                timeout=1000 * timeout,
            )
        except PlaywrightTimeout as error:
            raise AssertionError(f"{name} has not {at_least} points after {timeout} s; {self.seen()}") from error
        return found.json_value()[0]

    def await_that(self, holds: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
        """Wait until ``holds()``: for what another frame draws, or another message tells, than what was seen."""
        until(holds, lambda: f"not so: {what}; {self.seen()}", pause=lambda: self.await_frames(3), limit=timeout)

    def await_frames(self, count: int = 24) -> None:
        """Let the page draw so often, however long it takes: enough for every chart of a grid, drawn one a frame."""
        self.page.evaluate(FRAMES, count)

    def await_status(self, status: str, timeout: float = 600) -> None:
        try:
            self.widget.locator(f".ml-status[data-status='{status}']").wait_for(timeout=1000 * timeout)
        except PlaywrightTimeout as error:
            raise AssertionError(f"the run is not {status} after {timeout} s; {self.seen()}") from error

    def await_still(self, frames: int = 48) -> None:
        """Wait until no curve, number of points or word of the page has changed for so many frames, and the charts of a
        run that rests have all of its steps.

        Frames and not seconds: a busy machine draws fewer of them, and a page lags behind its run by more there.
        """
        seen, unchanged = None, 0

        def is_still() -> bool:
            nonlocal seen, unchanged
            self.await_frames(8)
            now, behind = self.page.evaluate(PICTURE)
            unchanged = unchanged + 8 if now == seen else 0
            seen = now
            return unchanged >= frames and not behind

        until(is_still, lambda: f"the page still changes, or is behind; {self.seen()}", pause=lambda: None)

    def press(self, key: str, times: int) -> None:
        """Press a key so often in a row. A page that knows by a pause of 250 ms that the row is over waits for longer
        here: a busy machine may take as much for one key.
        """
        self.page.evaluate(
            """() => { const real = window.setTimeout;
                 window.setTimeout = (call, delay, ...given) => real(call, delay === 250 ? 5000 : delay, ...given);
                 window.quick = () => { window.setTimeout = real; }; }"""
        )
        for _ in range(times):
            self.page.keyboard.press(key)
        self.page.evaluate("() => window.quick()")

    def seen(self) -> str:
        """What a person would see: for the message of a test that waited in vain."""
        text = self.page.locator("body").inner_text()
        return f"messages {self.received()}, complaints {self.complaints}, the page says:\n{text[-4000:]}"

    def drawn(self) -> dict[str, list[str]]:
        """Every curve and bar as drawn: the SVG paths, by chart."""
        return self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll(".mint-lab .ml-chart")].map((chart) =>
                 [chart.dataset.name, [...chart.querySelectorAll(".scatterlayer path, .barlayer path")]
                   .map((path) => path.getAttribute("d") + path.style.stroke + path.style.fill)]))"""
        )

    def button(self, name: str) -> Locator:
        return self.widget.get_by_role("button", name=name, exact=True)

    @property
    def _origin(self) -> str:
        return "{0.scheme}://{0.netloc}/".format(urlsplit(self.url))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(words in message.text for words in self.ignored):
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_error(self, error: Error) -> None:
        self.complaints.append(f"uncaught: {error}")

    def _on_request(self, request: Request) -> None:
        # Also one that nobody answers.
        if request.url.startswith("http") and not request.url.startswith(self._origin):
            self.complaints.append(f"outside request: {request.url}")
