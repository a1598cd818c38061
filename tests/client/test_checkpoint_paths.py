from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.client.checkpoint_paths import CheckpointPaths, default_home
from mint_lab.errors import CheckpointError, ConfigError

PATHS = CheckpointPaths(Path("/srv/x/.mint_lab"))


def test_path_and_folder() -> None:
    uri = PATHS.uri("local-1", "weights", "step-3")
    assert uri == "tinker://local-1/weights/step-3"
    assert PATHS.folder(uri) == Path("/srv/x/.mint_lab/checkpoints/local-1/weights/step-3")
    assert PATHS.parse(uri) == ("local-1", "weights", "step-3")
    assert PATHS.folder(uri.replace("tinker", "mint")) == PATHS.folder(uri)
    for other in ("mint://local-1/weights", "mint://../weights/a", "mint:/local-1/weights/a"):
        with pytest.raises(CheckpointError, match="is not a checkpoint path"):
            PATHS.parse(other)


def test_directories_are_used_as_they_are() -> None:
    assert PATHS.folder("/data/c") == Path("/data/c")
    assert PATHS.folder(Path("c")) == Path("c")
    assert PATHS.folder("~/c") == Path.home() / "c"


@given(st.text(max_size=12))
def test_names_stay_inside_the_folder(name: str) -> None:
    try:
        folder = PATHS.folder(PATHS.uri("run", "weights", name))
    except ConfigError:
        assert not (name.isascii() and name.isalnum())
        return
    assert folder.resolve().parent == (PATHS.home / "checkpoints/run/weights").resolve()
    assert folder.name == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "é", None, 3])
def test_invalid_names_raise(name: object) -> None:
    with pytest.raises(ConfigError, match="expected letters, digits"):
        PATHS.uri("run", "weights", name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "tinker://",
        "tinker://a",
        "tinker://a/weights",
        "tinker://a/weights/b/c",
        "tinker://../weights/b",
        "tinker://a/weights/..",
        None,
        3,
    ],
)
def test_invalid_paths_raise(path: object) -> None:
    with pytest.raises(
        CheckpointError, match=r"is not a checkpoint path; expected tinker://RUN/weights/NAME or a directory"
    ):
        PATHS.folder(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("run", ["", "..", "a/b", None])
def test_invalid_runs_raise(run: object) -> None:
    with pytest.raises(CheckpointError, match="is not the name of a run"):
        PATHS.run_folder(run)  # type: ignore[arg-type]


def test_existing_checkpoint_is_not_free(tmp_path: Path) -> None:
    paths = CheckpointPaths(tmp_path)
    uri = paths.uri("r", "weights", "n")
    paths.check_free(uri, overwrite=False)
    paths.folder(uri).mkdir(parents=True)
    paths.check_free(uri, overwrite=True)
    with pytest.raises(
        CheckpointError, match=r"tinker://r/weights/n exists; choose another name or pass overwrite=True"
    ):
        paths.check_free(uri, overwrite=False)
    assert paths.run_names() == ["r"]


def test_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_LAB_HOME", "/tmp/there")
    assert default_home() == Path("/tmp/there")
    monkeypatch.setenv("MINT_LAB_HOME", "")
    assert default_home() == Path.home() / ".mint_lab"
