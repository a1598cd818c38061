"""A folder is complete or the old one, whatever ends the write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mint_lab import folders
from mint_lab.folders import draft_folder, flush, recover, recover_all, write_folder


class PowerCut(BaseException):
    """Ends a write as a power cut does: nothing is cleaned up."""


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def fill_with(**files: str):
    def fill(draft: Path) -> None:
        for name, text in files.items():
            (draft / name).write_text(text)

    return fill


def test_a_folder_is_written_and_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "x", fill_with(a="1", b="2"))
    write_folder(tmp_path / "deep" / "x", fill_with(a="3"))
    assert content(tmp_path / "deep" / "x") == {"a": "3"}
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["x"]


def test_a_fill_that_fails_leaves_the_old_folder_and_no_draft(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", fill_with(a="1"))

    def fill(draft: Path) -> None:
        (draft / "a").write_text("2")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_folder(tmp_path / "x", fill)
    assert content(tmp_path / "x") == {"a": "1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_files_are_on_the_disk_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_flush, real_replace = folders.flush, Path.replace
    monkeypatch.setattr(folders, "flush", lambda path: order.append(f"flush {path.name[:2]}") or real_flush(path))
    monkeypatch.setattr(Path, "replace", lambda path, to: order.append(f"name {to.name}") or real_replace(path, to))
    write_folder(tmp_path / "x", fill_with(a="1", b="2"))
    assert sorted(order[:2]) == ["flush a", "flush b"]
    assert order[2] == "flush .x"
    assert order[-2:] == ["name x", f"flush {tmp_path.name[:2]}"]


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_power_cut_at_any_moment_leaves_a_complete_folder(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of: flush a, flush b, flush the draft, rename the old one, rename the draft, flush, delete."""
    write_folder(tmp_path / "x", fill_with(a="1", b="1"))
    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= moment:
                raise PowerCut
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *_, **__: None)
    if moment < 7:
        with pytest.raises(PowerCut):
            write_folder(tmp_path / "x", fill_with(a="2", b="2"))
    else:
        write_folder(tmp_path / "x", fill_with(a="2", b="2"))
    monkeypatch.undo()
    recover(tmp_path / "x")
    assert content(tmp_path / "x") == ({"a": "1", "b": "1"} if moment < 6 else {"a": "2", "b": "2"})


def test_recovered_is_only_what_has_no_folder(tmp_path: Path) -> None:
    for name in (".a.old", ".b.old", "b"):
        (tmp_path / name).mkdir()
    recover_all(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".b.old", "a", "b"]


def test_flush_names_what_is_missing(tmp_path: Path) -> None:
    flush(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "no")


def test_drafts_of_a_killed_process_are_removed_by_the_next_write(tmp_path: Path) -> None:
    """A process is killed in mid-write; another draft is being written, and other hidden files are not drafts."""
    code = """
import os, pathlib, sys
from mint_lab.folders import write_folder
def fill(draft):
    (draft / "half").write_text("1")
    os._exit(9)
write_folder(pathlib.Path(sys.argv[1]) / "x", fill)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    left = sorted(entry.suffix for entry in tmp_path.iterdir())
    assert left == [".draft", ".lock"]
    for name in (".mine.lock", ".x.deadbeef.old", ".venv-0a1b2c3d"):
        (tmp_path / name).mkdir()
    with draft_folder(tmp_path / "y") as draft:
        (draft / "a").write_text("being written")
        write_folder(tmp_path / "z", fill_with(a="1"))
        assert content(draft) == {"a": "being written"}
        names = {entry.name for entry in tmp_path.iterdir()}
        assert names == {"z", draft.name, f"{draft.stem}.lock", ".mine.lock", ".x.deadbeef.old", ".venv-0a1b2c3d"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"z", ".mine.lock", ".x.deadbeef.old", ".venv-0a1b2c3d"}
