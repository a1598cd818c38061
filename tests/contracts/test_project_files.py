"""Files that no program of the project reads: workflows, templates, the citation, the help text of the Makefile."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
YAML_FILES = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


def load(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_a_mapping(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_workflow_runs_make_targets_that_exist() -> None:
    jobs = load(".github/workflows/test.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert [command.split()[:2] for command in commands] == [["make", "test"], ["make", "test-oldest"]]
    assert {"test", "test-oldest"} <= TARGETS


def test_continuous_integration_runs_lint_docs_and_pytest() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    prerequisites = re.search(r"^test: (.+)\n(.+)", MAKEFILE, re.MULTILINE)
    assert prerequisites
    assert {"lint", "docs"} <= set(prerequisites.group(1).split())
    assert "pytest" in prerequisites.group(2)


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r'echo "make ([a-z-]+) ', MAKEFILE))
    declared = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert declared
    assert set(declared.group(1).split()) == TARGETS
    assert listed == TARGETS - {"help"}


@pytest.mark.parametrize("name", ["bug_report.yml", "proposal.yml"])
def test_issue_forms_have_what_github_requires(name: str) -> None:
    form = load(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(form)
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields)
    assert all(item["attributes"]["label"] for item in fields)


def test_citation_agrees_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == project["name"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Source"]
    assert citation["authors"] == project["authors"]


def test_commit_hooks_run_the_linters_of_make_lint() -> None:
    hooks = {hook["id"]: hook for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "biome", "check-yaml", "trailing-whitespace"} <= set(hooks)
    for name in ("ruff-check", "ruff-format", "biome"):
        assert hooks[name]["entry"].startswith(".venv/bin/")
