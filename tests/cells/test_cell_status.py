"""What a cell's output says about the cell, as a notebook saves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mint_lab.data.rewards import REWARDS

from .test_loss_cell import GOOD
from .test_reward_cell import GOOD as REWARD

STOPS = "def mine(data, logprobs_list):\n    __import__('_thread').interrupt_main()\n    while True:\n        pass\n"


@pytest.fixture(autouse=True)
def rewards() -> Iterator[None]:
    before = {name: dict(kept) for name, kept in vars(REWARDS).items() if isinstance(kept, dict)}
    yield
    for name, kept in before.items():
        vars(REWARDS)[name].clear()
        vars(REWARDS)[name].update(kept)


@pytest.fixture
def outputs(shell: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """``outputs(cell)`` runs a cell and gives its outputs, those that carry metadata, as (text, metadata)."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    def run(cell: str) -> list[tuple[str, dict[str, Any]]]:
        usual, shell.display_pub = shell.display_pub, CapturingDisplayPublisher()
        try:
            result = shell.run_cell(cell)
            found = [(output["data"], output["metadata"]) for output in shell.display_pub.outputs]
        finally:
            shell.display_pub = usual
        if result.result is not None:
            found.append(shell.display_formatter.format(result.result))
        capsys.readouterr()
        return [(data["text/plain"], metadata) for data, metadata in found]

    return run


def mark(kind: str, name: str, version: int | None, state: str) -> dict[str, Any]:
    return {"mint_lab": {"kind": kind, "name": name, "version": version, "state": state}}


def test_a_registered_loss_and_its_versions(outputs: Any) -> None:
    for version in (1, 2):
        [(text, metadata)] = outputs(f"%%loss my_loss\n{GOOD}")
        assert text.startswith(f"my_loss v{version} registered")
        assert metadata == mark("loss", "my_loss", version, "registered")


def test_a_loss_that_preflight_refuses(outputs: Any) -> None:
    bad = "%%loss my_loss\ndef my_loss(data, logprobs_list):\n    return 0, {}\n"
    [(text, metadata)] = outputs(bad)
    assert "preflight" in text
    assert metadata == mark("loss", "my_loss", None, "refused")
    outputs(f"%%loss my_loss\n{GOOD}")
    [(_, metadata)] = outputs(bad)
    assert metadata == mark("loss", "my_loss", 1, "refused")


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("mine", "def mine(:"),
        ("mine", "raise ValueError('not today')"),
        ("mine --beta much", GOOD.replace("my_loss", "mine")),
        ("mine", STOPS),
    ],
    ids=["no Python", "raises", "bad option", "interrupted"],
)
def test_a_loss_cell_that_comes_to_nothing(outputs: Any, line: str, body: str) -> None:
    [(text, metadata)] = outputs(f"%%loss {line}\n{body}")
    assert text == "mine is not registered."
    assert metadata == mark("loss", "mine", None, "refused")


def test_a_cell_without_a_name_marks_nothing(outputs: Any) -> None:
    assert outputs(f"%%loss 3x\n{GOOD}") == []
    assert outputs(f"%%reward 3x\n{REWARD}") == []


def test_rewards(outputs: Any) -> None:
    [(text, metadata)] = outputs(f"%%reward right\n{REWARD}")
    assert (text, metadata) == ("right v1 registered", mark("reward", "right", 1, "registered"))
    [(text, metadata)] = outputs("%%reward right\ndef right(:")
    assert text == "right is not registered; right v1 stays in use."
    assert metadata == mark("reward", "right", 1, "refused")
    [(_, metadata)] = outputs("%%reward exact_match\n" + REWARD.replace("right", "exact_match"))
    assert metadata == mark("reward", "exact_match", 1, "refused")
