"""Cells with a loss called ``mine``, for tests of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mint_lab.cells.loss_cell import run_cell
from mint_lab.losses import LOSSES
from mint_lab.runs import Run

from ..preflight.broken import HEAD

__all__ = ["GOOD", "LOOP", "cancel_polls", "cell", "in_the_loss", "open_gate", "patient", "training_only"]

GOOD = "def mine(data, logprobs_list):\n    return pairwise_preference_loss(data, logprobs_list)\n"
LOOP = "kept.append('in')\nwhile True:\n    time.time()"


def cell(body: str, options: str = "--no-preflight") -> Any:
    """Run a ``%%loss mine`` cell; the body may use what the table's head defines."""
    return run_cell(f"mine {options}", HEAD + body, {})


def training_only(body: str) -> str:
    """A cell with the good loss, whose gradient calls run ``body`` first; ``kept`` counts these calls."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return (
        f"def mine(data, logprobs_list):\n    if logprobs_list[0].requires_grad:\n        kept.append(1)\n{lines}\n"
        "    return pairwise_preference_loss(data, logprobs_list)\n"
    )


@pytest.fixture
def patient(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run on the loss ``mine`` in which a call can be cancelled after a tenth of a second."""
    LOSSES._entries.pop("mine", None)  # version 1 for every test

    def make(body: str, **options: Any) -> Run:
        cell(body)
        run = make_run(loss="mine", **options)
        run.prepare()
        run._trainer.cancel_after = 0.1
        return run

    return make


def in_the_loss(run: Run) -> bool:
    return bool(run.loss.fn.__globals__["kept"]) and run.loss.fn.__globals__["kept"][-1] == "in"


def open_gate(run: Run) -> None:
    """Let a loss go on that waits in ``gate.acquire()``."""
    run.loss.fn.__globals__["gate"].release()


def cancel_polls(run: Run) -> threading.Semaphore:
    """A semaphore that is released each time the run says to a function in progress that it is to be cancelled."""
    said, requested = threading.Semaphore(0), run._loop._cancel_requested

    def poll() -> bool:
        answer = requested()
        if answer:
            said.release()
        return answer

    run._loop._cancel_requested = poll  # type: ignore[method-assign]
    return said
