"""A server of the bundled model with a state folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mint_lab.client.service import ServiceClient
from mint_lab.server.sessions import TrainingServer

from .api import make_server


@pytest.fixture(scope="package", autouse=True)
def bundled_model() -> Iterator[None]:
    """Keep the model in memory, so that servers that follow each other share it."""
    kept = ServiceClient().create_sampling_client(base_model="mint-tiny")
    yield
    del kept


@pytest.fixture
def server(tmp_path: Path) -> TrainingServer:
    return make_server(tmp_path / "state")


@pytest.fixture(scope="package")
def package_server(tmp_path_factory: pytest.TempPathFactory) -> TrainingServer:
    return make_server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def shared_server(package_server: TrainingServer) -> Iterator[TrainingServer]:
    """One server for tests that leave nothing but sessions in it, which end with the test."""
    yield package_server
    for account in package_server.accounts:
        for session in account.sessions.values():
            session.close()
        account.sessions.clear()
