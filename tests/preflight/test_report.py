"""The report as text and as HTML, and the time of a call."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from mint_lab.preflight import Report, ReportLine, preflight
from mint_lab.preflight.report import MAX_PRINTED_LINES
from mint_lab.types import Datum

from .four_pairs import four_pairs, total


@pytest.fixture(scope="module")
def data() -> list[Datum]:
    return four_pairs()


def test_html_escapes_and_tells_the_cost(data: list[Datum]) -> None:
    def fn(d: Any, lps: Any) -> Any:
        print("<script>alert(1)</script>")
        return total(lps), {"<b>": 1.0}

    report = preflight(fn, data)
    page = report._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;" in page
    assert "A call took " in page
    assert "took" not in repr(report)
    assert repr(report).endswith("  | <script>alert(1)</script>")


def test_html_has_a_row_a_check_with_its_verdict_and_no_cost_of_a_failure(data: list[Datum]) -> None:
    def fn(d: Any, lps: Any) -> Any:
        return total(lps).detach(), {}

    report = preflight(fn, data)
    page = report.to_html()
    found = re.findall(r'aria-label="(\w+)"', page)
    assert found == [line.verdict for line in report.lines]
    assert found[-1] == "fail"
    assert f"→ {report.lines[-1].fix}" in html.unescape(page)
    assert report.cost == ""
    assert "A call took" not in page


def test_text_has_a_head_a_line_each_and_what_was_printed() -> None:
    lines = (
        ReportLine("loss", "ok", "a finite scalar, 1"),
        ReportLine("pairs", "warn", "look swapped", "turn the sign"),
    )
    report = Report(lines, printed="".join(f"{i}\n" for i in range(MAX_PRINTED_LINES + 1)))
    assert repr(report).splitlines() == [
        "preflight: ok, 1 to look at",
        "ok    loss                a finite scalar, 1",
        "warn  pairs               look swapped -> turn the sign",
        *(f"  | {i}" for i in range(MAX_PRINTED_LINES)),
        "  | ...",
    ]
    assert report.ok
    assert not Report((*lines, ReportLine("time", "fail", "did not return"))).ok
    assert repr(Report((ReportLine("time", "fail", "did not return"),))).startswith("preflight: 1 failed\nFAIL  time")


@pytest.mark.parametrize(
    ("seconds", "model_seconds", "text"),
    [
        (None, None, ""),
        (0.0123, None, "A call took 12.30 ms."),
        (0.5, 2.0, "A call took 500.00 ms; the model's forward pass over the same datums, 2.00 s."),
    ],
)
def test_cost_of_a_call(seconds: float | None, model_seconds: float | None, text: str) -> None:
    assert Report((), seconds=seconds, model_seconds=model_seconds).cost == text
