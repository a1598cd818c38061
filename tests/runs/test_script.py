"""The script of a run makes the same run again, in a process of its own; what it cannot name it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mint_lab as ml
from mint_lab.cells.loss_cell import run_cell
from mint_lab.cells.reward_cell import run_reward_cell
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.data.rewards import REWARDS
from mint_lab.errors import RunError
from mint_lab.losses import LOSSES
from mint_lab.runs import Run, load_run

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT
from .continued import plain

ROOT = Path(__file__).parents[2]

CELL = """\
def scaled(data, logprobs_list, beta=0.5):
    import torch
    margins = torch.stack([lp.sum() for lp in logprobs_list])
    return -torch.nn.functional.logsigmoid(beta * (margins[0::2] - margins[1::2])).mean(), {"half": beta / 2}
"""


def execute(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=script.parent)


def weights(folder: Path) -> bytes:
    last = max(path.name for path in (folder / "snapshots").iterdir())
    return (folder / "snapshots" / last / "adapter_model.safetensors").read_bytes()


def assert_makes_it_again(run: Run, tmp_path: Path) -> str:
    text = run.script(tmp_path / "made.py")
    assert (tmp_path / "made.py").read_text() == text
    done = execute(tmp_path / "made.py", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr[-3000:] + text
    ours, theirs = load_run(tmp_path / "run"), load_run(tmp_path / "again")
    assert plain(theirs.records) == plain(ours.records)
    assert (theirs.edits, theirs.losses, theirs.baseline) == (ours.edits, ours.losses, ours.baseline)
    assert (theirs.info.status, theirs.info.name) == (ours.info.status, ours.info.name)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    return text


@pytest.fixture
def forget() -> Any:
    yield
    for registry, names in ((LOSSES, ("scaled",)), (REWARDS, ("longer",))):
        for name in names:
            registry._entries.pop(name, None)
            registry._first.pop(name, None)


@pytest.mark.usefixtures("forget")
def test_a_script_makes_a_run_with_edits_again(tmp_path: Path) -> None:
    """Edits of settings, a second version of a loss, another loss, and more steps, each at its step."""
    spec = run_cell("scaled --no-preflight", CELL, {}).spec
    run = Run(
        "preference",
        spec,
        data=arithmetic_pairs(40),
        folder=tmp_path / "run",
        loss_config={"beta": 0.7},
        **{"steps": 4, "batch_size": 3, "eval_every": 2, "weight_decay": 0.1, "schedule": "linear"},
    )
    run.step(2).wait(TIMEOUT)
    run.set(beta=1 / 3, accumulate=2, betas=(0.8, 0.9)).step().wait(TIMEOUT)
    run_cell("scaled --no-preflight", CELL.replace("0.5", "0.25").replace("mean()", "sum()"), {})
    run.start().wait(TIMEOUT)
    run.set(steps=7, schedule="cosine").step().wait(TIMEOUT)
    run.set_loss("simpo", gamma=0.3).start().wait(TIMEOUT)
    assert run.status == "finished"
    text = assert_makes_it_again(run, tmp_path)
    assert "run.set_loss('simpo', beta=2.0, gamma=0.3)" in text
    assert "data=rows('made-data.jsonl')" in text
    assert "missing(" not in text


@pytest.mark.usefixtures("forget")
def test_a_script_makes_a_run_with_rewards_again(tmp_path: Path) -> None:
    source = "def longer(response_text, example):\n    return float(len(response_text) % BASE)\n"
    notebook = {"BASE": 3}
    run_reward_cell("longer", source.replace("BASE", "3"), notebook)
    options: dict[str, Any] = {"group_size": 3, "max_tokens": 4, "batch_size": 2, "steps": 4, "eval_every": 2}
    run = Run("rl", reward="longer", folder=tmp_path / "run", **options)
    run.step(2).wait(TIMEOUT)
    run_reward_cell("longer", source.replace("BASE", "2"), notebook)
    run.start().wait(TIMEOUT)
    text = assert_makes_it_again(run, tmp_path)
    assert text.count("reward_from_source(\n") == 2


def test_what_was_in_memory_is_asked_for(tmp_path: Path) -> None:
    """Without a path there is no place for rows; an iterator has been read, and a client has no name."""
    run = Run(client=BigramClient(), data=letter_pairs(20), steps=2, batch_size=3, folder=tmp_path / "run")
    run.start().wait(TIMEOUT)
    text = run.script()
    assert "data was in memory (list of 20 rows): put it here, or write the script with run.script(path)" in text
    assert "this run was given a training client: create one here" in text
    given = Run("preference", data=iter(letter_pairs(20)))
    assert "data was an object in memory (list_iterator) that is no list of rows: put it here" in given.script()
    script = tmp_path / "made.py"
    script.write_text(text)
    done = execute(script)
    assert done.returncode == 1
    assert done.stderr.startswith("data was in memory (list of 20 rows)")
    with pytest.raises(RunError, match=r"cannot write .*made-data.jsonl"):
        run.script(tmp_path / "nowhere" / "made.py")


def test_a_script_before_the_start_and_after_a_stop(tmp_path: Path) -> None:
    run = Run(client=BigramClient(), data=letter_pairs(20), steps=6, batch_size=3, folder=tmp_path / "run")
    assert run.script().endswith("run.start().wait()\nprint(run)\n")
    run.step(2).wait(TIMEOUT)
    run.set(learning_rate=0.25)
    assert run.script().endswith("run.step(2).wait()\nrun.set(learning_rate=0.25)\nrun.start().wait()\nprint(run)\n")
    run.stop()
    assert run.script().endswith("run.step(2).wait()\nrun.stop()\nprint(run)\n")


def test_sources_that_do_not_stand_alone(tmp_path: Path) -> None:
    """A closure reads a variable that no script has; a module that the source names is imported."""
    width = 2.0

    def inner(data: Any, logprobs_list: Any) -> Any:
        return sum(lp.sum() for lp in logprobs_list) * width, {}

    text = Run("preference", inner, data=letter_pairs(20)).script()
    assert "missing('the source of the loss inner v1 is not known: put the loss here')" in text
    text = Run("preference", of_module, data=letter_pairs(20)).script()
    assert "import mint_lab as ml\nfrom typing import Any\n\n\ndef of_module(" in text


def of_module(data: Any, logprobs_list: Any) -> Any:
    return ml.LOSSES["dpo"].fn(data, logprobs_list), {}
