"""The local clients and the SDK's satisfy the protocols that runs, recipes and the page are written against."""

from __future__ import annotations

from typing import Any

import pytest
import tinker

from mint_lab.client import protocol
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient


def test_local_clients_satisfy_the_protocols(service: ServiceClient, client: TrainingClient) -> None:
    assert isinstance(service, protocol.ServiceClientProtocol)
    assert isinstance(client, protocol.TrainingClientProtocol)
    assert isinstance(client, protocol.GradientClient)
    assert isinstance(client, protocol.AdapterClient)
    assert isinstance(client.save_weights_and_get_sampling_client(), protocol.SamplingClientProtocol)


@pytest.mark.parametrize("name", ["ServiceClient", "TrainingClient", "SamplingClient"])
def test_sdk_clients_satisfy_the_protocols(name: str) -> None:
    """Their gradients and weights stay on the server."""
    hosted: Any = getattr(tinker, name)
    assert issubclass(hosted, getattr(protocol, f"{name}Protocol"))
    assert not issubclass(hosted, protocol.GradientClient)
    assert not issubclass(hosted, protocol.AdapterClient)


def test_other_objects_do_not_satisfy_the_protocols(service: ServiceClient, client: TrainingClient) -> None:
    assert not isinstance(service, protocol.TrainingClientProtocol)
    assert not isinstance(client, protocol.ServiceClientProtocol)
