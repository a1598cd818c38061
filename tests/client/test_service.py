"""Making clients: from base models and from checkpoints, used directly or as futures of themselves."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.client import connect, text_source
from mint_lab.client.protocol import ServiceClientProtocol
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError, ConfigError, ModelError
from mint_lab.lora_options import LoraOptions
from mint_lab.types import AdamParams, GetServerCapabilitiesResponse, ModelInput, SamplingParams
from tests.waiting import TIMEOUT

from ..engine.batches import datum, sampled
from ..engine.reference import Reference, made_by_peft
from .steps import train

PROMPT = ModelInput.from_ints([1, 2, 3])


def test_clients_work_directly_and_as_futures(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    assert client.result(timeout=TIMEOUT) is client
    assert client.get_info().lora_rank == 2
    sampler = service.create_sampling_client(base_model=str(qwen3))
    assert sampler.result() is sampler
    client.save_weights_and_get_sampling_client().result().compute_logprobs(PROMPT).result()

    async def unwrapped(value: Any) -> Any:
        """What MinT's smoke test does with whatever a call returns."""
        while inspect.isawaitable(value):
            value = await value
        return value

    async def wait() -> None:
        assert await client is client
        made = await unwrapped(service.create_lora_training_client_async(base_model=str(qwen3), rank=1))
        assert isinstance(made, TrainingClient)
        for alone in (
            made,
            await unwrapped(made.save_weights_and_get_sampling_client_async()),
            await unwrapped(service.create_sampling_client_async(base_model=str(qwen3))),
        ):
            assert not inspect.isawaitable(alone)
            assert not hasattr(alone, "result")
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
        ({"rank": 0}, ConfigError, "rank is 0, expected a whole number from 1 up"),
        ({"rank": 1.5}, ConfigError, "rank is 1.5"),
        ({"rank": 49}, ModelError, "rank is 49, expected at most 48: .* its layer's smaller dimension"),
        ({"rank": 2, "lora": LoraOptions(3)}, ConfigError, "rank is 2, but lora has rank 3"),
        ({"lora": {"rank": 3}}, ConfigError, r"lora is {'rank': 3}, expected mint_lab.LoraOptions"),
        ({"train_mlp": False, "lora": LoraOptions(3)}, ConfigError, r"train_mlp is False, but lora is LoraOptions\("),
        ({"lora": LoraOptions(target_modules=["c_attn"])}, ModelError, "names 'c_attn', .* are down_proj, "),
        ({"seed": "x"}, ConfigError, "seed is 'x', expected a whole number or None"),
        ({"train_mlp": False, "train_attn": False, "train_unembed": False}, ConfigError, "nothing to train"),
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
    assert made.lora == client.lora
    assert all(torch.equal(w, made._adapter.copy()[n]) for n, w in client._adapter.copy().items())
    assert service.create_training_client_from_state(path, base_model=str(qwen3)).get_info().lora_rank == 3
    with pytest.raises(CheckpointError, match=r"of base model .*, but this client trains 'mint-tiny'"):
        service.create_training_client_from_state(path, base_model="mint-tiny")


def test_checkpoint_is_found_by_directory(client: TrainingClient, service: ServiceClient, tmp_path: Path) -> None:
    path = client.save_state("s").result().path
    moved = shutil.copytree(service._paths.folder(path), tmp_path / "moved")
    client.load_state(str(moved)).result()
    assert service.create_training_client_from_state(str(moved)).get_info().lora_rank == 3


def reference(client: TrainingClient) -> list[torch.Tensor]:
    return [row.to_torch() for row in client.reference_logprobs(DATA).result()]


def now(client: TrainingClient) -> list[torch.Tensor]:
    return [output["logprobs"].to_torch() for output in client.forward(DATA, "cross_entropy").result().loss_fn_outputs]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor], atol: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def assert_differs(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert float((torch.cat(found) - torch.cat(expected)).abs().max()) > 1e-2


DATA = [datum([9, 8, 7, a, b], [0, 0, 1, 1]) for a, b in ((1, 2), (3, 4), (5, 6))]


@pytest.fixture
def saved(service: ServiceClient, qwen3: Path, tmp_path: Path) -> Path:
    """The folder of a trained adapter of ours, in PEFT's layout."""
    lora = LoraOptions(3, alpha=12, rslora=True, unembed=False)
    client = service.create_lora_training_client(str(qwen3), seed=0, lora=lora)
    train(client, 4)
    client.save_adapter(tmp_path / "saved").result()
    return tmp_path / "saved"


def test_training_goes_on_from_an_adapter(service: ServiceClient, qwen3: Path, saved: Path, tmp_path: Path) -> None:
    """Before the first step, the model and the reference are the base model with the adapter, as PEFT computes it."""
    client = service.create_lora_training_client(str(saved), seed=1)
    assert client.lora == LoraOptions(3, alpha=12, rslora=True, unembed=False)
    assert client.notes == [f"training starts at the adapter in {saved}: {client.lora}"]
    with torch.no_grad():
        plain = Reference(qwen3, saved)
        expected = [
            plain.logprobs(d.model_input.to_ints(), d.loss_fn_inputs["target_tokens"].to_torch().tolist()) for d in DATA
        ]
    before = now(client)
    assert_close(before, expected, 1e-4)
    assert_close(reference(client), before)
    new = service.create_lora_training_client(str(qwen3), rank=3, seed=1)
    assert_differs(reference(new), before)
    assert client.reference_folder() != new.reference_folder()
    again = service.create_lora_training_client(str(saved), seed=2)
    assert client.reference_folder() == again.reference_folder(), "one cache for all that start there"
    train(client, 2)
    assert_differs(now(client), before)
    assert_close(reference(client), before)
    client.save_adapter(tmp_path / "next").result()
    with torch.no_grad():
        plain = Reference(qwen3, tmp_path / "next")
        expected = [
            plain.logprobs(d.model_input.to_ints(), d.loss_fn_inputs["target_tokens"].to_torch().tolist()) for d in DATA
        ]
    assert_close(now(client), expected, 1e-4)


def test_adapter_of_peft_is_trained_and_sampled_from(service: ServiceClient, qwen3: Path, tmp_path: Path) -> None:
    folder = made_by_peft(qwen3, tmp_path / "theirs", r=2, lora_dropout=0.5, target_modules=["q_proj", "up_proj"])
    client = service.create_lora_training_client(str(folder), lora=LoraOptions(
        2, alpha=8, target_modules=["up_proj", "self_attn.q_proj"]))  # fmt: skip
    assert client.lora == LoraOptions(2, alpha=8, target_modules=["q_proj", "up_proj"]), "dropout may differ"
    with torch.no_grad():
        expected = Reference(qwen3, folder).logprobs([1, 2, 3], [2, 3, 4])
    for sampler in (
        service.create_sampling_client(base_model=str(folder)),
        service.create_sampling_client(model_path=str(folder)),
        service.create_training_client_from_state(str(folder)).save_weights_and_get_sampling_client(),
        client.save_weights_and_get_sampling_client(),
    ):
        found = sampler.compute_logprobs(ModelInput.from_ints([1, 2, 3, 4])).result()[1:]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)
    assert train(client, 6)[-1] < 1e6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 4}, "rank is 4, but the adapter in"),
        ({"train_attn": False}, r"train_attn is False, but the adapter in .* is LoraOptions\(rank=3, alpha=12, "),
        ({"lora": LoraOptions(3, unembed=False)}, "lora has alpha=32 and lora has rslora=False, but"),
        ({"lora": LoraOptions(2, alpha=12, rslora=True)}, "lora has rank=2 and lora has other layers, but the adapter"),
    ],
)
def test_other_options_than_a_saved_adapter_has_raise(
    options: dict[str, object], words: str, service: ServiceClient, saved: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        service.create_lora_training_client(str(saved), **options)  # type: ignore[arg-type]
    same = {"rank": 3, "train_unembed": False}
    assert service.create_lora_training_client(str(saved), **same).lora.rank == 3  # type: ignore[arg-type]


def test_base_model_that_is_gone_is_named(service: ServiceClient, qwen3: Path, tmp_path: Path) -> None:
    folder = made_by_peft(qwen3, tmp_path / "theirs", r=2, target_modules=["q_proj"])
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(str(qwen3), "/gone/model"))
    words = r"the adapter in .*theirs is on base model '/gone/model', which cannot be loaded: .*base_model_name_or_path"
    for make in (
        lambda: service.create_lora_training_client(str(folder)),
        lambda: service.create_sampling_client(base_model=str(folder)),
        lambda: text_source(str(folder)),
    ):
        with pytest.raises(ModelError, match=words):
            make()


def test_reference_of_a_saved_state_is_where_its_training_started(service: ServiceClient, saved: Path) -> None:
    """With the optimizer, a training continues; without it, one starts at the weights that were loaded."""
    client = service.create_lora_training_client(str(saved), seed=1)
    before = reference(client)
    train(client, 2)
    after = now(client)
    path = client.save_state("x").result().path
    resumed = service.create_training_client_from_state_with_optimizer(path)
    assert_close(now(resumed), after, 0)
    assert_close(reference(resumed), before, 0)
    assert resumed.reference_folder() == client.reference_folder()
    started = service.create_training_client_from_state(path)
    assert_close(reference(started), after)
    assert_differs(reference(started), before)
    assert started.reference_folder() != client.reference_folder()


def test_reference_of_a_resumed_new_adapter_is_the_base_model(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=3, seed=1)
    untouched = service.create_training_client_from_state(client.save_state("new").result().path)
    before = reference(client)
    train(client, 2)
    resumed = service.create_training_client_from_state_with_optimizer(client.save_state("x").result().path)
    for other in (untouched, resumed):
        assert_close(reference(other), before, 0)
        assert other.reference_folder() == client.reference_folder()


def test_checkpoint_of_another_scale_is_refused(service: ServiceClient, qwen3: Path) -> None:
    """The tensors have the same shapes, and would mean something else."""
    one = service.create_lora_training_client(str(qwen3), lora=LoraOptions(3, alpha=12))
    two = service.create_lora_training_client(str(qwen3), rank=3)
    train(one, 1)
    before = two._adapter.copy()
    with pytest.raises(CheckpointError, match=r"LoraOptions\(rank=3, alpha=12\), which scales its update by 4, and"):
        two.load_state(one.save_state("x").result().path).result()
    assert all(torch.equal(weight, before[name]) for name, weight in two._adapter.copy().items())


def test_dropout_acts_in_training_passes_alone(service: ServiceClient, qwen3: Path) -> None:
    """The same weights without dropout give the same of everything else, bit for bit."""
    plain = service.create_lora_training_client(str(qwen3), rank=3, seed=0)
    train(plain, 3)
    dropping = service.create_lora_training_client(str(qwen3), seed=0, lora=LoraOptions(3, dropout=0.5))
    assert any("dropout 0.5 acts in training passes only" in note for note in dropping.notes)
    dropping.load_state(plain.save_state("x").result().path).result()
    plain.load_state(plain.save_state("y").result().path).result()

    def all_but_training(client: TrainingClient) -> list[list[float]]:
        sampler = client.save_weights_and_get_sampling_client()
        sampled = sampler.sample(PROMPT, 2, SamplingParams(max_tokens=5, seed=3)).result().sequences
        return [
            torch.cat(now(client)).tolist(),
            torch.cat(reference(client)).tolist(),
            client.weight_gradient(DATA, "cross_entropy").result().tolist(),
            [x or 0.0 for x in sampler.compute_logprobs(PROMPT).result()],
            *([float(x) for x in s.tokens] + list(s.logprobs or []) for s in sampled),
        ]

    kept = all_but_training(plain)
    assert all_but_training(dropping) == kept
    losses = [c.forward_backward(DATA, "cross_entropy").result().metrics["loss:sum"] for c in (plain, dropping)]
    assert abs(losses[0] - losses[1]) > 1e-2
    assert all_but_training(dropping) == kept

    def loss(data: object, logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        return -sum((lp[2:].sum() for lp in logprobs), torch.zeros(())), {}

    custom = [c.forward_backward_custom(DATA, loss).result().metrics["loss"] for c in (plain, dropping)]
    assert custom[0] == pytest.approx(losses[0], abs=1e-4)
    assert abs(custom[0] - custom[1]) > 1e-2


def test_dropout_is_reproduced_and_resumed_bit_for_bit(service: ServiceClient, qwen3: Path) -> None:
    def made(seed: int) -> TrainingClient:
        return service.create_lora_training_client(str(qwen3), seed=seed, lora=LoraOptions(3, dropout=0.3))

    one, two, other = made(4), made(4), made(5)
    first = train(one, 4)
    assert train(two, 2) == first[:2]
    assert train(other, 4) != first
    resumed = service.create_training_client_from_state_with_optimizer(two.save_state("x").result().path)
    assert train(resumed, 2, seed=2) == first[2:]
