"""Text that a message can carry, whatever it was before."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mint_lab.ui.utf8 import as_utf8

TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=5)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(VALUES)
def test_result_is_utf8_and_a_second_call_changes_nothing(value: Any) -> None:
    result = as_utf8(value)
    text = json.dumps(result, ensure_ascii=False).encode("utf-8")
    assert json.loads(text) == as_utf8(result) == result


@given(st.text(max_size=9))
def test_valid_text_is_unchanged(text: str) -> None:
    assert as_utf8({text: [text]}) == {text: [text]}


def test_half_a_pair_is_escaped_and_a_whole_pair_is_unchanged() -> None:
    assert as_utf8({"\ud83d": ["ok \U0001f600", b"\xff", 1.5, None]}) == {
        "\\ud83d": ["ok \U0001f600", b"\xff", 1.5, None]
    }
