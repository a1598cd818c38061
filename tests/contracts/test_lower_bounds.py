"""Lower bounds: ``constraints-oldest.txt`` has exactly the versions that ``pyproject.toml`` declares as the oldest."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from .oldest_versions import normalized, pinned_versions

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("data", "notebook", "serve")  # those that a user installs
TRACKERS = {"tensorboard", "trackio", "wandb"}  # extras that `make test` does not install: large, or with older pillow


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bounds(requirements: list[str]) -> dict[str, Version]:
    """Return the bound of each requirement; a requirement without exactly one ``>=`` is an error."""
    bounds: dict[str, Version] = {}
    for requirement in map(Requirement, requirements):
        [bound] = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        bounds[normalized(requirement.name)] = Version(bound)
    return bounds


def direct(project: dict[str, Any]) -> dict[str, Version]:
    """Return the lower bounds of everything that a user installs."""
    requirements = [*project["dependencies"], *(r for e in EXTRAS for r in project["optional-dependencies"][e])]
    return lower_bounds(requirements)


def test_a_requirement_without_a_lower_bound_is_refused() -> None:
    assert lower_bounds(["Some_Name>=1.5,<3"]) == {"some-name": Version("1.5")}
    with pytest.raises(ValueError, match="not enough values"):
        lower_bounds(["numpy<3"])


def test_oldest_constraints_are_the_declared_bounds(project: dict[str, Any]) -> None:
    """``peft>=0.18`` means 0.18.0. The Makefile installs torch first and names its version."""
    pins = {name: Version(version) for name, version in pinned_versions().items()}
    declared = direct(project)
    torch = re.search(r"^TORCH_OLDEST \?= (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert torch
    assert "torch" not in pins
    assert declared == {name: pins[name] for name in declared if name != "torch"} | {"torch": Version(torch.group(1))}


def test_newest_constraints_satisfy_every_requirement(project: dict[str, Any]) -> None:
    """``constraints.txt`` pins every package that ``make test`` installs by name, at an allowed version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {normalized(name): version for name, _, version in (line.partition("==") for line in lines)}
    extras = [found for name, found in project["optional-dependencies"].items() if name not in TRACKERS]
    requirements = [Requirement(r) for r in [*project["dependencies"], *(r for extra in extras for r in extra)]]
    others = [r for r in requirements if normalized(r.name) not in {"torch", "mint-lab"}]
    assert [str(r) for r in others if not r.specifier.contains(pins.get(normalized(r.name), "0"))] == []


def test_python_versions_agree(project: dict[str, Any]) -> None:
    """The classifiers name what the workflow tests; the oldest is the lower bound."""
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    tested = re.search(r"python: \[(.+)\]", workflow)
    assert tested
    assert re.findall(r"3\.\d+", tested.group(1)) == classifiers
    assert project["requires-python"] == f">={classifiers[0]}"


@pytest.mark.slow
def test_oldest_versions_script_works_with_the_newest_versions() -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.contracts.oldest_versions", "--any-version"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("trained 3 steps") >= 3
