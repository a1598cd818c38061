"""The recipe unpaired: labelled completions as datums, their split, notes and metrics, and that it learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.data import Pair, Rows, arithmetic_pairs
from mint_lab.errors import DataError
from mint_lab.recipes.unpaired import LabelledJob, Unpaired
from mint_lab.runs import Run
from mint_lab.types import Datum, TensorData

from ..runs.bigram import CharTokenizer, letter_pairs
from ..runs.conftest import finish
from .test_reference_cache import ReferenceBigram


def rows(*labels: bool) -> list[dict[str, Any]]:
    """One prompt each; the completions have one length."""
    return [{"prompt": f"{chr(97 + i)}:", "completion": "y", "label": label} for i, label in enumerate(labels)]


def prepare(data: Any, held_out: Any = None, *, seed: int = 0, max_length: int | None = None) -> LabelledJob:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Unpaired().prepare(CharTokenizer(), data, held_out, seed=seed, max_length=max_length)


def notes(data: Any, held_out: Any = None, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Unpaired().prepare(CharTokenizer(), data, held_out, seed=0, **options)
    return [str(warning.message) for warning in caught]


def labels(data: list[Datum]) -> list[int]:
    return [int(datum.loss_fn_inputs["label"].to_numpy().item()) for datum in data]


def first(data: list[Datum]) -> list[str]:
    """The first letter of each prompt."""
    return [chr(datum.model_input.to_ints()[0]) for datum in data]


def test_completions_become_single_datums() -> None:
    job = prepare(rows(True, False, False, True), rows(False, True))
    assert (job.size, job.unit, job.held_out_size) == (4, 1, 2)
    assert labels(job.batch([2, 0])) == [0, 1]
    assert first(job.batch([2, 0])) == ["c", "a"]
    assert labels(job.held_out) == [0, 1]
    assert job.batch([1])[0].loss_fn_inputs["weights"].tolist() == [0, 1, 1]


def test_pairs_are_taken_apart() -> None:
    job = prepare([Pair("a:", "y", "n"), *rows(False)], [Pair("b:", "y", "n")])
    assert labels(job.data) == [1, 0, 0]
    assert job.size == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tenth_of_each_label_is_held_out(seed: int) -> None:
    """Of 20 desirable and 60 undesirable rows 2 and 6, as the seed says; of the 10 pairs one, with both sides."""
    judged = [{"prompt": f"{i} :", "completion": "y", "label": i % 4 == 0} for i in range(80)]
    pairs = [Pair(f"p{i}:", "y", "n") for i in range(10)]
    job = prepare([*judged, *pairs], seed=seed)
    assert (sum(labels(job.held_out)), len(job.held_out), job.size) == (2 + 1, 8 + 2, 72 + 18)
    trained, held = ({tuple(d.model_input.to_ints()) for d in data} for data in (job.data, job.held_out))
    assert not trained & held
    prompts = [tuple(d.model_input.to_ints()[:3]) for d in job.held_out if chr(d.model_input.to_ints()[0]) == "p"]
    assert len(prompts) == 2
    assert prompts[0] == prompts[1]
    desirable = [row for row in judged if row["label"]]
    places = sorted(np.random.default_rng(seed).permutation(20)[:2].tolist())
    expected = [desirable[place]["prompt"] for place in places]
    texts = [
        "".join(map(chr, d.model_input.to_ints()))
        for d, label in zip(job.held_out, labels(job.held_out), strict=True)
        if label
    ]
    assert [text[: text.index(":") + 1] for text in texts if text[0] != "p"] == expected


def test_few_rows_keep_both_labels_for_training() -> None:
    job = prepare(rows(True, False, True))  # the only undesirable row is trained on
    assert sorted(labels(job.data)) == [0, 1]
    assert labels(job.held_out) == [1]
    with pytest.raises(DataError, match=r"2 rows cannot be split into .* with both labels; give held_out= as well"):
        prepare(rows(True, False))


def test_the_notes_count_both_labels() -> None:
    assert notes(rows(True, False, False), rows(True, False)) == [
        "1 desirable and 2 undesirable completions to train on" + BALANCE
    ]
    (note,) = notes(rows(True, True, False), rows(True, False))
    assert note.startswith("2 desirable and 1 undesirable completions to train on; ")
    assert notes(letter_pairs(6), letter_pairs(2)) == ["6 desirable and 6 undesirable completions to train on"]


BALANCE = (
    "; 1 desirable and 2 undesirable completions: with the weights 1 and 1 their ratio is 0.5, recommended for KTO is "
    "1 to 1.33: for kto, a desirable_weight from 2 to 2.67"
)


def test_the_notes_say_what_was_lost_and_what_the_labels_follow() -> None:
    judged = [
        {"prompt": f"{'p' * (i == 0)}{i % 25}:", "completion": "yyyy" if i % 2 else "n", "label": bool(i % 2)}
        for i in range(50)
    ]
    given = Rows([*judged, {"prompt": "a:"}], on_bad_row="skip")
    lost, kinds = notes(given, rows(True, False), max_length=7)
    assert lost.startswith("1 of 51 rows were left out: label: found the columns 'prompt'")
    assert kinds.startswith("25 desirable and 25 undesirable completions to train on; in 100% of the couples of both ")
    assert "the desirable completion is the longer one: the model may learn" in kinds
    told = notes([{**row, "prompt": "a long prompt:"} for row in judged], rows(True, False), max_length=7)
    assert told[0].startswith("truncated to 7 tokens: 50 of 50 prompts lost their beginning (rows 0, 1, 2, 3, 4 and 45")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (True, r"all 2 completions to train on have the label True \(desirable\), expected both.*use recipe='sft'$"),
        (
            False,
            r"all 2 completions to train on have the label False \(undesirable\), expected both.*nothing to compare$",
        ),
    ],
)
def test_rows_of_one_label_are_refused(label: bool, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        prepare(rows(*[label] * 3))
    assert caught.value.field == "label"
    told = notes(rows(True, False), rows(*[label] * 2))
    assert told[-1] == f"held-out data: all 2 completions have the label {label}, so rewards/auc is not measured"


def test_no_data() -> None:
    with pytest.raises(DataError, match="empty"):
        prepare([])


# Of the four completions below only the last two tokens count: the letter and the end mark.
NOW = [torch.tensor([-9.0, *row]) for row in ([-0.5, -0.5], [-2.0, -1.0], [-3.0, -1.0], [-1.0, -2.0])]
BEFORE = [torch.tensor([-7.0, *row]) for row in ([-1.0, -1.0], [-2.0, -0.5], [-4.0, -1.0], [-1.0, -2.5])]


def test_metrics_by_hand() -> None:
    """Scores -1, -3, -4, -3, before -2, -2.5, -5, -3.5, so h = 1, -0.5, 1, 0.5.

    Desirable: 1 and -0.5; undesirable: 1 and 0.5. Of four couples 1 > 0.5 and the tie of 1 with 1: 1.5 / 4.
    """
    job = prepare(rows(True, False), rows(True, True, False, False))
    data = job.held_out
    scores = {"logps/chosen": -2.0, "logps/rejected": -3.5}
    assert job.measure(data, NOW).metrics == scores
    assert job.evaluate(data, NOW, BEFORE).metrics == scores | {"rewards/auc": 0.375}
    assert job.evaluate(data, NOW, NOW).metrics["rewards/auc"] == 0.5
    filled = [
        type(d)(
            model_input=d.model_input,
            loss_fn_inputs={**d.loss_fn_inputs, "reference_logprobs": TensorData.from_torch(row)},
        )
        for d, row in zip(data, BEFORE, strict=True)
    ]
    assert job.measure(filled, NOW).metrics == scores | {"rewards/auc": 0.375}
    assert job.measure(data[:2], NOW[:2]).metrics == {"logps/chosen": -2.0}
    assert job.evaluate(data[2:], NOW[2:], BEFORE[2:]).metrics == {"logps/rejected": -3.5}


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_a_run_reports_training_and_held_out_rewards(loss: str, tmp_path: Path, make_run: Callable[..., Run]) -> None:
    client = ReferenceBigram(tmp_path / "reference")
    run = finish(make_run("unpaired", loss, client=client, steps=8, eval_every=4))
    assert run.baseline["rewards/auc"] == 0.5
    names = {"logps/chosen", "logps/rejected", "rewards/auc", "rewards/chosen", "rewards/rejected", "rewards/margins"}
    assert names <= set(run.records[-1].held_out)
    assert any(names <= set(record.metrics) for record in run.records)
    assert run.records[-1].held_out["rewards/margins"] > 0
    assert run.records[-1].held_out["rewards/auc"] > 0.5
    assert run.notes == ["40 desirable and 40 undesirable completions to train on"]


def test_a_loss_without_a_reference_still_has_held_out_auc(make_run: Callable[..., Run]) -> None:
    """The bigram client computes no reference log-probabilities; the model before the run is the reference."""

    def likelihood(data: Any, logprobs_list: Any) -> Any:
        signs = [1 if d.loss_fn_inputs["label"].to_torch().item() else -1 for d in data]
        return -sum(sign * row[-2:].sum() for sign, row in zip(signs, logprobs_list, strict=True)) / len(data), {}

    run = finish(make_run("unpaired", likelihood, steps=6))
    assert "rewards/auc" not in run.records[0].metrics
    assert run.records[-1].held_out["rewards/auc"] > run.baseline["rewards/auc"] == 0.5


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_the_bundled_model_learns(loss: str, tmp_path: Path) -> None:
    """Each completion of the pairs is an item of its own; held-out couples are of any two prompts."""
    held_out = arithmetic_pairs(64, split="held_out")
    options = {"steps": 60, "eval_every": 60, "seed": 0, "folder": tmp_path / "run"}
    run = Run("unpaired", loss, data=arithmetic_pairs(1024), held_out=held_out, **options)
    finish(run)
    last = run.records[-1].held_out
    assert run.baseline["rewards/auc"] == 0.5
    assert last["rewards/auc"] > 0.65
    assert last["rewards/chosen"] > last["rewards/rejected"]
