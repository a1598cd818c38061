"""Writing a reward in a cell: registered, versioned, and its errors shown by the cell's own lines."""

from __future__ import annotations

from typing import Any

import pytest

from mint_lab.cells.reward_cell import run_reward_cell
from mint_lab.data.rewards import REWARDS
from mint_lab.errors import ConfigError

GOOD = """\
def right(response_text, example):
    '''Right or not.'''
    return float(response_text.strip() == example["answer"])
"""


def test_a_cell_registers_its_reward() -> None:
    namespace: dict[str, Any] = {}
    cell = run_reward_cell("right", GOOD, namespace)
    assert repr(cell) == "right v1 registered"
    found = REWARDS["right"]
    assert (found.fn, found.summary) == (namespace["right"], "Right or not.")
    assert found.source == f"# %%reward right\n{GOOD}"
    assert found.fn.__code__.co_filename == "<reward right v1>"
    assert repr(run_reward_cell("right", GOOD, namespace)) == "right v2 registered"


def test_a_cell_that_fails_changes_nothing_of_the_version_before() -> None:
    namespace: dict[str, Any] = {}
    text = "POINTS = {}\ndef points(response_text, example): return POINTS\n"
    fn = run_reward_cell("points", text.format(1.0), namespace).reward.fn
    with pytest.raises(ZeroDivisionError):
        run_reward_cell("points", text.format(2.0) + "1 / 0\n", namespace)
    assert (fn("", None), namespace["POINTS"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("line", "cell", "message"),
    [
        ("", GOOD, "needs one name.*found nothing"),
        ("two names", GOOD, "needs one name.*found 'two names'"),
        ("3x", GOOD, "needs one name"),
        ("exact_match", GOOD, "is a built-in reward"),
        ("mine", "x = 1", r"no function for the reward 'mine'; expected\ndef mine\(response_text, example\):"),
        ("mine", "def f(a, b, c): return 1", "cannot be called with two arguments"),
    ],
)
def test_what_is_refused(line: str, cell: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_reward_cell(line, cell, {})
    assert "mine" not in REWARDS


def test_in_a_shell(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell(f"%%reward right\n{GOOD}")
    assert result.success
    assert REWARDS["right"].version == 1
    bad = shell.run_cell("%%reward right\nhere = 1 / 0\n" + GOOD)
    assert isinstance(bad.error_in_exec, ZeroDivisionError)
    shown = "".join(capsys.readouterr())
    assert "line 2" in shown
    assert "compile_cell" not in shown
    shell.run_cell("%%reward right\ndef right(:")
    assert "the cell is not valid Python" in "".join(capsys.readouterr())
    assert REWARDS["right"].version == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [("", "nothing"), (" # mine", "nothing"), ("two names ", "'two names'"), ("3x", "'3x'"), ("a-b", "'a-b'")],
)
def test_words_about_a_missing_name(line: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_reward_cell(line, GOOD, {})
    assert str(caught.value) == f"%%reward needs one name, for example %%reward my_reward; found {found}"


def test_line_may_have_a_comment_and_no_open_quotation() -> None:
    assert run_reward_cell("right  # or not", GOOD, {}).reward.name == "right"
    with pytest.raises(ConfigError, match="%%reward right 'open: No closing quotation"):
        run_reward_cell("right 'open", GOOD, {})


def test_interrupting_the_kernel_refuses_the_cell(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is registered, and the cell's status says that it was refused."""
    refused: list[tuple[Any, ...]] = []
    monkeypatch.setattr("mint_lab.cells.reward_cell.publish_refusal", lambda *given: refused.append(given[1:]))
    result = shell.run_cell(f"%%reward halted\n__import__('_thread').interrupt_main()\nwhile True: pass\n{GOOD}")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert refused == [("reward", "halted", REWARDS)]
    assert "halted" not in REWARDS


def test_names_of_a_registered_reward_are_added_to_the_notebook() -> None:
    namespace: dict[str, Any] = {"kept": 1}
    reward = run_reward_cell("right", f"POINTS = 2\n{GOOD}", namespace).reward
    assert (namespace["kept"], namespace["POINTS"], namespace["right"]) == (1, 2, reward.fn)
    assert REWARDS["right"] is reward
    assert (reward.fn("4 ", {"answer": "4"}), reward.fn("5", {"answer": "4"})) == (1.0, 0.0)
