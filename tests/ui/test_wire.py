"""Text that a message can carry, whatever it was."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mint_lab.ui.wire import travels

TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=5)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(VALUES)
def test_everything_becomes_utf8_and_stays_as_it_is_then(value: Any) -> None:
    made = travels(value)
    text = json.dumps(made, ensure_ascii=False).encode("utf-8")
    assert json.loads(text) == travels(made) == made


def test_half_a_pair_is_written_out_and_a_whole_one_is_left_alone() -> None:
    assert travels({"\ud83d": ["ok \U0001f600", b"\xff", 1.5, None]}) == {
        "\\ud83d": ["ok \U0001f600", b"\xff", 1.5, None]
    }
