"""A page that shows a widget, in whatever host, and what it complained about."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, Request
from playwright.sync_api import TimeoutError as PlaywrightTimeout

__all__ = ["Shown"]


@dataclass
class Shown:
    """The page, the widget on it, and its complaints: errors on the console or that nobody caught, outside requests."""

    page: Page
    url: str
    name: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("request", self._on_request)

    def evaluate(self, source: str, timeout: float = 30, argument: Any = None) -> Any:
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

    def points(self, name: str) -> int:
        return int(self.chart(name).get_attribute("data-points") or 0)

    def await_points(self, name: str, at_least: int, timeout: float = 60) -> int:
        try:
            self.page.wait_for_function(
                """([name, wanted]) => [...document.querySelectorAll(`.mint-lab [data-name="${name}"]`)]
                     .some((chart) => Number(chart.dataset.points) >= wanted)""",
                arg=[name, at_least],
                timeout=1000 * timeout,
            )
        except PlaywrightTimeout as error:
            raise AssertionError(f"{name} has not {at_least} points after {timeout} s; {self.seen()}") from error
        return self.points(name)

    def await_status(self, status: str, timeout: float = 60) -> None:
        try:
            self.widget.locator(f".ml-status[data-status='{status}']").wait_for(timeout=1000 * timeout)
        except PlaywrightTimeout as error:
            raise AssertionError(f"the run is not {status} after {timeout} s; {self.seen()}") from error

    def await_still(self, seconds: float = 0.8, timeout: float = 30) -> None:
        """Wait until no curve, number of points or word of the page has changed for ``seconds``.

        A page may lag behind its run, by more on a busy machine than any fixed pause would cover.
        """
        began = changed = time.monotonic()
        seen = None
        while time.monotonic() - changed < seconds:
            now = self.page.locator(".mint-lab").evaluate_all(
                """(views) => views.map((view) => [view.innerText, ...[...view.querySelectorAll("[data-points], svg")]
                     .map((part) => part.dataset.points ?? part.innerHTML)].join("|"))"""
            )
            if now != seen:
                seen, changed = now, time.monotonic()
            if changed - began > timeout:
                raise AssertionError(f"the page still changes after {timeout} s; {self.seen()}")
            self.page.wait_for_timeout(100)

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
        if message.type == "error":
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        # Also one that nobody answers.
        if request.url.startswith("http") and not request.url.startswith(self._origin):
            self.complaints.append(f"outside request: {request.url}")
