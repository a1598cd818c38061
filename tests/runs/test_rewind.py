"""A run that returns to a step and starts again repeats itself to the last bit; what fails changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mint_lab.cells.loss_cell import run_cell
from mint_lab.errors import CheckpointError, ConfigError, RunError
from mint_lab.folders import write_folder
from mint_lab.losses import LOSSES
from mint_lab.recipes.record import Edit
from mint_lab.runs import Run, load_run

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT
from .continued import CASES, assert_same, close, finish, plain

SMALL: dict[str, Any] = {"recipe": "preference", "batch_size": 3}


def snapshots(run: Run) -> list[int]:
    return sorted(int(entry.name) for entry in (run.folder / "snapshots").iterdir())


@pytest.mark.parametrize("case", CASES)
def test_a_run_repeats_itself(case: str, tmp_path: Path) -> None:
    settings = CASES[case] | {"steps": 8, "batch_size": 3, "eval_every": 3}
    whole = finish(Run(**settings, folder=tmp_path / "whole"))
    run = finish(Run(**settings, folder=tmp_path / "run"))
    first = run.records
    for step in (6, 5, 0):  # with a snapshot, without one, and the beginning
        later = run.records[step:]
        assert run.rewind(step).steps_done == step
        assert run.status == ("paused" if step else "ready")
        assert run.rewinds[-1].step == step
        assert run.rewinds[-1].records == later
        assert_same(finish(run), whole)
    assert len(first) == 8, "who holds the old list keeps it"
    saved = load_run(run.folder)
    assert [(rewind.step, len(rewind.records)) for rewind in saved.rewinds] == [(6, 2), (5, 3), (0, 8)]
    assert plain(saved.rewinds[-1].records) == plain(whole.records)
    assert saved.notes == []


def test_a_run_that_was_rewound_can_be_opened(tmp_path: Path) -> None:
    whole = finish(Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "whole"))
    run = finish(Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "run")).rewind(3)
    opened = Run.open(close(run))
    assert (opened.steps_done, opened.status) == (3, "paused")
    assert [rewind.step for rewind in opened.rewinds] == [3]
    assert_same(finish(opened), whole)


def test_an_opened_run_is_rewound_before_it_starts(tmp_path: Path) -> None:
    whole = finish(Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "whole"))
    part = Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "run")
    part.step(5).wait(TIMEOUT)
    opened = Run.open(close(part)).rewind(2)
    assert (opened.steps_done, [len(rewind.records) for rewind in opened.rewinds]) == (2, [3])
    assert_same(finish(opened), whole)


def test_later_edits_are_undone_and_the_one_at_the_step_is_kept(tmp_path: Path) -> None:
    run = Run(**SMALL, loss="dpo", steps=8, eval_every=2, folder=tmp_path / "run")
    run.step(2).wait(TIMEOUT)
    run.set(beta=0.4).step(2).wait(TIMEOUT)
    first = run.records[:]
    run.set_loss("simpo").set(learning_rate=1e-4)
    finish(run)
    run.rewind(4)
    assert run.loss.name == "simpo", "this edit takes effect at step 5"
    run.rewind(3)
    assert (run.loss.name, run.loss_config["beta"]) == ("dpo", 0.4)
    assert run.edits == [Edit(3, "setting", "beta 0.4")]
    assert [edit.step for edit in run.rewinds[0].edits] == [5, 5]
    run.step(1).wait(TIMEOUT)
    assert plain(run.records) == plain(first)
    assert [edit.step for edit in load_run(run.folder).edits] == [3]
    assert [loss.name for loss in run.losses] == ["dpo"]


CELL = """\
def scaled(data, logprobs_list, beta=0.5):
    import torch
    margins = torch.stack([lp.sum() for lp in logprobs_list])
    return -torch.nn.functional.logsigmoid(beta * (margins[0::2] - margins[1::2])).mean(), {}
"""


def test_the_loss_is_the_version_of_that_time(tmp_path: Path) -> None:
    """Also if the cell was run again meanwhile, and the registry has only the newer version."""
    run_cell("scaled --no-preflight", CELL, {})
    run = Run(**SMALL, loss="scaled", steps=6, eval_every=2, folder=tmp_path / "run")
    run.step(3).wait(TIMEOUT)
    first = run.records[:]
    run_cell("scaled --no-preflight", CELL.replace("0.5", "2.5"), {})
    run.step(1).wait(TIMEOUT)
    assert run.records[3].loss_version == 2
    run.rewind(2).step(1).wait(TIMEOUT)
    assert plain(run.records) == plain(first)
    assert LOSSES["scaled"].version == 2


def test_a_running_run_pauses_at_the_step(tmp_path: Path) -> None:
    run = Run(**SMALL, steps=10**6, eval_every=2, folder=tmp_path / "run")
    seen = threading.Event()
    run.subscribe(lambda: seen.set() if run.steps_done >= 5 else None)
    run.start()
    assert seen.wait(TIMEOUT)
    run.rewind(3)
    assert (run.status, run.steps_done) == ("paused", 3)
    assert run.rewinds[0].records[0].step == 4
    run.rewind(2)
    assert (run.status, run.steps_done, snapshots(run)[-1]) == ("paused", 2, 2)


def test_a_step_that_cannot_be_repeated(tmp_path: Path) -> None:
    broken = threading.Event()

    def breaks(data: Any, logprobs_list: Any) -> Any:
        if broken.is_set():
            raise ValueError("broken")
        return -sum(lp.sum() for lp in logprobs_list), {}

    run = Run(**SMALL, loss=breaks, steps=6, folder=tmp_path / "run")
    run.step(4).wait(TIMEOUT)
    first = run.records[:]
    broken.set()
    with pytest.raises(RunError, match=r"the steps up to 2 cannot be repeated: .*broken"):
        run.rewind(2)
    assert (run.status, run.steps_done, plain(run.rewinds[0].records)) == ("paused", 0, plain(first[2:]))
    run.rewind(0)
    assert (run.error, run.status) == (None, "ready")
    broken.clear()
    run.step(4).wait(TIMEOUT)
    assert plain(run.records) == plain(first)


def test_what_cannot_be_rewound_is_refused(tmp_path: Path) -> None:
    run = Run(**SMALL, steps=4, folder=tmp_path / "run")
    run.step(2).wait(TIMEOUT)
    for step, message in (
        (3, "step 3 is not complete: 2 steps are complete, so give 0 to 2"),
        (-1, "step is -1, expected a whole number from 0 up"),
        (1.5, "step is 1.5"),
        (True, "step is True"),
        (None, "step is None"),
    ):
        with pytest.raises(ConfigError, match=message):
            run.rewind(step)  # type: ignore[arg-type]
    run.stop()
    with pytest.raises(RunError, match=r"stopped, which is final: use fork\(step\)"):
        run.rewind(1)
    none = Run(**SMALL, steps=4, keep_snapshots=0, folder=tmp_path / "none")
    none.step(2).wait(TIMEOUT)
    hosted = finish(Run(client=BigramClient(), data=letter_pairs(20), steps=3, folder=tmp_path / "hosted"))
    for each in (none, hosted):
        before = each.records
        with pytest.raises(RunError, match=r"to return to: (it keeps none|its client, a \w+, keeps the weights on)"):
            each.rewind(1)
        assert each.records is before
    assert finish(none).steps_done == 4


def test_if_the_folder_cannot_be_written_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finish(Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "whole"))
    run = Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "run")
    run.step(4).wait(TIMEOUT)

    def full(folder: Path, fill: Any) -> None:
        if folder.parent.name == "rewinds":
            raise OSError(28, "No space left on device")
        write_folder(folder, fill)

    with monkeypatch.context() as patched:
        patched.setattr("mint_lab.runs.store.write_folder", full)
        with pytest.raises(RunError, match=r"the run cannot return to step 2: .*No space left"):
            run.rewind(2)
    assert (run.steps_done, run.rewinds, snapshots(run)[-1]) == (4, [], 4)
    assert_same(finish(run), whole)


def test_a_damaged_snapshot_leads_to_the_one_before(tmp_path: Path) -> None:
    whole = finish(Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "whole"))
    run = Run(**SMALL, steps=6, eval_every=2, folder=tmp_path / "run")
    run.step(4).wait(TIMEOUT)
    (run.folder / "snapshots" / "00000002" / "snapshot.json").write_text("{}")
    run.rewind(3)
    assert run.steps_done == 3
    for step in snapshots(run):
        (run.folder / "snapshots" / f"{step:08d}" / "snapshot.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        run.rewind(1)
    assert run.steps_done == 3
    assert_same(finish(run), whole)
