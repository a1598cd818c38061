"""The parts of the page as separate widgets: which run they accept, and what the loss picker hears."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.store import SavedRun
from mint_lab.ui import parts
from mint_lab.ui.parts import LiveCharts, LossPicker
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun

__all__ = ["comms"]

PARTS = {
    "LiveCharts": "live_charts",
    "RunControls": "run_controls",
    "LossPicker": "loss_picker",
    "SamplesTable": "samples_table",
    "Warnings": "warnings",
}


def test_every_part_is_listed() -> None:
    assert set(parts.__all__) == set(PARTS)


@pytest.mark.parametrize(("kind", "part"), PARTS.items())
def test_part_selects_its_widget_and_sends_the_run(comms: list[Comm], kind: str, part: str) -> None:
    widget = getattr(parts, kind)(ScriptedRun(70))
    assert comms[0].opened["state"]["part"] == part
    snapshot = next(message for message in comms[0].custom if message["type"] == "snapshot")
    assert snapshot["state"]["steps_total"] == 70
    assert repr(widget) == f"{kind}(recipe='preference')"
    widget.close()


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize(
    ("run", "hint"),
    [
        ([ScriptedRun(), ScriptedRun()], r"shows one run, got list; ml\.compare"),
        (SavedRun(Path("run"), RunInfo(), [], [], []), r"got SavedRun; .*run\.figure\(\)"),
        (SimpleNamespace(run=1), r"got SimpleNamespace; show its run: \.run"),
        (SimpleNamespace(runs={}), r"\.runs\[label\]"),
        (None, r"got NoneType; make one with ml\.Run"),
    ],
)
def test_other_things_than_a_run_are_refused_with_a_hint(comms: list[Comm], kind: str, run: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} .*{hint}"):
        getattr(parts, kind)(run)
    assert comms == []


def register(name: str) -> None:
    LOSSES.register(LossSpec(name=name, family="custom", fn=lambda data, logprobs: None, unit="pair"))


def losses_messages(comm: Comm) -> list[Any]:
    return [message for message in comm.custom if message["type"] == "losses"]


def test_loss_picker_gets_new_losses_until_it_is_closed(comms: list[Comm]) -> None:
    picker = LossPicker(ScriptedRun())
    register("<b>mine</b>")
    (message,) = losses_messages(comms[0])
    assert "<b>mine</b>" in [entry["name"] for entry in message["losses"]]
    picker.close()
    register("later")
    assert len(losses_messages(comms[0])) == 1


def test_parts_without_a_picker_get_no_losses(comms: list[Comm]) -> None:
    charts = LiveCharts(ScriptedRun())
    register("mine")
    assert losses_messages(comms[0]) == []
    charts.close()
