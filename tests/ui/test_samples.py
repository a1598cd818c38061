"""Responses as a message: complete, of bounded size, with their text unchanged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mint_lab.charts.token_strips import strips_html
from mint_lab.recipes.record import StepRecord
from mint_lab.ui.pictures import strips_of
from mint_lab.ui.samples import MAX_CHARACTERS, MAX_ROWS, MAX_TOKENS, _scale_end, samples_of


def record(*samples: dict[str, Any]) -> StepRecord:
    return StepRecord(7, 0.0, 0.0, 1, "ppo", 2, samples=list(samples))


def training(tokens: list[str], ratio: list[float], **extra: Any) -> dict[str, Any]:
    whole = {"source": "training", "prompt": "p", "response": "".join(tokens), "reward": 1.0, "advantage": -0.25}
    return {**whole, "tokens": tokens, "ratio": ratio, "clipped": [r > 1.2 for r in ratio], **extra}


HELD_OUT = {"source": "held-out", "prompt": "q", "response": "r", "reward": 0.0}


def test_rows_refer_to_their_tokens() -> None:
    made = samples_of(record(training(["a", "b"], [1.0, 1.5]), HELD_OUT, training(["a"], [0.5])))
    assert made["step"] == 7
    assert [(row["source"], row["start"], row["length"]) for row in made["rows"]] == [
        ("training", 0, 2),
        ("held-out", 2, 0),
        ("training", 2, 1),
    ]
    assert [row["advantage"] for row in made["rows"]] == [-0.25, None, -0.25]
    tokens = made["tokens"]
    assert tokens is not None
    assert tokens["about"] == "ppo v2"
    pieces = np.frombuffer(tokens["pieces"], "<i4")
    assert [tokens["texts"][place] for place in pieces] == ["a", "b", "a"]
    ratio, clipped = np.frombuffer(tokens["values"], "<f4").reshape(2, -1)
    assert ratio.tolist() == [1.0, 1.5, 0.5]
    assert clipped.tolist() == [0.0, 1.0, 0.0]
    assert set(np.frombuffer(tokens["ids"], "<i4")) == {-1}


def test_held_out_answers_have_no_tokens() -> None:
    made = samples_of(record(HELD_OUT))
    assert made["tokens"] is None
    assert len(made["rows"]) == 1


@pytest.mark.parametrize(
    ("ratios", "high"), [([1.0, 1.0], 0.2), ([1.3], 0.5), ([0.5], 1.0), ([1e6, 0.0], 1.0), ([float("inf"), 1.0], 0.2)]
)
def test_scale_ends_at_the_first_step_that_reaches_the_largest_ratio(ratios: list[float], high: float) -> None:
    tokens = samples_of(record(training(["x"] * len(ratios), ratios)))["tokens"]
    assert tokens is not None
    assert tokens["columns"][0]["high"] == pytest.approx(np.exp(high))
    assert tokens["columns"][0]["low"] == pytest.approx(np.exp(-high))


def test_message_has_a_largest_size() -> None:
    long = training(["w" * 5000] * 4000, [1.0] * 4000, prompt="p" * 10**6, response="r" * 10**6)
    made = samples_of(record(*[long] * 50))
    assert len(made["rows"]) == MAX_ROWS
    tokens = made["tokens"]
    assert tokens is not None
    buffers = sum(len(tokens[name]) for name in ("ids", "pieces", "values"))
    words = json.dumps({**made, "tokens": {"texts": tokens["texts"], "rows": tokens["rows"]}})
    assert buffers + len(words) < 150_000


def test_hostile_text_is_unchanged_and_escaped_in_html() -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e"
    made = samples_of(record(training([hostile, "\ud800"], [1.0, 1.0], prompt=hostile)))
    assert made["rows"][0]["prompt"] == hostile
    tokens = made["tokens"]
    assert tokens is not None
    assert tokens["texts"] == [hostile, "\\ud800"]  # half a pair cannot travel
    text = strips_html(strips_of(tokens))
    assert "<img" not in text
    assert "reward 1, advantage -0.25" in text


def test_message_by_hand() -> None:
    """A response with two tokens, one of a single token, and one of held-out data between them."""
    first = training(["a", "b"], [1.0, 1.5], prompt="one\n  two", reward=0.25)
    second = training(["b"], [0.5], response="b!", advantage=None)
    made = samples_of(record(first, HELD_OUT, second))
    assert made["rows"] == [
        {
            **{"source": "training", "prompt": "one\n  two", "response": "ab", "reward": 0.25, "advantage": -0.25},
            **{"start": 0, "length": 2},
        },
        {
            **{"source": "held-out", "prompt": "q", "response": "r", "reward": 0.0, "advantage": None},
            **{"start": 2, "length": 0},
        },
        {
            **{"source": "training", "prompt": "p", "response": "b!", "reward": 1.0, "advantage": None},
            **{"start": 2, "length": 1},
        },
    ]
    tokens = made["tokens"]
    assert tokens is not None
    assert (tokens["step"], tokens["about"], tokens["by"]) == (7, "ppo v2", "ratio")
    assert tokens["rows"] == [
        {
            **{"item": 0, "title": "reward 0.25, advantage -0.25: one two", "role": "", "shared": 0},
            **{"start": 0, "length": 2},
        },
        {"item": 1, "title": "reward 1: p", "role": "", "start": 2, "length": 1, "shared": 0},
    ]
    assert tokens["columns"] == [
        {
            **{"name": "ratio", "unit": "", "note": "above 1: likelier than when it was sampled", "scale": "ratio"},
            **{"low": pytest.approx(np.exp(-1)), "high": pytest.approx(np.exp(1))},  # log 0.5 is beyond 0.5
        },
        {
            **{"name": "clipped", "unit": "", "note": "1: the clip acts on it", "scale": "sequential"},
            **{"low": 0.0, "high": 1.0},
        },
    ]
    assert [len(tokens[name]) for name in ("ids", "pieces", "values")] == [3 * 4, 3 * 4, 2 * 3 * 4]  # type: ignore[literal-required]


def test_rows_of_tokens_follow_each_other() -> None:
    made = samples_of(record(*(training(["x"] * length, [1.0] * length) for length in (2, 3, 1, 4))))
    tokens = made["tokens"]
    assert tokens is not None
    assert [(row["start"], row["length"]) for row in tokens["rows"]] == [(0, 2), (2, 3), (5, 1), (6, 4)]
    assert [(row["start"], row["length"]) for row in made["rows"]] == [(0, 2), (2, 3), (5, 1), (6, 4)]


def test_limits_are_the_last_that_fit() -> None:
    """12 responses, 2,000 characters and 256 tokens are sent whole; of one more, nothing is."""
    assert (MAX_ROWS, MAX_CHARACTERS, MAX_TOKENS) == (12, 2000, 256)
    fits = training(["t"] * 256, [1.0] * 256, prompt="p" * 2000)
    beyond = training([*["t"] * 256, "beyond"], [*[1.0] * 256, 1e9], prompt="p" * 2000 + "x")
    for given in (fits, beyond):
        made = samples_of(record(given))
        tokens = made["tokens"]
        assert tokens is not None
        assert (made["rows"][0]["prompt"], made["rows"][0]["length"], tokens["texts"]) == ("p" * 2000, 256, ["t"])
        assert np.frombuffer(tokens["values"], "<f4")[:256].tolist() == [1.0] * 256
        assert tokens["columns"][0]["high"] == pytest.approx(np.exp(0.2))
    rows = samples_of(record(*(training(["t"], [1.0], response=str(i)) for i in range(13))))["rows"]
    assert [row["response"] for row in rows] == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("log_ratio", "end"), [(0.2, 0.2), (-0.2, 0.2), (0.21, 0.5), (0.5, 0.5), (0.51, 1.0), (9.0, 1.0)]
)
def test_scale_reaches_its_ends_inclusively(log_ratio: float, end: float) -> None:
    ratios = np.array([np.exp(log_ratio)])
    # exp and log do not cancel to the last digit; the next number towards 1 is within the end.
    assert _scale_end(np.nextafter(ratios, 1.0)) == end
    assert _scale_end(np.array([])) == 0.2
