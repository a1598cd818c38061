"""A service with a home of its own, and training clients on a tiny random model."""

from __future__ import annotations

import random
import secrets
import socket
from pathlib import Path
from typing import Any

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


@pytest.fixture
def fixed_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that give no seed (none can be given through the cookbook's settings) draw the same ones every time."""
    monkeypatch.setattr(secrets, "randbits", random.Random(0).getrandbits)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of the network fails as on a machine without one."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
