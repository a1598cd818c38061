"""The versions that a run records."""

from __future__ import annotations

import importlib.metadata
import platform

import pytest

from mint_lab.runs.versions import versions


def test_versions_are_those_of_the_installed_distributions() -> None:
    found = versions()
    assert list(found) == ["python", "mint_lab", "torch", "transformers", "peft", "tinker"]
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")


def test_missing_distribution_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("mint_lab.runs.versions.version", version)
    assert versions.__wrapped__() == {
        "python": platform.python_version(),
        **dict.fromkeys(("mint_lab", "torch", "transformers", "tinker"), "1.0"),
    }
