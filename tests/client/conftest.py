"""A service with a home of its own, and training clients on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient

from ..engine.conftest import family, qwen3

__all__ = ["family", "qwen3"]


@pytest.fixture
def service(tmp_path: Path) -> ServiceClient:
    return ServiceClient(home=tmp_path / "home")


@pytest.fixture
def client(service: ServiceClient, qwen3: Path) -> TrainingClient:
    return service.create_lora_training_client(str(qwen3), rank=3, seed=0)
