"""From data to a trainer: what is prepared once, and what becomes a note."""

from __future__ import annotations

import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mint_lab.data import Pair
from mint_lab.errors import ConfigError, DataError
from mint_lab.lora_options import LoraOptions
from mint_lab.recipes import RECIPES
from mint_lab.recipes.batch_trainer import BatchTrainer
from mint_lab.runs import Run, loading
from mint_lab.runs.loading import (
    AdapterRequest,
    DataLimits,
    LoadCancelled,
    SharedData,
    load_alone,
    load_trainer,
    sequence_limit,
)

from ..waiting import TIMEOUT, Gate, until
from .bigram import BigramClient, CharTokenizer, letter_pairs


class CountingRecipe(type(RECIPES["preference"])):  # type: ignore[misc]
    """The recipe "preference"; counts its preparations and warns of something in each."""

    prepared = 0

    def prepare(self, *args: Any, **options: Any) -> Any:
        self.prepared += 1
        self.limit = options["max_length"]
        warnings.warn("two pairs are alike", UserWarning, stacklevel=1)
        warnings.warn("not for people who train", DeprecationWarning, stacklevel=1)
        return super().prepare(*args, **options)


def test_trainer_has_the_data_and_notes_their_warnings() -> None:
    recipe, client = CountingRecipe(), BigramClient()
    trainer, notes = load_trainer(client, recipe, letter_pairs(12), letter_pairs(4), seed=3)
    assert isinstance(trainer, BatchTrainer)
    assert trainer.client is client
    assert (trainer.job.size, trainer.job.held_out_size) == (12, 4)
    assert notes == ["two pairs are alike"]
    assert recipe.limit == client.get_tokenizer().model_max_length


def test_shared_data_are_prepared_once_for_several_trainers() -> None:
    recipe, shared = CountingRecipe(), SharedData(letter_pairs(12), letter_pairs(4))
    first, notes = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    second, again = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    assert recipe.prepared == 1
    assert first.job is second.job
    assert first.client is not second.client
    assert notes == again == ["two pairs are alike"]
    assert notes is not again, "each run adds to its own"


def test_data_that_cannot_be_used_raise() -> None:
    shared = SharedData([], None)
    for _ in range(2):  # a failed preparation is not kept
        with pytest.raises(DataError):
            load_trainer(BigramClient(), CountingRecipe(), shared, None, seed=0)


class LongClient(BigramClient):
    """A model that takes ``context`` tokens, with a tokenizer that states no length."""

    def __init__(self, stated: float, context: int | None) -> None:
        super().__init__()
        self._tokenizer = CharTokenizer()
        self._tokenizer.model_max_length = stated  # type: ignore[assignment]
        if context is not None:
            self.context = context

    def get_tokenizer(self) -> Any:
        return self._tokenizer


@pytest.mark.parametrize(
    ("stated", "context", "given", "limit"),
    [
        (64, None, None, 64),
        (1e30, 32, None, 32),
        (64, 32, 48, 32),
        (64, 32, 8, 8),
        (1e30, None, None, None),
        (1e30, None, 9, 9),
        (10_000_000, None, None, None),
        (9_999_999, None, None, 9_999_999),
    ],
)
def test_longest_sequence_is_the_least_that_is_known(
    stated: float, context: int | None, given: int | None, limit: int | None
) -> None:
    assert sequence_limit(LongClient(stated, context), given) == limit  # type: ignore[arg-type]


def test_long_rows_are_truncated_and_named_before_training() -> None:
    """Of rows 0 to 11, row 7 is too long for the model, whose tokenizer does not know it."""
    pairs = [Pair(f"{n}:", "ab", "ba") for n in range(12)]
    pairs[7] = Pair("x" * 80, "ab", "ba")
    trainer, notes = load_trainer(LongClient(1e30, 32), RECIPES["preference"], pairs, letter_pairs(4), seed=0)  # type: ignore[arg-type]
    assert max(d.model_input.length for d in trainer.job.data) == 31
    assert notes == ["truncated to 32 tokens: 1 of 12 prompts lost their beginning (row 7)"]
    _, notes = load_trainer(
        LongClient(1e30, 32),  # type: ignore[arg-type]
        RECIPES["preference"],
        letter_pairs(12),
        pairs,
        seed=0,
        limits=DataLimits(max_length=20),
    )
    assert notes == ["held-out data: truncated to 20 tokens: 1 of 12 prompts lost their beginning (row 7)"]


@pytest.mark.parametrize("recipe", ["preference", "sft"])
def test_rows_that_cannot_be_used(recipe: str) -> None:
    rows = [{"prompt": f"{n}:", "chosen": "ab", "rejected": "ba"} for n in range(12)]
    rows[9] = {"prompt": "9:", "chosen": "", "rejected": "ba"}
    with pytest.raises(DataError, match="datum 9, field 'chosen': empty"):
        load_trainer(BigramClient(), RECIPES[recipe], rows, None, seed=0)
    limits = DataLimits(on_bad_row="skip")
    trainer, notes = load_trainer(BigramClient(), RECIPES[recipe], rows, None, seed=0, limits=limits)
    assert trainer.job.size + trainer.job.held_out_size == 11
    assert notes == [
        "1 of 12 rows were left out: chosen: empty, expected at least one character (row 9)",
    ]
    trainer, notes = load_trainer(
        BigramClient(), RECIPES[recipe], rows, letter_pairs(30), seed=0, limits=DataLimits(max_rows=5)
    )
    assert (trainer.job.size, trainer.job.held_out_size, notes) == (5, 5, [])


def test_limits_of_shared_data() -> None:
    shared = SharedData(letter_pairs(12), letter_pairs(12))
    trainer, _ = load_trainer(BigramClient(), RECIPES["sft"], shared, None, seed=0, limits=DataLimits(max_rows=3))
    assert (trainer.job.size, trainer.job.held_out_size) == (3, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 1}, "max_length is 1, expected a whole number from 2 up"),
        ({"max_rows": 0}, "max_rows is 0, expected a whole number from 1 up"),
        ({"on_bad_row": "drop"}, "on_bad_row is 'drop', expected 'raise' or 'skip'"),
    ],
)
def test_limits_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataLimits(**values)


class TextOnly:
    """A tokenizer and what else is known of a model, without the model."""

    context = 20
    end_tokens = frozenset({0, 7})

    def get_tokenizer(self) -> Any:
        return CharTokenizer()


def test_data_are_prepared_without_a_model_and_trained_on() -> None:
    shared, recipe = SharedData(letter_pairs(12), letter_pairs(4)), CountingRecipe()
    assert shared.prepared is None
    prepared = shared.prepare(TextOnly(), recipe, seed=3)
    assert (prepared.max_length, prepared.end_tokens, prepared.notes) == (20, {0, 7}, ["two pairs are alike"])
    trainer, _ = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    assert trainer.job is prepared.job
    assert recipe.prepared == 1
    other = SharedData(letter_pairs(12), None).prepare(BigramClient(), recipe, seed=3)  # type: ignore[arg-type]
    assert other.end_tokens == {0}, "at least the tokenizer's"


class Adapted(BigramClient):
    """A client on this machine: it has the options of its adapter."""

    lora = LoraOptions(4, alpha=8)


def test_run_takes_options_of_its_adapter(tmp_path: Path) -> None:
    assert Run().lora == LoraOptions(16)
    assert Run(rank=4).lora == LoraOptions(4)
    lora = LoraOptions(4, dropout=0.1, unembed=False)
    assert Run(lora=lora).lora == Run(lora=lora, rank=4).lora == lora
    assert Run(client=Adapted(), rank=4, lora=Adapted.lora).lora == Adapted.lora
    (tmp_path / "adapter_config.json").write_text("{}")
    assert Run(base_model=str(tmp_path)).lora is None, "it is in the folder, which is not read yet"
    assert Run(base_model=str(tmp_path), rank=3).lora == LoraOptions(3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank is 0, expected a whole number from 1 up"),
        ({"rank": 8, "lora": LoraOptions(4)}, "rank is 8, but lora has rank 4"),
        ({"lora": {"rank": 4}}, "lora is {'rank': 4}, expected mint_lab.LoraOptions"),
        ({"client": Adapted(), "rank": 8}, r"the client was created with LoraOptions\(rank=4, alpha=8\), but Lora.*8"),
        ({"client": Adapted(), "lora": LoraOptions(4)}, "the client was created with"),
        ({"client": BigramClient(), "lora": LoraOptions(4, alpha=8)}, "a hosted service does not take alpha of lora"),
        ({"client": BigramClient(), "lora": LoraOptions(4)}, "client= has its adapter already; give lora= to its"),
        ({"lora_alpha": 8}, "unknown option 'lora_alpha': did you mean lora=?"),
        ({"target_modules": ["q_proj"]}, "unknown option 'target_modules': did you mean lora=?"),
    ],
)
def test_options_that_contradict_raise_before_loading(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Run(**options)


def test_client_is_made_as_requested(tmp_path: Path) -> None:
    request = AdapterRequest("mint-tiny", None, LoraOptions(3, dropout=0.1, attn=False), 1)
    client: Any = request.new_client()
    assert client.lora == LoraOptions(3, dropout=0.1, attn=False)
    client.save_adapter(tmp_path / "a").result()
    assert AdapterRequest("mint-tiny", None, None, 1).new_client().lora == LoraOptions(16)  # type: ignore[attr-defined]
    again: Any = AdapterRequest(str(tmp_path / "a"), None, None, 1).new_client()
    assert again.lora == client.lora


# -- a stop while a run loads ------------------------------------------------------------------------------------------


class SlowClient(BigramClient):
    """A client whose tokenizer does not come: ``wait`` is called instead, after ``begun`` is set."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__()
        self.begun, self.ended, self._wait = threading.Event(), threading.Event(), wait

    def get_tokenizer(self) -> Any:
        self.begun.set()
        try:
            self._wait()
        finally:
            self.ended.set()
        return super().get_tokenizer()


def without_end() -> None:
    while True:
        pass


def test_stop_ends_a_load_in_progress(tmp_path: Path) -> None:
    client = SlowClient(without_end)
    run = Run(data=letter_pairs(12), client=client, folder=tmp_path / "run", steps=3)
    run.start()
    assert client.begun.wait(TIMEOUT)
    run.stop()
    assert run.wait(TIMEOUT), "also with check: a stop is no failure"
    assert (run.status, run.error, run.trainer) == ("stopped", None, None)
    assert client.ended.wait(TIMEOUT)
    assert not (tmp_path / "run").exists()
    assert loading.ONE_AT_A_TIME.acquire(timeout=TIMEOUT), "the next run loads"
    loading.ONE_AT_A_TIME.release()


def test_stop_ends_a_load_that_waits_for_another(tmp_path: Path) -> None:
    run = Run(data=letter_pairs(12), client=BigramClient(), folder=tmp_path / "run", steps=3)
    with loading.ONE_AT_A_TIME:
        run.start().stop()
        assert run.wait(TIMEOUT)
        assert (run.status, run.error) == ("stopped", None)
    until(lambda: not any(thread.name == "mint_lab loss abandoned" for thread in threading.enumerate()))
    assert run.trainer is None


def test_a_load_that_c_code_holds_up_is_abandoned(tmp_path: Path) -> None:
    stuck = threading.Lock()
    stuck.acquire()
    client = SlowClient(stuck.acquire)
    run = Run(data=letter_pairs(12), client=client, folder=tmp_path / "run", steps=3)
    run.start()
    assert client.begun.wait(TIMEOUT)
    run.stop()
    assert run.wait(TIMEOUT)
    assert (run.status, run.error) == ("stopped", None)
    assert not client.ended.is_set()
    stuck.release()
    assert client.ended.wait(TIMEOUT)
    assert loading.ONE_AT_A_TIME.acquire(timeout=TIMEOUT)
    loading.ONE_AT_A_TIME.release()


def test_pause_lets_a_load_end(tmp_path: Path) -> None:
    gate = Gate(holds=1)
    run = Run(data=letter_pairs(12), client=SlowClient(gate), folder=tmp_path / "run", steps=3)
    run.start()
    gate.wait()
    run.pause()
    gate.open()
    assert run.wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("paused", 0)
    assert run.trainer is not None
    run.stop()


def test_data_of_a_run_that_was_stopped_before_can_be_loaded(tmp_path: Path) -> None:
    run = Run(data=letter_pairs(12), client=BigramClient(), folder=tmp_path / "run", steps=3).stop()
    assert run.prepare_data().job.size == 11
    assert run.prepare().trainer is not None


def test_a_load_is_not_cancelled_in_the_middle_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is half imported could not be imported again."""
    gate = Gate(holds=1)
    state = types.ModuleType("gate_of_the_load")
    state.__dict__["gate"] = gate
    monkeypatch.setitem(sys.modules, "gate_of_the_load", state)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needed_by_the_load.py").write_text("from gate_of_the_load import gate\ngate()\ndone = True\n")
    cancels: list[bool] = []
    with pytest.raises(LoadCancelled, match=r"^the run was stopped while it was loading$"):
        load_alone(lambda: __import__("needed_by_the_load"), lambda: cancels.append(True) or len(cancels) > 1)
    gate.wait()
    gate.open()
    assert loading.ONE_AT_A_TIME.acquire(timeout=TIMEOUT)
    loading.ONE_AT_A_TIME.release()
    assert sys.modules.pop("needed_by_the_load").done
