"""A run that returns to a step: its pages forget the later steps, except for the faint curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mint_lab.recipes.record import Edit
from mint_lab.ui.publisher import Publisher
from mint_lab.ui.state import columns_of
from tests.ui.listener import Page, Wire, assert_same_heats
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import until


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(1000)


@pytest.fixture
def publisher(run: ScriptedRun, wire: Wire) -> Iterator[Publisher]:
    publisher = Publisher(run, wire, interval=60)
    run._subscribers.clear()  # the tests call publish() themselves
    yield publisher
    publisher.close()


def test_after_a_rewind_a_page_has_the_shorter_run_and_the_faint_curve(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    """Steps 4 to 6 become a faint curve, and the new step 4 takes their place, also in the heat maps."""
    page = Page()
    run.append(*(record(step) for step in range(1, 7)))
    run.edits.append(Edit(5, "loss", "hinge v1"))
    publisher.send_snapshot()
    page.receive(*wire.sent[-1])
    before, epoch = dict(page.columns), page.epoch
    run.rewind(3)
    assert publisher.publish() == 3
    message, buffers = wire.sent[-1]
    assert (message["type"], len(buffers)) == ("snapshot", 2 * sum(
        len(part) for part in (message["series"], message["heats"], *(b["series"] for b in message["branches"]))
    ))  # fmt: skip
    page.receive(message, buffers)
    assert page.epoch != epoch
    assert (page.seen, page.state["steps_done"], page.state["marks"]) == (3, 3, [])
    assert page.columns["loss"] == before["loss"][:3]
    (branch,) = page.branches
    assert (branch[0], branch[1], branch[2]) == ("before rewind to 3", 3, [5])
    assert branch[3]["loss"] == before["loss"]
    run.append(record(4, 50))
    assert publisher.publish() == 1
    page.receive(*wire.sent[-1])
    assert wire.sent[-1][0]["type"] == "update"
    assert [step for step, _ in page.columns["loss"]] == [1, 2, 3, 4]
    assert page.columns["loss"][3] != before["loss"][3]
    assert_same_heats(page, publisher)


def test_a_rewind_that_was_overtaken_by_new_steps_is_noticed(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    """Between two messages the run goes back from 4 to 2 and on to 6, which is more steps than the page has."""
    page = Page()
    run.append(*(record(step) for step in range(1, 5)))
    publisher.send_snapshot()
    page.receive(*wire.sent[-1])
    old = dict(page.columns)
    run.rewind(2)
    run.append(*(record(step, 17) for step in range(3, 7)))
    publisher.publish()
    page.receive(*wire.sent[-1])
    expected = [columns_of(made)["loss"] for made in run.records]
    assert [value for _, value in page.columns["loss"]] == pytest.approx(expected, rel=1e-6)
    assert page.branches[0][3]["loss"] == old["loss"]


def test_a_page_with_steps_of_before_the_rewind_gets_the_whole_run(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, 5)))
    publisher.publish()
    epoch = publisher.epoch
    run.rewind(2)
    publisher.sync(2, epoch)
    assert wire.sent[-1][0]["type"] == "snapshot"
    sent = len(wire.sent)
    publisher.sync(2, publisher.epoch)
    assert [message["type"] for message, _ in wire.sent[sent:]] == ["update"]


def test_faint_curves_are_complete_while_common_steps_are_computed_again(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    """A rewind to 4 from the snapshot after 2; a page that is opened meanwhile gets the curve at step 4."""
    run.append(*(record(step) for step in range(1, 7)))
    publisher.publish()
    run.rewind(4)
    repeated = run.records[2:]
    run.records = run.records[:2]
    publisher.publish()
    assert [s["points"] for s in publisher.snapshot()["branches"][0]["series"] if s["name"] == "loss"] == [6]
    late = Publisher(run, wire, interval=60)
    run._subscribers.clear()
    assert late.snapshot()["branches"] == []
    run.append(*repeated)
    late.publish()
    assert wire.sent[-1][0]["type"] == "snapshot"
    assert [branch["step"] for branch in wire.sent[-1][0]["branches"]] == [4]
    late.close()


def test_examples_of_before_a_rewind_are_forgotten(run: ScriptedRun, wire: Wire) -> None:
    """The responses of the steps that are left are shown after that."""
    calls: list[Any] = []
    publisher = Publisher(
        run,
        wire,
        interval=0.001,
        on_rewind=lambda: calls.append("rewind"),
        on_samples=lambda samples: calls.append(samples["step"]),
    )
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(*(replace(record(step), samples=[sample]) for step in (1, 2)))
    until(lambda: calls == [2])
    run.rewind(1)
    until(lambda: calls == [2, "rewind", 1])
    publisher.close()
