"""mybinder.org gives a container 2 GB: each lesson's kernel has to stay well under it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LIMIT_MB = 1200
LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))


def test_there_are_lessons() -> None:
    assert len(LESSONS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_fits_into_binder(lesson: Path, tmp_path: Path) -> None:
    """Peak resident memory of the kernel, which reads it itself after the last cell.

    From /proc, for ru_maxrss is inherited: a kernel would begin with the peak of the process that started it.
    """
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("print(open('/proc/self/status').read())"))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    status = dict(line.split(":", 1) for line in notebook.cells[-1].outputs[0]["text"].splitlines() if ":" in line)
    peak = int(status["VmHWM"].split()[0]) // 1024
    print(f"{lesson.name}: {peak} MB")
    assert 100 < peak < LIMIT_MB
