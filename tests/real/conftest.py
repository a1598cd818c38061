"""Where the real model is. ``make test`` prepares it; with ``REAL=0`` these tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .prepare import MODEL

PLACE = Path(os.environ.get("MINT_LAB_REAL_MODEL", Path(__file__).parents[2] / ".cache" / "real"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def place() -> Path:
    """The folder with the model and the tokenizers."""
    if os.environ.get("REAL") == "0":
        pytest.skip("REAL=0: without the real model")
    if not (PLACE / "complete").is_file():
        pytest.fail(
            "there is no real model: `make real-model` prepares it, REAL=0 leaves these tests out", pytrace=False
        )
    return PLACE


@pytest.fixture(scope="session")
def model(place: Path) -> Path:
    return place / MODEL
