from __future__ import annotations

import io
from collections.abc import Iterator

import pandas as pd
import plotly.io
import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.registry import UnknownNameError
from mint_lab.runs.store import history_frame
from mint_lab.ui.documents import document
from tests.ui.scripted import ScriptedRun, record


@pytest.fixture
def run() -> ScriptedRun:
    run = ScriptedRun(40)
    run.append(*(record(step, 40) for step in range(1, 21)))
    return run


@pytest.fixture
def registered() -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    for name in names:
        LOSSES._entries.pop(name, None)


def test_a_loss_is_a_cell_that_defines_a_loss_of_ones_own(run: ScriptedRun) -> None:
    cell = document(run, {"type": "cell", "name": "simpo"})
    magic, _, body = cell.partition("\n")
    assert magic == "%%loss my_simpo --from simpo"
    scope: dict[str, object] = {}
    exec(compile(body, "cell", "exec"), scope)
    assert callable(scope["my_simpo"])


def test_the_history_is_a_table_of_every_step(run: ScriptedRun) -> None:
    frame = pd.read_csv(io.StringIO(document(run, {"type": "csv"})), index_col=0)
    wanted = history_frame(run.records)
    assert list(frame.index) == list(range(1, 21))
    assert set(frame.columns) == set(wanted.columns)
    assert frame["loss"].to_list() == wanted["loss"].to_list()  # to the last digit


def test_the_figure_is_plotlys_own_json(run: ScriptedRun) -> None:
    figure = plotly.io.from_json(document(run, {"type": "figure"}))
    losses = next(trace for trace in figure.data if trace.name == "training")
    assert list(losses.x) == list(range(1, 21))
    assert list(losses.y) == pytest.approx([r.metrics["loss"] for r in run.records], rel=1e-12)


@pytest.mark.parametrize("kind", ["csv", "figure"])
def test_a_run_without_steps_has_documents_too(kind: str) -> None:
    text = document(ScriptedRun(), {"type": kind})
    assert text.strip()
    if kind == "figure":
        assert "no steps yet" in str(plotly.io.from_json(text).layout.annotations[0].text)


def test_an_unknown_loss_is_refused_with_what_there_is(run: ScriptedRun) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown loss 'simop'.*simpo"):
        document(run, {"type": "cell", "name": "simop"})
    with pytest.raises(UnknownNameError):
        document(run, {"type": "cell"})


def test_a_loss_that_does_not_stand_by_itself_is_refused(run: ScriptedRun, registered: list[str]) -> None:
    scale = 2.0

    def inner(data: object, logprobs_list: list[float]) -> tuple[float, dict[str, float]]:
        return scale * sum(logprobs_list), {}

    registered.append("inner")
    LOSSES.register(LossSpec(name="inner", family="custom", fn=inner, source=SOURCE))
    with pytest.raises(ConfigError, match="uses scale of a function around it"):
        document(run, {"type": "cell", "name": "inner"})


SOURCE = "def inner(data, logprobs_list):\n    return scale * sum(logprobs_list), {}\n"


def test_another_request_is_refused(run: ScriptedRun) -> None:
    with pytest.raises(ConfigError, match="unknown request 'picture'"):
        document(run, {"type": "picture"})
