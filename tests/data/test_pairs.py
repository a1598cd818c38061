"""Pairs: the formats of rows, the pairs that are refused, and their tokens. Sources: tests/data/test_sources.py."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import Pair, addition_problems, arithmetic_pairs, encode, load_pairs, pairs_to_data
from mint_lab.errors import ConfigError, DataError

ROWS = [
    {"prompt": "Say hi.", "chosen": " Hi!", "rejected": " No."},
    {"prompt": "And bye.", "chosen": " Bye!", "rejected": " Hi!"},
]
PAIRS = [Pair(**row) for row in ROWS]
HUMAN = "\n\nHuman: Who?\n\nAssistant:"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_pairs_and_rows_from_memory_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for source in (ROWS, PAIRS, pd.DataFrame(ROWS), tmp_path / "a.jsonl", str(tmp_path / "a.jsonl")):
        assert load_pairs(source) == PAIRS
    assert load_pairs(tmp_path / "a.jsonl", limit=1) == PAIRS[:1]


def test_rows_beyond_the_limit_are_not_checked() -> None:
    assert load_pairs([*ROWS, "not a row"], limit=2) == PAIRS


def test_parquet_with_messages(tmp_path: Path) -> None:
    """Parquet returns lists as arrays; they are messages nevertheless."""
    pd.DataFrame([{"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}]).to_parquet(
        tmp_path / "m.parquet"
    )
    expected = [Pair([user("a")], "b", "c")]
    assert load_pairs(tmp_path / "m.parquet") == expected
    assert load_pairs(pd.read_parquet(tmp_path / "m.parquet")) == expected


def test_transcripts_are_split_at_the_last_common_turn() -> None:
    """The answers also have their first words in common; those are not part of the prompt."""
    first = f"{HUMAN} Me.\n\nHuman: And?\n\nAssistant:"
    [pair] = load_pairs([{"chosen": f"{first} Well, yes", "rejected": f"{first} Well, no"}])
    assert pair == Pair(first, " Well, yes", " Well, no")


def test_transcripts_that_differ_early() -> None:
    """They differ in the first answer, so the rest of the conversation belongs to the completions."""
    more = "\n\nHuman: And?\n\nAssistant: So."
    [pair] = load_pairs([{"chosen": f"{HUMAN} Me.{more}", "rejected": f"{HUMAN} You.{more}"}])
    assert pair == Pair(HUMAN, f" Me.{more}", f" You.{more}")


@given(
    turns=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3),
    sides=st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=2, unique=True),
)
def test_prompt_and_completion_concatenate_to_the_transcript(turns: list[str], sides: list[str]) -> None:
    prompt = "".join(f"\n\nHuman: {turn}\n\nAssistant:" for turn in turns)
    [pair] = load_pairs([{"chosen": prompt + sides[0], "rejected": prompt + sides[1]}])
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, *sides)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
            Pair([user("a")], "b", "c"),
            id="explicit",
        ),
        pytest.param(
            {"prompt": [user("a")], "chosen": "b", "rejected": "c"}, Pair([user("a")], "b", "c"), id="text answers"
        ),
        pytest.param(
            {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]},
            Pair([user("a")], "b", "c"),
            id="implicit prompt",
        ),
        pytest.param(
            {
                "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("b"), user("c"), assistant("e")],
            },
            Pair([user("a"), assistant("b"), user("c")], "d", "e"),
            id="implicit prompt of several turns",
        ),
        pytest.param(
            {"prompt": "a", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]},
            Pair([user("a")], "b", "c"),
            id="the prompt again as text",
        ),
        pytest.param(
            {"prompt": [user("a")], "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]},
            Pair([user("a")], "b", "c"),
            id="the prompt again as messages",
        ),
        pytest.param(
            {"prompt": "a", "chosen": [assistant("b")], "rejected": [assistant("c")]},
            Pair([user("a")], "b", "c"),
            id="text prompt, message answers",
        ),
        pytest.param({"prompt": "", "chosen": "b", "rejected": "c"}, Pair("", "b", "c"), id="empty prompt"),
    ],
)
def test_trl_formats(row: dict[str, Any], expected: Pair) -> None:
    assert load_pairs([row]) == [expected]


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (
            {"chosen": "a", "reject": "b"},
            "rejected",
            "no column 'rejected'; found 'chosen', 'reject', expected 'chosen'",
        ),
        ({"question": "a"}, "chosen", "no column 'chosen' and 'rejected'; found 'question'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, None, "chosen and rejected are equal"),
        ({"chosen": HUMAN + "b", "rejected": HUMAN + "b"}, None, "chosen and rejected are equal"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen", "empty, expected at least one character"),
        ({"chosen": HUMAN + " b", "rejected": HUMAN}, "rejected", "empty, expected at least one character"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen", r"found nothing \(None\), expected text"),
        ({"prompt": "a", "chosen": float("nan"), "rejected": "b"}, "chosen", r"found nothing \(None\)"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "prompt", r"found nothing \(None\)"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen", "found int, expected text or chat messages"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt", "found int, expected text or chat messages"),
        ({"prompt": "a", "chosen": [], "rejected": "b"}, "chosen", "found an empty list"),
        ({"prompt": "a", "chosen": [{"role": "user"}], "rejected": "b"}, "chosen", "found list, expected text or chat"),
        (
            {"prompt": "a", "chosen": [assistant("a")], "rejected": "b"},
            "rejected",
            "one of chosen and rejected is text",
        ),
        ({"chosen": "who?", "rejected": "what?"}, "prompt", "have no common prefix with"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "prompt", "have different first messages"),
        (
            {"prompt": "a", "chosen": [user("b")], "rejected": [assistant("c")]},
            "chosen",
            r"messages of \['user'\], expected one message of the assistant",
        ),
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("b")]}, None, "are equal"),
    ],
)
def test_error_names_the_bad_row(row: dict[str, Any], field: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_pairs([ROWS[0], row])
    assert (caught.value.index, caught.value.field) == (1, field)


@pytest.mark.parametrize("row", [7, "text", None, ["chosen", "rejected"]])
def test_objects_that_are_not_rows_are_refused(row: Any) -> None:
    with pytest.raises(DataError, match=r"datum 1: found .*, expected a row with named columns, or a Pair"):
        load_pairs([ROWS[0], row])


def test_error_names_the_bad_pair() -> None:
    with pytest.raises(DataError, match="datum 1, field 'rejected': empty"):
        load_pairs([PAIRS[0], Pair("a", "b", "")])


def test_empty_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    for source, name in [([], "the list"), (pd.DataFrame(), "the DataFrame"), (tmp_path / "a.jsonl", r".*a\.jsonl")]:
        for limit in (None, 5):
            with pytest.raises(DataError, match=f"^{name} is empty, expected at least one row"):
                load_pairs(source, limit=limit)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(DataError, match=f"field 'limit': found {limit}, expected at least 1"):
        load_pairs(ROWS, limit=limit)


def test_arithmetic_pairs() -> None:
    train, held_out = arithmetic_pairs(400, seed=3), arithmetic_pairs(100, seed=3, split="held_out")
    assert (len(train), len(held_out), len(arithmetic_pairs())) == (400, 100, 4000)
    assert train == arithmetic_pairs(400, seed=3) != arithmetic_pairs(400, seed=4)
    assert not {pair.prompt for pair in train} & {pair.prompt for pair in held_out}
    for pair, problem in zip(train, addition_problems(400, 3, "train"), strict=True):
        assert pair.prompt == problem.prompt
        assert int(pair.chosen) == sum(int(x) for x in problem.operands) != int(pair.rejected)


def test_pairs_to_data_by_hand(tokenizer: Any) -> None:
    """Prompt '01' has 2 tokens, chosen '2', rejected '34'; each ends with end-of-text, so there are 3 and 4 positions.

    The first position predicts the prompt's second token, so its weight is 0.
    """
    data = pairs_to_data([Pair("01", "2", "34")], tokenizer)
    zero, end = tokenizer.encode("0")[0], tokenizer.eos_token_id
    assert [d.model_input.to_ints() for d in data] == [[zero, zero + 1, zero + 2], [zero + i for i in (0, 1, 3, 4)]]
    assert data[0].loss_fn_inputs["target_tokens"].to_numpy().tolist() == [zero + 1, zero + 2, end]
    assert [d.loss_fn_inputs["weights"].to_numpy().tolist() for d in data] == [[0, 1, 1], [0, 1, 1, 1]]


TEXT = st.text(alphabet="the catson", min_size=1, max_size=20)


@given(
    pairs=st.lists(st.builds(Pair, TEXT, TEXT, TEXT).filter(lambda p: p.chosen != p.rejected), min_size=1, max_size=4)
)
def test_both_sides_have_the_same_prompt(tokenizer: Any, pairs: list[Pair]) -> None:
    data = pairs_to_data(pairs, tokenizer)
    assert len(data) == 2 * len(pairs)
    for place, pair in enumerate(pairs):
        prompt = tokenizer.encode(pair.prompt)
        for datum, text in zip(data[2 * place : 2 * place + 2], (pair.chosen, pair.rejected), strict=True):
            completion = [*tokenizer.encode(text), tokenizer.eos_token_id]
            weights = datum.loss_fn_inputs["weights"].to_numpy()
            assert datum.model_input.to_ints() == [*prompt, *completion][:-1]
            assert weights.sum() == len(completion)
            assert not weights[: len(prompt) - 1].any()


def test_max_length_truncates_the_prompt_equally_on_both_sides(tokenizer: Any) -> None:
    """Length 7 leaves 7 - 5 = 2 prompt tokens with the longer side '6789#', so the shorter side also has 2."""
    with pytest.warns(UserWarning, match="^truncated to 7 tokens: 1 of 1 prompts lost their beginning \\(row 0\\)$"):
        chosen, rejected = pairs_to_data([Pair("01234", "5", "6789")], tokenizer, max_length=7)
    assert tokenizer.decode(chosen.model_input.to_ints()) == "345"
    assert tokenizer.decode(rejected.model_input.to_ints()) == "346789"


def test_truncated_completions_are_counted(tokenizer: Any) -> None:
    pairs = [Pair("01", "2", "34567"), Pair("01", "23456789", "23456780"), Pair("0", "1", "2")]
    message = (
        "^truncated to 6 tokens: 3 of 6 completions lost their end and 2 of 3 .*; 1 pairs have equal tokens .*row 1"
    )
    with pytest.warns(UserWarning, match=message):
        data = pairs_to_data(pairs, tokenizer, max_length=6)
    assert len(data) == 6
    assert max(d.model_input.length for d in data) == 5


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "the list is empty, expected at least one row"),
        ([("a", "b", "c")], "datum 0: found tuple, expected a row with named columns, or a Pair"),
        ([PAIRS[0], Pair("a", "b", "b")], "datum 1: chosen and rejected are equal"),
        ([PAIRS[0], Pair("a", "b", None)], r"datum 1, field 'rejected': found nothing \(None\)"),  # pyright: ignore
        ([PAIRS[0], Pair([], "b", "c")], "datum 1, field 'prompt': no messages, expected at least one"),
    ],
)
def test_invalid_pairs_are_refused(tokenizer: Any, pairs: list[Pair], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        pairs_to_data(pairs, tokenizer)


def test_1000_real_pairs(hh_rlhf: Path, tokenizer: Any) -> None:
    pairs = load_pairs(hh_rlhf, limit=1000)
    assert len(pairs) == 1000
    with gzip.open(hh_rlhf, "rt", encoding="utf-8") as lines:
        for pair, line in zip(pairs, lines, strict=False):
            row = json.loads(line)
            assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (row["chosen"], row["rejected"])
            assert isinstance(pair.prompt, str)
            assert pair.prompt.endswith("\n\nAssistant:")
    data = pairs_to_data(pairs, tokenizer)
    assert len(data) == 2000
    for place in random.Random(0).sample(range(1000), 100):
        pair, sides = pairs[place], data[2 * place : 2 * place + 2]
        prompt_length = len(tokenizer.encode(pair.prompt))
        for datum, text in zip(sides, (pair.chosen, pair.rejected), strict=True):
            weights, targets = (datum.loss_fn_inputs[key].to_numpy() for key in ("weights", "target_tokens"))
            assert tokenizer.decode(targets[weights == 1]) == f"{text}<|end|>"
            assert (weights == 0).sum() == prompt_length - 1
        assert sides[0].model_input.to_ints()[:prompt_length] == sides[1].model_input.to_ints()[:prompt_length]


def test_pairs_to_data_accepts_every_source(tokenizer: Any) -> None:
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in PAIRS]
    expected = [d.model_input.to_ints() for d in pairs_to_data(PAIRS, tokenizer)]
    assert [d.model_input.to_ints() for d in pairs_to_data(rows, tokenizer)] == expected
    for source in (iter(rows), datasets.Dataset.from_list(rows), pd.DataFrame(rows)):
        assert [d.model_input.to_ints() for d in pairs_to_data(source, tokenizer)] == expected


@pytest.mark.parametrize(("wrong", "found"), [("mint-tiny", "'mint-tiny'"), (object(), "a object")])
def test_objects_that_are_not_tokenizers_are_refused(wrong: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"the tokenizer is {found}, expected .* client.get_tokenizer"):
        pairs_to_data(PAIRS, wrong)
    with pytest.raises(ConfigError, match=r"expected .* client.get_tokenizer"):
        encode(wrong, "2+2=", "4")
