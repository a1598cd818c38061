"""Every public call, argument and built-in loss of the installed SDK is here, or left out on purpose for a reason.

A new version of the SDK that adds one fails this test: implement it, or say below why not.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any, get_args

import pytest
import tinker
from tinker.lib.public_interfaces.rest_client import RestClient as HostedRest
from tinker.lib.public_interfaces.sampling_client import SamplingClient as HostedSampling
from tinker.lib.public_interfaces.service_client import ServiceClient as HostedService
from tinker.lib.public_interfaces.training_client import TrainingClient as HostedTraining

from mint_lab.client.rest import RestClient
from mint_lab.client.sampling import SamplingClient
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError, MintLabError
from mint_lab.losses import LOSSES

CLIENTS: dict[str, tuple[type, type]] = {
    "ServiceClient": (HostedService, ServiceClient),
    "TrainingClient": (HostedTraining, TrainingClient),
    "SamplingClient": (HostedSampling, SamplingClient),
    "RestClient": (HostedRest, RestClient),
}

TRANSPORT = "a part of the SDK's connection to its server; there is no connection here"
ACCOUNT = "about users, projects and bills of the hosted service; what is on this machine belongs to its user"
SESSION = "the hosted service groups calls by sessions; the local service has none"
SHARING = "a checkpoint here is a folder: whoever can read the folder can read it"
OMITTED_CALLS = {
    "TrainingClient.get_telemetry": TRANSPORT,
    "TrainingClient.get_console_url": "the hosted service has a page for each training; here is the page of a Run",
    "TrainingClient.save_weights_external": "save_state writes to this machine, and the files are not encrypted",
    "SamplingClient.create": TRANSPORT,
    "SamplingClient.on_queue_state_change": TRANSPORT,
    "SamplingClient.get_telemetry": TRANSPORT,
    "RestClient.get_telemetry": TRANSPORT,
    "RestClient.get_server_capabilities": "as of the service client, which has them",
    "RestClient.assign_session_project": ACCOUNT,
    "RestClient.get_audit_log": ACCOUNT,
    "RestClient.get_billing_usage": ACCOUNT,
    "RestClient.get_current_checkpoint_storage_usage": ACCOUNT,
    "RestClient.whoami": ACCOUNT,
    "RestClient.export_session_trace": SESSION,
    "RestClient.get_sampler": SESSION,
    "RestClient.get_session": SESSION,
    "RestClient.list_sessions": SESSION,
    "RestClient.search_sessions": SESSION,
    "RestClient.publish_checkpoint_from_tinker_path": SHARING,
    "RestClient.unpublish_checkpoint_from_tinker_path": SHARING,
    "RestClient.set_checkpoint_ttl_from_tinker_path": "a checkpoint here stays until it is deleted",
    "RestClient.get_checkpoint_archive_url": "the checkpoint is a folder on this disk, see get_external_weights_urls",
    "RestClient.get_checkpoint_archive_url_from_tinker_path": "as get_checkpoint_archive_url, which is not here either",
}
OMITTED_LOSSES = {
    "gspo": "its bounds and its field sequence_ratio_mask are not published; the paper's loss is LOSSES['gspo']",
    "stable_reinforce": "its definition is not published; it is the cookbook's default, so it is refused by name",
    "custom": "the name of what forward_backward_custom sends",
}
NEWEST = version("tinker") != "0.22.0"


def calls_of(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_") and callable(value)}


def arguments_of(call: Any) -> set[str]:
    return {name for name in inspect.signature(call).parameters if name != "self"}


@pytest.mark.parametrize("client", CLIENTS)
def test_every_call_and_argument_is_here(client: str) -> None:
    hosted, local = map(calls_of, CLIENTS[client])
    missing = []
    for name, call in hosted.items():
        sync = name.removesuffix("_async")
        if f"{client}.{sync}" in OMITTED_CALLS:
            continue
        if name not in local:
            missing.append(name)
            continue
        # An async form passes its arguments on.
        ours = arguments_of(local[sync])
        missing += [f"{name}({argument}=)" for argument in arguments_of(call) - ours]
    assert missing == []


@pytest.mark.skipif(not NEWEST, reason="some entries are about later versions")
def test_what_is_left_out_exists_and_has_a_reason() -> None:
    gone = {"RestClient.get_checkpoint_archive_url", "RestClient.get_checkpoint_archive_url_from_tinker_path"}
    for name, reason in OMITTED_CALLS.items():
        client, _, call = name.partition(".")
        hosted, local = map(calls_of, CLIENTS[client])
        assert call in hosted or name in gone, f"{name} is no call of the SDK"
        assert call not in local, f"{name} is implemented: remove it from the list"
        assert len(reason.split()) > 4


@pytest.mark.parametrize("name", get_args(tinker.types.LossFnType))
def test_every_built_in_loss_is_here_or_refused_by_name(name: str, tmp_path: Any) -> None:
    if name not in OMITTED_LOSSES:
        assert LOSSES[name].builtin
        return
    client = ServiceClient(home=tmp_path).create_lora_training_client(rank=1, seed=0)
    with pytest.raises(MintLabError, match=name):
        client.forward_backward([], name)


@pytest.mark.skipif(not NEWEST, reason="the oldest version has one optimizer only")
def test_another_optimizer_is_refused_by_name(tmp_path: Any) -> None:
    service = ServiceClient(home=tmp_path)
    dimuon = tinker.types.DimuonOptimizerConfig()
    with pytest.raises(ConfigError, match=r"optimizer is DimuonOptimizerConfig, of the optimizer 'dimuon'.*AdamW"):
        service.create_lora_training_client(rank=1, optimizer=dimuon)
    client = service.create_lora_training_client(rank=1, seed=0, optimizer=tinker.types.AdamOptimizerConfig())
    with pytest.raises(ConfigError, match="optim_params is DimuonParams, of the optimizer 'dimuon'"):
        client.optim_step(tinker.types.DimuonParams(learning_rate=1e-3))
    path = client.save_state("a").result().path
    with pytest.raises(ConfigError, match="optimizer is DimuonOptimizerConfig"):
        service.create_training_client_from_state(path, optimizer=dimuon)
