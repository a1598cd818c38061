"""``audit``: its numbers, that it shows what a run trains on, that it loads no weights, and what it refuses."""

from __future__ import annotations

import gzip
import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mint_lab as ml
from mint_lab import tiny
from mint_lab.errors import ConfigError, DataError, ModelError
from mint_lab.runs import Run
from mint_lab.ui.data_audit import Audit, audit, audit_of

PAIRS = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n + 2}"} for n in range(12)]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"{n} + 1?"},
            {"role": "assistant", "content": str(n + 1)},
            {"role": "user", "content": f"{n} + 2?"},
            {"role": "assistant", "content": str(n + 2)},
        ]
    }
    for n in range(12)
]


LABELLED = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1 + n % 2}", "label": n % 2 == 0} for n in range(12)]


@pytest.fixture
def template(tmp_path: Path) -> Callable[[str], str]:
    """Return a function: the folder of the bundled model's small files with another chat template."""

    def folder(text: str) -> str:
        path = tmp_path / "model"
        shutil.copytree(tiny.path(), path, ignore=shutil.ignore_patterns("*.safetensors"))
        (path / "chat_template.jinja").write_text(text)
        return str(path)

    return folder


@pytest.mark.parametrize(
    ("recipe", "data", "options"),
    [
        ("preference", PAIRS, {"max_length": 6}),
        ("sft", CHATS, {}),
        ("sft", CHATS, {"train_on": "all"}),
        ("sft", PAIRS, {"held_out": PAIRS[:3]}),
        ("unpaired", LABELLED, {"max_length": 6}),
        ("unpaired", PAIRS, {}),
    ],
)
def test_audit_shows_what_the_run_trains_on(recipe: str, data: Any, options: dict[str, Any]) -> None:
    """Tokens and weights of every item are those of the datums that the trainer has, in their order."""
    found = audit(data, recipe=recipe, seed=3, **options)
    trainer = Run(recipe, data=data, seed=3, **options).prepare().trainer
    assert trainer is not None
    job: Any = trainer.job
    for items, datums, unit in (
        ([item for item in found.view.items if not item.held_out], job.data, job.unit),
        ([item for item in found.view.items if item.held_out], job.held_out, job.held_out_unit),
    ):
        sequences = [each for item in items for each in zip(item.tokens, item.weights, strict=True)]
        assert len(datums) == len(sequences) == unit * len(items) > 0
        for (tokens, weights), datum in zip(sequences, datums, strict=True):
            assert tokens[:-1].tolist() == datum.model_input.to_ints()
            assert tokens[1:].tolist() == datum.loss_fn_inputs["target_tokens"].to_numpy().tolist()
            assert weights[1:].tolist() == datum.loss_fn_inputs["weights"].to_numpy().tolist()
    assert found.notes == tuple(Run(recipe, data=data, seed=3, **options).prepare_data().notes)


def test_numbers_by_hand() -> None:
    """Prompt and completion have the tokenizer's lengths; the completion and its end token have weight 1."""
    rows = [{"prompt": "Q: 1?", "completion": " a"}, {"prompt": "Q: 2?", "completion": " bb"}]
    found = audit(rows, held_out=[{"prompt": "Q: 2?", "completion": " bb"}])
    encode = ml.ServiceClient().create_lora_training_client(rank=1).get_tokenizer().encode
    lengths = [(len(encode(row["prompt"])), len(encode(row["completion"])) + 1) for row in [*rows, rows[1]]]
    assert found.rows[["prompt_tokens", "completion_tokens"]].to_numpy().tolist() == [list(pair) for pair in lengths]
    assert (found.items, found.held_out_items, found.rows_read, found.sequences) == (2, 1, 3, 3)
    assert found.tokens == sum(map(sum, lengths))
    assert found.trained_tokens == sum(completion for _, completion in lengths)
    assert found.trained_share == pytest.approx(found.trained_tokens / found.tokens)
    assert (found.end_share, found.end_tokens, found.truncated) == (1.0, ("<|endoftext|>",), 0)
    assert [finding.name for finding in found.findings] == ["leak"]
    assert found.warnings == found.findings
    assert (found.recipe, found.recipe_reason) == ("sft", "row 0 has 'prompt', 'completion'")


def test_truncated_left_out_and_repeated_rows() -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in PAIRS]
    rows[2] = {"prompt": "x", "chosen": "", "rejected": "b"}
    rows[5] = {**rows[5], "rejected": " 1" * 40}
    rows[7] = rows[4]
    found = audit(rows, max_length=30, on_bad_row="skip", held_out=[PAIRS[11]])
    assert found.skipped == {2: "chosen: empty, expected at least one character"}
    names = {finding.name: finding for finding in found.findings}
    assert set(names) == {"left_out", "lost_end", "lost_beginning", "leak", "duplicates"}
    assert {name: finding.rows for name, finding in names.items()} == {
        "left_out": (2,),
        "lost_end": (5,),
        "lost_beginning": (5,),
        "duplicates": (7,),
        "leak": (),
    }
    assert names["leak"].held_out_rows == (0,)
    assert (found.truncated, found.duplicates, found.max_length) == (2, 1, 30)
    lost = found.rows[(found.rows["row"] == 5) & (found.rows["side"] == "rejected")].iloc[0]
    whole = audit(rows, recipe="preference", on_bad_row="skip").rows
    before = whole[(whole["row"] == 5) & (whole["side"] == "rejected")].iloc[0]
    assert lost["tokens"] + lost["lost_end"] + lost["lost_beginning"] == before["tokens"]
    assert int(found.rows[found.rows["row"] == 7]["repeats"].iloc[0]) == 4


def test_template_that_marks_no_end_token(template: Callable[[str], str]) -> None:
    """The most frequent silent fault: the turn is marked without the token that ends it."""
    model = template(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{{ eos_token }}\n{% else %}Q: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    found = audit(CHATS, model)
    assert found.end_share == 0
    [finding] = found.warnings
    assert (finding.name, finding.count, finding.total) == ("no_end", 12, 12)
    assert "<|endoftext|>" in finding.advice
    marked = audit(CHATS, template_of(model, "{{ eos_token }}{% endgeneration %}\n"))
    assert (marked.end_share, marked.findings) == (1.0, ())


def template_of(model: str, end: str) -> str:
    """Change how the template of ``model`` ends the assistant's turn."""
    path = Path(model) / "chat_template.jinja"
    path.write_text(path.read_text().replace("{% endgeneration %}{{ eos_token }}\n", end))
    return model


def test_template_whose_marks_are_truncated_away(template: Callable[[str], str]) -> None:
    """Only the last word of the turn is marked, and the limit removes it: no token has a weight."""
    model = template(
        "{% for m in messages %}{% if m.role == 'assistant' %}A: {{ m.content }}{% generation %}{{ eos_token }}"
        "{% endgeneration %}{% else %}Q: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    rows = [*CHATS, {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "9 " * 40}]}]
    found = audit(rows, model, max_length=40)
    no_weight = next(finding for finding in found.findings if finding.name == "no_weight")
    assert (no_weight.count, no_weight.rows) == (1, (12,))
    assert (12, "no token is trained") in [
        (found.view.items[number].facts.row, what.split(", ")[-1]) for number, what in found.chosen
    ]


def test_weights_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.path(), folder, ignore=shutil.ignore_patterns("*.safetensors"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("mint_lab.engine.pretrained.AutoModelForCausalLM.from_pretrained", refuse)
    assert audit(PAIRS, str(folder)).items == 11


def test_labels_are_named() -> None:
    """Of 12 labelled rows every other one is desirable; a pair is two items of one row, and each may lose its end."""
    found = audit(LABELLED)
    assert (found.recipe, found.recipe_reason) == ("unpaired", "row 0 has 'prompt', 'completion', 'label'")
    assert found.rows.groupby("row")["side"].first().tolist() == ["desirable", "undesirable"] * 6
    pairs = [{**row, "rejected": " 1" * 20} if n == 4 else row for n, row in enumerate(PAIRS)]
    rows = audit(pairs, recipe="unpaired", max_length=12).rows
    assert rows[rows["row"] == 4]["side"].tolist() == ["desirable", "undesirable"]
    assert [lost > 0 for lost in rows[rows["row"] == 4]["lost_end"]] == [False, True]
    assert not rows[rows["row"] != 4]["lost_end"].any()


def test_run_trains_on_the_audited_job() -> None:
    run = Run("preference", data=iter(PAIRS))
    assert audit_of(run).items == 11
    assert run.trainer is None
    job = run.prepare_data().job
    trainer = run.prepare().trainer
    assert trainer is not None
    assert trainer.job is job, "an iterator is read once"
    assert audit_of(run).rows.equals(audit(PAIRS).rows)


def test_prompts_for_reinforcement_learning() -> None:
    prompts = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(20)]
    found = audit(prompts)
    assert (found.recipe, found.unit, found.items, found.held_out_items) == ("rl", "prompts", 18, 2)
    assert sorted(found.rows["row"]) == list(range(20)), "numbers of the data, not of their parts"
    assert (found.trained_tokens, found.truncated, len(found.lengths)) == (0, 0, 1)
    assert set(found.rows["side"]) == {"prompt"}


def test_prompts_that_are_left_out_keep_their_numbers() -> None:
    prompts = ["1 + 1 =", 7, "2" * 200, "3 + 1 =", "4 + 1 ="]
    found = audit(prompts, recipe="rl", reward="number_format", on_bad_row="skip", max_length=60, held_out=["9 + 1 ="])
    assert sorted(found.skipped) == [1, 2]
    assert found.rows["row"].tolist() == [0, 3, 4, 0]
    assert found.rows_read == 6


def test_bundled_data() -> None:
    pairs = audit(None)
    assert (pairs.recipe, pairs.items, pairs.held_out_items, pairs.warnings) == ("preference", 4000, 400, ())
    task = audit("subtraction")
    assert (task.recipe, task.recipe_reason, task.items, task.rows_read) == ("rl", "the data are a task", 4000, 4400)


def test_real_pairs(hh_rlhf: Path) -> None:
    """2,312 rows of HH-RLHF: the first sides are those of the file, and the numbers are those of the run's notes."""
    found = audit(str(hh_rlhf))
    assert (found.rows_read, found.items + found.held_out_items, found.sequences) == (2312, 2312, 4624)
    with gzip.open(hh_rlhf, "rt", encoding="utf-8") as lines:
        first = json.loads(next(lines))
    item = found.view.items[found.position(0)]
    assert [found.tokenizer.decode(tokens.tolist()) for tokens in item.tokens] == [
        first[side] + "<|endoftext|>" for side in ("chosen", "rejected")
    ]
    counts = {finding.name: finding.count for finding in found.findings}
    assert f"{counts['lost_end']} of 4624 completions lost their end" in found.notes[0]
    assert f"{counts['lost_beginning']} of 2312 prompts lost their beginning" in found.notes[0]


def test_row_is_shown_with_its_weights() -> None:
    found = audit(PAIRS)
    with closing(found.show(3)) as view:
        [chosen, rejected] = view.tokens["rows"]
        assert (chosen["title"], chosen["role"], rejected["role"]) == (f"row 3{held(found, 3)}", "chosen", "rejected")
        weights = np.frombuffer(view.tokens["values"], dtype="<f4")[: chosen["length"]]
    prompt = chosen["shared"]
    assert np.isnan(weights[0])
    assert weights[1:].tolist() == [0.0] * (prompt - 1) + [1.0] * (chosen["length"] - prompt)
    first = found.view.items[0].facts.row
    with closing(found.show()) as view:
        assert view.tokens["rows"][0]["title"] == f"row {first} · first"


def held(found: Audit, row: int) -> str:
    return " · held out" if found.view.items[found.position(row)].held_out else ""


def test_share_of_ends_is_of_the_sequences_with_a_trained_token() -> None:
    """Of four sequences one has no weight and two end: 2 of 3."""
    found = audit(PAIRS[:2], recipe="preference", held_out=[PAIRS[3]])
    rows = found.rows.head(4).assign(trained_tokens=[0, 3, 3, 3])
    assert replace(found, rows=rows, sequences=4, ends=2).end_share == pytest.approx(2 / 3)
    assert replace(found, rows=rows.assign(trained_tokens=0), ends=0).end_share == 0.0


def test_rows_that_are_not_there() -> None:
    found = audit([*PAIRS[:6], {"prompt": "x"}], on_bad_row="skip", held_out=PAIRS[6:9])
    with pytest.raises(DataError, match="datum 6: the row was left out: chosen: no column 'chosen' and 'rejected'"):
        found.show(6)
    with pytest.raises(DataError, match="datum 7: there is no such row, expected one from 0 to 5"):
        found.show(7)
    with pytest.raises(DataError, match="expected one from 0 to 2"):
        found.show(3, held_out=True)
    assert found.view.items[found.position(2, held_out=True)].held_out


def test_rows_left_out_of_each_source_have_their_own_reasons() -> None:
    """Row 1 of the training data and row 2 of the held-out data cannot be used; the other source has that number."""
    broken = {"prompt": "x", "chosen": "", "rejected": "b"}
    found = audit(
        [PAIRS[0], {"prompt": "x"}, PAIRS[2]], recipe="preference", on_bad_row="skip", held_out=[*PAIRS[6:8], broken]
    )
    with pytest.raises(DataError, match="datum 1: the row was left out: chosen: no column"):
        found.show(1)
    with pytest.raises(DataError, match="datum 2: the row was left out: chosen: empty, expected"):
        found.show(2, held_out=True)
    assert not found.view.items[found.position(2)].held_out
    assert found.view.items[found.position(1, held_out=True)].held_out
    assert dict(found.numbers)["rows left out"] == "2"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), DataError, "is empty, expected at least one row"),
        (("missing.jsonl",), DataError, "missing.jsonl is missing"),
        (([{"a": 1}],), DataError, "datum 0: found 'a', which no recipe is known to train on; name the recipe"),
        ((PAIRS, "/no/such/model"), ModelError, "no directory '/no/such/model'"),
        ((PAIRS, "sft"), ConfigError, "base_model is 'sft', which is not a model but a recipe"),
    ],
)
def test_data_and_models_that_cannot_be_used(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        audit(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "sfft"}, "unknown recipe 'sfft'"),
        ({"train_on": "all"}, "'train_on' is an option of the sft recipe, and this is preference"),
        ({"max_rows": 0}, "max_rows is 0, expected a whole number from 1 up"),
        ({"on_bad_row": "drop"}, "on_bad_row is 'drop'"),
        ({"learning_rate": 1.0}, "'learning_rate' does not change how data are prepared"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audit(PAIRS, **options)


def test_bad_row_is_named() -> None:
    with pytest.raises(DataError, match="datum 3, field 'chosen': empty"):
        audit([*PAIRS[:3], {"prompt": "x", "chosen": "", "rejected": "b"}])


def test_recipe_that_says_nothing_about_rows() -> None:
    """Items have positions instead of rows, every item counts as read, and the notes of the recipe are printed."""

    @ml.recipe
    class Bare(ml.recipes.Recipe):
        name = "bare"
        default_loss = "cross_entropy"

        def prepare(self, tokenizer: Any, data: Any, held_out: Any, **_: Any) -> Any:
            warnings.warn("two words have no vowel", UserWarning, stacklevel=2)
            datums = [ml.data.to_datum(tokenizer.encode(word), 1) for word in ("banana", "papaya", "plum")]
            return ml.recipes.BatchJob(datums[:2], datums[2:])

    found = audit(None, recipe="bare")
    assert (found.rows_read, found.items, found.held_out_items, found.view.has_rows) == (2, 2, 1, False)
    assert "two words have no vowel" in repr(found)
    with closing(found.show(1)) as view:
        assert [row["title"] for row in view.tokens["rows"]] == ["item 1"]
    assert found.rows["prompt_tokens"].tolist() == [1, 1, 1]


def test_no_more_rows_are_read_than_requested() -> None:
    found = audit(PAIRS, max_rows=5)
    assert (found.rows_read, found.items + found.held_out_items, found.rows["row"].max()) == (5, 5, 4)


def test_recipe_that_prepares_something_else() -> None:
    @ml.recipe
    class Odd(ml.recipes.Recipe):
        name = "odd"
        default_loss = "cross_entropy"

        def prepare(self, *_: Any, **__: Any) -> Any:
            return object()

    with pytest.raises(ConfigError, match=r"the recipe 'odd' prepares a object, expected a BatchJob"):
        audit(PAIRS, recipe="odd")


def test_texts() -> None:
    """Plain text has every number and finding; HTML escapes what rows hold."""
    rows = [{"prompt": "<script>1", "completion": "<b>"}] * 12
    found = audit(rows)
    text = repr(found)
    assert text.splitlines()[0] == "audit: 11 examples to train on, 1 held out; 1 warning, 1 note"
    assert "recipe sft: row 0 has 'prompt', 'completion'" in text
    assert all(str(finding) in text for finding in found.findings)
    assert all(f"{value:>10}  {name}" in text for name, value in found.numbers)
    html = found._repr_html_()
    assert "<script>" not in html
    assert "<b>&" not in html
    assert "endoftext" in html
    assert repr(found.show()).startswith("TokenView(1 sequences")
