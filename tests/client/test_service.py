"""Making clients: from base models and from checkpoints, used directly or as futures of themselves."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import torch

from mint_lab.client import connect
from mint_lab.client.protocol import ServiceClientProtocol
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError, ConfigError, ModelError
from mint_lab.types import AdamParams, GetServerCapabilitiesResponse, ModelInput
from tests.waiting import TIMEOUT

from ..engine.batches import sampled

PROMPT = ModelInput.from_ints([1, 2, 3])


def test_clients_work_directly_and_as_futures(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    assert client.result(timeout=TIMEOUT) is client
    assert client.get_info().lora_rank == 2
    sampler = service.create_sampling_client(base_model=str(qwen3))
    assert sampler.result() is sampler
    client.save_weights_and_get_sampling_client().result().compute_logprobs(PROMPT).result()

    async def wait() -> None:
        made = await service.create_lora_training_client_async(base_model=str(qwen3), rank=1)
        assert await made is made
        path = (await (await made.save_state_async("x"))).path
        assert await service.create_training_client_from_state_async(path)
        assert await service.create_training_client_from_state_with_optimizer_async(path)
        assert (await service.create_sampling_client_async(model_path=path)).get_base_model() == str(qwen3)
        assert await service.get_server_capabilities_async() == service.get_server_capabilities()

    asyncio.run(wait())


def test_service_is_a_context_manager(tmp_path: Path) -> None:
    with ServiceClient(home=tmp_path) as service:
        found = service.get_server_capabilities()
    assert isinstance(found, GetServerCapabilitiesResponse)
    assert [m.model_name for m in found.supported_models] == ["mint-tiny"]
    assert service.close("errored", detail="why").result() is None
    assert isinstance(service, ServiceClientProtocol)
    assert isinstance(connect(), ServiceClient)
    assert list(tmp_path.iterdir()) == [], "nothing is written before something is saved"


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qwen3: Path) -> None:
    monkeypatch.setenv("MINT_LAB_HOME", str(tmp_path / "elsewhere"))
    client = ServiceClient().create_lora_training_client(str(qwen3), rank=1)
    client.save_state("here").result()
    assert (tmp_path / "elsewhere" / "checkpoints" / client.model_id / "weights" / "here" / "mint_lab.json").is_file()


def test_base_url_raises() -> None:
    with pytest.raises(
        ConfigError,
        match=r"trains on this machine; mint_lab.client.connect\('https://x'\) returns a client of a server",
    ):
        ServiceClient(base_url="https://x")
    ServiceClient(
        api_key="tml-unused",
        user_metadata={"a": "b"},
        project_id="p",
        display_name="d",
        default_headers_overrides={"x-a": "b"},
    )
    with pytest.raises(ConfigError, match=r"home is \{'a': 'b'\}, expected a folder"):
        ServiceClient({"a": "b"})  # type: ignore[arg-type]  # the SDK's first argument
    with pytest.raises(TypeError):
        ServiceClient(devise="cpu")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"base_model": "no-such-model-anywhere"}, ModelError, "cannot load base model 'no-such-model-anywhere'"),
        ({"rank": 0}, ModelError, "rank is 0, expected a whole number of at least 1"),
        ({"rank": 1.5}, ModelError, "rank is 1.5"),
        ({"seed": "x"}, ConfigError, "seed is 'x', expected a whole number or None"),
        ({"train_mlp": False, "train_attn": False, "train_unembed": False}, ModelError, "nothing to train"),
    ],
)
def test_invalid_clients_raise(
    options: dict[str, object], kind: type[Exception], words: str, service: ServiceClient, qwen3: Path
) -> None:
    with pytest.raises(kind, match=words):
        service.create_lora_training_client(**{"base_model": str(qwen3), **options})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        service.create_lora_training_client(str(qwen3), ranks=3)  # type: ignore[call-arg]


def test_clients_without_seed_differ(service: ServiceClient, qwen3: Path) -> None:
    torch.manual_seed(0)
    drawn = torch.random.get_rng_state()
    a, b = (service.create_lora_training_client(str(qwen3), rank=2)._adapter.copy() for _ in range(2))
    first = next(iter(a))
    assert not torch.equal(a[first], b[first])
    assert torch.equal(torch.random.get_rng_state(), drawn), "the caller's own random numbers are left alone"


def test_unknown_device_raises(qwen3: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'gpu', expected 'cuda', 'mps' or 'cpu'"):
        ServiceClient(device="gpu").create_lora_training_client(str(qwen3))


def test_sampling_client_needs_a_model(service: ServiceClient) -> None:
    with pytest.raises(ConfigError, match=r"needs model_path .* or base_model"):
        service.create_sampling_client()
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        service.create_sampling_client("tinker://a/weights/b")
    with pytest.raises(CheckpointError, match="is not a checkpoint path"):
        service.create_sampling_client("tinker://a/b")


def test_client_from_checkpoint_has_its_shape(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=3, seed=0, train_mlp=False, train_unembed=False)
    client.forward_backward(sampled(0), "cross_entropy")
    client.optim_step(AdamParams(learning_rate=1e-2)).result()
    path = client.save_state("s").result().path
    made = service.create_training_client_from_state(path)
    assert made.model_id != client.model_id
    assert made._adapter.shape == client._adapter.shape
    assert all(torch.equal(w, made._adapter.copy()[n]) for n, w in client._adapter.copy().items())
    assert service.create_training_client_from_state(path, base_model=str(qwen3)).get_info().lora_rank == 3
    with pytest.raises(CheckpointError, match=r"of base model .*, but this client trains 'mint-tiny'"):
        service.create_training_client_from_state(path, base_model="mint-tiny")


def test_checkpoint_is_found_by_directory(client: TrainingClient, service: ServiceClient, tmp_path: Path) -> None:
    path = client.save_state("s").result().path
    moved = shutil.copytree(service._paths.folder(path), tmp_path / "moved")
    client.load_state(str(moved)).result()
    assert service.create_training_client_from_state(str(moved)).get_info().lora_rank == 3
