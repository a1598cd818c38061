"""Each fault, once with its number and rows, and not where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mint_lab.data.audit import DataItem, DataView, SequenceTable, TokenMarks, item_of_prompt
from mint_lab.data.faults import FAULTS, Finding, find_faults
from mint_lab.data.render import RowFacts

MARKS = TokenMarks(frozenset({0}), begin=1, unknown=2, is_blank=lambda _: False)


def item(row: int, *sides: list[int], held_out: bool = False, **facts: Any) -> DataItem:
    """A prompt of one token and its completions, all of whose tokens have weight 1."""
    names = ("chosen", "rejected")[: len(sides)] if len(sides) > 1 else ("completion",)
    weights = tuple(np.array([0, *[1] * (len(tokens) - 1)], dtype=np.float32) for tokens in sides)
    return DataItem(RowFacts(row, 1, **facts), held_out, names, tuple(map(np.array, sides)), weights)


def faults(*items: DataItem, limit: int | None = None, **view: Any) -> list[Finding]:
    kind = view.pop("kind", "completion")
    return find_faults(SequenceTable(DataView(kind, items, **view), MARKS), limit=limit, ends=["<end>"])


def test_good_data_have_none() -> None:
    assert faults(item(0, [5, 6, 0]), item(1, [6, 7, 0]), item(2, [7, 8, 0], held_out=True)) == []


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("no_end", item(1, [6, 7]), "1 of 2 whole completions do not end with an end token of the model (row 1)"),
        ("lost_end", item(1, [6, 7], lost_ends=(3,)), "1 of 2 completions lost their end to the limit of 9 tokens"),
        ("doubled_begin", item(1, [1, 1, 0]), "1 of 2 sequences begin with two beginning-of-text tokens (row 1)"),
        ("unknown_tokens", item(1, [6, 2, 2, 0]), "1 of 2 sequences have unknown tokens, 2 in all (row 1)"),
        ("tools_unwritten", item(1, [6, 0], tools_unwritten=True), "1 of 2 rows have tools that the chat template"),
        (
            "reasoning_unwritten",
            item(1, [6, 0], reasoning_unwritten=True),
            "1 of 2 rows have reasoning before </think>",
        ),
        ("lost_beginning", item(1, [6, 0], lost_beginning=4), "1 of 2 prompts lost their beginning to the limit of 9"),
        ("sampled_further", item(1, [6, 0], sampled_further=2), "1 of 2 prompts end with further tokens"),
        ("duplicates", item(1, [5, 6, 0]), "1 of 2 training items repeat an earlier one (row 1)"),
        ("repeated_prompts", item(1, [5, 7, 0]), "1 of 2 training items have the prompt of an earlier one"),
        ("leak", item(1, [5, 6, 0], held_out=True), "1 of 1 held-out items are also training items (row 1)"),
    ],
)
def test_each_fault_alone(name: str, bad: DataItem, message: str) -> None:
    [found] = faults(item(0, [5, 6, 0]), bad, limit=9)
    assert (found.name, found.count, found.rows, found.severity) == (name, 1, (1,), FAULTS[name].severity)
    assert found.message.startswith(message)
    assert "{" not in f"{found}".replace("{% generation %}", "")


def test_sequence_without_a_weight() -> None:
    masked = item(4, [5, 6, 0])
    masked.weights[0][:] = 0
    [found] = faults(item(0, [6, 7, 0]), masked)
    assert (found.name, found.count, found.total, found.rows) == ("no_weight", 1, 2, (4,))
    assert "{% generation %}" in found.advice


def test_pair_with_equal_sides() -> None:
    [found] = faults(item(0, [5, 6, 0], [5, 7, 0]), item(8, [6, 7, 0], [6, 7, 0]), kind="pair")
    assert (found.name, found.count, found.total, found.rows) == ("equal_sides", 1, 2, (8,))


def test_largest_loss_and_end_tokens_are_named() -> None:
    found = {one.name: one for one in faults(item(0, [5, 6], lost_ends=(3,)), item(1, [6, 7], lost_ends=(8,)), limit=2)}
    assert list(found) == ["lost_end"], "a truncated completion is not reported a second time for its end"
    assert found["lost_end"].meaning.startswith("up to 8 tokens are missing")
    [no_end] = faults(item(0, [5, 6]))
    assert "<end>" in no_end.advice


def test_rows_that_were_left_out_by_reason() -> None:
    found = faults(
        item(0, [5, 6, 0]), item(1, [6, 7, 0]), read=(5, 4), skipped=({2: "empty", 3: "no text", 4: "empty"}, {0: "x"})
    )
    assert [one.message for one in found] == [
        "2 of 5 rows were left out (rows 2 and 4)",
        "1 of 5 rows were left out (row 3)",
        "1 of 4 held-out rows were left out (held-out row 0)",
    ]
    assert [one.meaning for one in found] == ["empty", "no text", "x"]
    assert (found[2].rows, found[2].held_out_rows) == ((), (0,))


def test_rows_of_two_sources_are_told_apart() -> None:
    """Row 3 of the data and row 3 of held-out data are different rows; without other held-out data they are one."""
    both = (item(3, [5, 6]), item(3, [7, 8], held_out=True))
    [found] = faults(*both, read=(4, 4))
    assert (found.rows, found.held_out_rows, found.count) == ((3,), (3,), 2)
    assert found.message.endswith("(row 3; held-out row 3)")
    [found] = faults(*both, read=(4, 0))
    assert (found.rows, found.held_out_rows) == ((3,), ())


def test_prompt_that_was_truncated_is_not_a_repeated_one() -> None:
    items = (item(0, [5, 6, 0], lost_beginning=2), item(1, [5, 7, 0], lost_beginning=3))
    assert [one.name for one in faults(*items, limit=3)] == ["lost_beginning"]


def test_prompts_without_room_for_a_response() -> None:
    """A limit of 9 and responses of 4 tokens leave room for prompts of 5."""
    prompts = [item_of_prompt(list(range(10, 10 + length)), length, held_out=False) for length in (5, 6)]
    [found] = faults(*prompts, kind="prompt", room=4, limit=9)
    assert (found.name, found.count, found.total, found.rows) == ("tight", 1, 2, (6,))
    assert faults(*prompts, kind="prompt", room=4) == [], "without a limit there is always room"


def test_warnings_come_before_notes() -> None:
    severities = [fault.severity for fault in FAULTS.values()]
    assert severities == sorted(severities, reverse=True)
    assert [one.name for one in faults(item(0, [5, 6]), item(1, [5, 6]))] == ["no_end", "duplicates"]
