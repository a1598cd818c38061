"""What a reader relies on in every file: commands that exist, files and functions one can take in, nothing private."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE, LONGEST_FUNCTION = 600, 50
# Spelled in pieces, so that this file does not contain what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        [
            *(r"\.".join(host) for host in (["pypi", "org"], ["pythonhosted", "org"], ["registry", "npmjs", "org"])),
            r"deb\.debian" + r"\.org",
            "/" + r"work/",
            "/" + r"farm/",
            r"/home/\w+/",
            r"/Users/\w+/",
            r"\bissue" + r" #?\d+",
            r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b",
        ]
    )
)
BINARY = {".gz", ".ico", ".jpg", ".parquet", ".png", ".safetensors", ".woff2"}


def tracked() -> list[Path]:
    """Every file that belongs to the project, those not yet committed included."""
    git = shutil.which("git")
    assert git, "these tests ask git which files belong to the project"
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SOURCE = [path for path in FILES if path.suffix in {".js", ".mjs", ".py", ".ts", ".tsx"}]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_files_to_look_at() -> None:
    assert len(PYTHON) > 30
    assert ROOT / "mint_lab" / "errors.py" in PYTHON


@pytest.mark.parametrize("path", SOURCE, ids=named)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_no_function_is_too_long(path: Path) -> None:
    """The docstring does not count: it is there to be long where that helps."""
    long: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - (body[0].lineno if body else node.lineno) + 1
            if lines > LONGEST_FUNCTION:
                long.append(f"{node.name}: {lines} lines")
    assert long == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix not in BINARY], ids=named)
def test_nothing_private_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":  # a picture's base64 spells whatever it likes
        text = re.sub(r'("image/png": ")[A-Za-z0-9+/=\\n]+', r"\1", text)
    assert [match.group() for match in FORBIDDEN.finditer(text)] == []


def test_there_is_no_drawer_for_everything() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert [named(path) for path in PYTHON if path.name in drawers] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_documents_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    written = set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert {"lab", "test"} <= written <= targets


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (path for path in FILES if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            # The documentation links to a file of the repository as repo:PATH.
            path = ROOT / target.removeprefix("repo:") if target.startswith("repo:") else document.parent / target
            assert path.exists(), f"{named(document)} links to {target}"


def test_the_badge_opens_a_notebook_that_exists() -> None:
    found = re.search(
        r"mybinder\.org/v2/gh/[\w-]+/[\w-]+/\w+\?urlpath=lab/tree/(\S+?)\)", (ROOT / "README.md").read_text()
    )
    assert found
    assert (ROOT / found.group(1)).is_file()


def test_versions_agree() -> None:
    """One version, in pyproject.toml; the page's package and the changelog follow it."""
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    for package in ("widgets/package.json", "widgets/lab/package.json"):
        assert json.loads((ROOT / package).read_text(encoding="utf-8"))["version"] == version.group(1)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
