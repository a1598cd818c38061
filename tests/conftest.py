"""What many tests share. Nothing here touches the network."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from .registrations import registrations_undone
from .waiting import open_all_gates, until

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TINKER_TELEMETRY", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The models of the unit tests are so small that a second thread only waits; on a busy machine it waits for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shared runners are slow at odd moments, so no deadline; the same examples every time, so that red means the change.
hypothesis.settings.register_profile("mint_lab", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("mint_lab")

# A shell has what it starts in the background ignore Ctrl+C, which some tests send themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it, and so is the run that preflight takes data from."""
    with registrations_undone():
        yield
    if live_runs := sys.modules.get("mint_lab.runs.live_runs"):
        live_runs._latest_trainer.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    open_all_gates()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A test leaves no thread behind that runs a person's code, makes a run's call, or holds up the exit of Python.

    Other threads may stay for a while: the worker of a model lives as long as the model, which may belong to a fixture
    of several tests, and a widget that was closed may still draw its last picture.
    """
    before = set(threading.enumerate())
    yield
    until(lambda: not _left_threads(before), lambda: _stacks(_left_threads(before)))


def _left_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    guarded = sys.modules.get("mint_lab.usercode.guarded_call")
    idle = set(guarded._idle) if guarded else set()
    working = ("mint_lab loss", "mint_lab call")
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before | idle and (not thread.daemon or thread.name.startswith(working))
    ]


def _stacks(left: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    texts = [f"{t.name}:\n{''.join(traceback.format_stack(frames.get(t.ident or 0)))}" for t in left]
    return "the test left threads behind\n" + "\n".join(texts)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def hh_rlhf(root: Path) -> Path:
    """2,312 real preference pairs (Anthropic's HH-RLHF, harmless-base, test split), which lie beside the repository."""
    path = root.parent / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz"
    if not path.is_file():
        message = f"{path} is missing: the HH-RLHF harmless-base test split, columns chosen / rejected, as JSONL.gz"
        if os.environ.get("MINT_LAB_REAL_DATA") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with a few merges, a chat template and ``<|end|>`` closing both turns and texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(["the", "cat", "sat", "on", "mat"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT_TEMPLATE
    )
