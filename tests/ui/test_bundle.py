"""The bundle of the page: sent with each widget, complete, and an error with the command if it was not built."""

from __future__ import annotations

from typing import Any

import pytest

from mint_lab.errors import RunError
from mint_lab.ui.bundle import BUNDLE
from mint_lab.ui.parts import LiveCharts
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun

__all__ = ["comms"]


def test_bundle_is_sent_with_the_widget(comms: list[Comm]) -> None:
    charts = LiveCharts(ScriptedRun())
    state = comms[0].opened["state"]
    assert state["_esm"] == BUNDLE.read_text(encoding="utf-8")
    assert state["part"] == "live_charts"
    charts.close()


def test_page_that_was_not_built_is_an_error_with_the_command(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("mint_lab.ui.bundle.BUNDLE", tmp_path / "widgets.js")
    with pytest.raises(RunError, match="pip install -e"):
        LiveCharts(ScriptedRun())


def test_bundle_loads_nothing_from_the_network() -> None:
    # plotly.js contains the address of its maps, which are not in the bundle; browser tests check that it is not used.
    text = BUNDLE.read_text(encoding="utf-8").replace('"https://cdn.plot.ly/un/"', "")
    for host in ("unpkg.com", "jsdelivr", "cdn.", "googleapis", "cdnjs"):
        assert f"//{host}" not in text, host
