"""Checkpoints listed and deleted through the API's REST calls, over the folders they are."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch

from mint_lab.client.rest import RestClient
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError, ConfigError
from mint_lab.types import Checkpoint, CheckpointsListResponse, TrainingRun, TrainingRunsResponse

from .steps import train


@pytest.fixture
def rest(service: ServiceClient) -> RestClient:
    return service.create_rest_client()


def save(service: ServiceClient, client: TrainingClient, name: str, at: int, *, sampler: bool = False) -> str:
    """A checkpoint whose time is ``at`` seconds after 1970."""
    path = (client.save_weights_for_sampler(name) if sampler else client.save_state(name)).result().path
    os.utime(service._paths.folder(path) / "mint_lab.json", (at, at))
    return path


def test_run_is_found_by_checkpoint_path(
    rest: RestClient, service: ServiceClient, client: TrainingClient, qwen3: Path
) -> None:
    save(service, client, "one", 100)
    path = save(service, client, "two", 200)
    sampler = save(service, client, "s", 150, sampler=True)
    run = rest.get_training_run_by_tinker_path(path).result()
    assert isinstance(run, TrainingRun)
    assert (run.training_run_id, run.base_model) == (client.model_id, str(qwen3))
    assert (run.is_lora, run.lora_rank, run.corrupted) == (True, 3, False)
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.tinker_path == path
    assert run.last_sampler_checkpoint is not None
    assert run.last_sampler_checkpoint.tinker_path == sampler
    assert run.last_request_time == datetime.fromtimestamp(200, UTC)
    assert rest.get_training_run(client.model_id).result() == run


def test_checkpoints_are_listed_latest_first(rest: RestClient, service: ServiceClient, client: TrainingClient) -> None:
    paths = [save(service, client, name, at) for name, at in (("a", 300), ("b", 100), ("c", 200))]
    half = service._paths.folder(paths[0]).with_name(".d-draft")
    half.mkdir()
    (half / "mint_lab.json").write_text("{}")
    found = rest.list_checkpoints(client.model_id).result()
    assert isinstance(found, CheckpointsListResponse)
    assert [c.tinker_path for c in found.checkpoints] == [paths[0], paths[2], paths[1]]
    first = found.checkpoints[0]
    assert isinstance(first, Checkpoint)
    assert (first.checkpoint_id, first.checkpoint_type, first.public) == ("weights/a", "training", False)
    assert first.size_bytes == sum(f.stat().st_size for f in service._paths.folder(paths[0]).iterdir())
    assert rest.list_checkpoints("nobody").result().checkpoints == []


def test_runs_are_listed_in_pages(rest: RestClient, service: ServiceClient, qwen3: Path) -> None:
    assert rest.list_training_runs().result().training_runs == []
    ids = []
    for at in (100, 300, 200):
        client = service.create_lora_training_client(str(qwen3), rank=1)
        save(service, client, "x", at)
        ids.append(client.model_id)
    found = rest.list_training_runs(limit=2).result()
    assert isinstance(found, TrainingRunsResponse)
    assert [r.training_run_id for r in found.training_runs] == [ids[1], ids[2]]
    assert (found.cursor.offset, found.cursor.limit, found.cursor.total_count) == (0, 2, 3)
    assert [r.training_run_id for r in rest.list_training_runs(limit=2, offset=2).result().training_runs] == [ids[0]]


def test_damaged_checkpoint_hides_no_others(rest: RestClient, service: ServiceClient, qwen3: Path) -> None:
    good, bad = (service.create_lora_training_client(str(qwen3), rank=1) for _ in range(2))
    save(service, good, "x", 100)
    path = save(service, bad, "x", 200)
    (service._paths.folder(path) / "mint_lab.json").write_text("{")
    assert [r.training_run_id for r in rest.list_training_runs().result().training_runs] == [good.model_id]
    with pytest.raises(CheckpointError, match="is damaged"):
        rest.get_training_run(bad.model_id).result()
    assert len(rest.list_checkpoints(bad.model_id).result().checkpoints) == 1, "it can still be found, and deleted"


def test_killed_save_is_recovered_when_listed(rest: RestClient, service: ServiceClient, client: TrainingClient) -> None:
    path = save(service, client, "one", 100)
    folder = service._paths.folder(path)
    aside = folder.with_name(".one.old")  # where the overwrite had moved it
    folder.rename(aside)
    assert [c.tinker_path for c in rest.list_checkpoints(client.model_id).result().checkpoints] == [path]
    folder.rename(aside)
    with pytest.raises(CheckpointError, match="exists; choose another name"):
        client.save_state("one").result()
    shutil.copytree(folder, aside)  # killed a little later: the new one is in its place already
    rest.delete_checkpoint_from_tinker_path(path).result()
    assert list(folder.parent.iterdir()) == []
    assert rest.list_checkpoints(client.model_id).result().checkpoints == []


def test_delete_checkpoint(rest: RestClient, service: ServiceClient, client: TrainingClient) -> None:
    kept, gone = save(service, client, "kept", 100), save(service, client, "gone", 200)
    assert rest.delete_checkpoint_from_tinker_path(gone).result() is None
    assert [c.tinker_path for c in rest.list_checkpoints(client.model_id).result().checkpoints] == [kept]
    assert sorted(f.name for f in service._paths.folder(kept).parent.iterdir()) == ["kept"], "no remains"
    with pytest.raises(CheckpointError, match=f"no checkpoint at {gone}"):
        rest.delete_checkpoint_from_tinker_path(gone).result()
    client.save_state("gone").result()
    rest.delete_checkpoint(client.model_id, "weights/kept").result()
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        client.load_state(kept).result()


@pytest.mark.parametrize("path", ["weights", "tinker://a/weights", "tinker://../weights/x", "/", "."])
def test_nothing_but_checkpoints_is_deleted(
    path: str, rest: RestClient, client: TrainingClient, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mint_lab.json").write_text("{}")
    for bad in (path, str(outside)):
        future = rest.delete_checkpoint_from_tinker_path(bad)
        with pytest.raises(CheckpointError, match="is not a checkpoint path"):
            future.result()
        with pytest.raises(CheckpointError, match="is not a checkpoint path"):
            rest.get_training_run_by_tinker_path(bad).result()
    assert (outside / "mint_lab.json").is_file()


def test_unknown_runs_raise(rest: RestClient) -> None:
    with pytest.raises(CheckpointError, match="run 'nobody' has no checkpoint under"):
        rest.get_training_run("nobody").result()
    with pytest.raises(CheckpointError, match="is not the name of a run"):
        rest.list_checkpoints("../..").result()


def test_async_forms(rest: RestClient, service: ServiceClient, client: TrainingClient) -> None:
    path = save(service, client, "a", 100)

    async def use() -> None:
        run = await rest.get_training_run_by_tinker_path_async(path)
        assert run == await rest.get_training_run_async(client.model_id) == await rest.get_training_run(client.model_id)
        assert len((await rest.list_checkpoints_async(client.model_id)).checkpoints) == 1
        assert len((await rest.list_training_runs_async()).training_runs) == 1
        await rest.delete_checkpoint_from_tinker_path_async(path)
        with pytest.raises(CheckpointError):
            await rest.delete_checkpoint_async(client.model_id, "weights/a")

    asyncio.run(use())
    assert str(service._paths.home) in repr(rest)
    for name, _ in inspect.getmembers(RestClient, inspect.isfunction):
        if not name.startswith("_") and not name.endswith("_async"):
            assert hasattr(RestClient, f"{name}_async")


def test_checkpoints_of_all_runs(rest: RestClient, service: ServiceClient, client: TrainingClient, qwen3: Path) -> None:
    other = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    paths = [save(service, c, name, at) for c, name, at in ((client, "a", 100), (other, "b", 300), (client, "c", 200))]
    found = rest.list_user_checkpoints().result()
    assert [c.tinker_path for c in found.checkpoints] == [paths[1], paths[2], paths[0]]
    second = asyncio.run(rest.list_user_checkpoints_async(limit=1, offset=1))
    assert [c.tinker_path for c in second.checkpoints] == [paths[2]]
    assert second.cursor is not None
    assert second.cursor.total_count == 3


def test_weights_info_and_files(rest: RestClient, service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0, train_mlp=False)
    path = client.save_state("a").result().path
    info = asyncio.run(rest.get_weights_info_by_tinker_path_async(path))
    assert (info.base_model, info.is_lora, info.lora_rank) == (str(qwen3), True, 2)
    assert (info.train_attn, info.train_mlp, info.train_unembed) == (True, False, True)
    found = asyncio.run(rest.get_external_weights_urls_async(path))
    folder = service._paths.folder(path)
    assert set(found.urls) == {file.name for file in folder.iterdir()}
    with urlopen(found.urls["adapter_model.safetensors"]) as file:
        assert file.read() == (folder / "adapter_model.safetensors").read_bytes()
    assert found.expires > datetime.now(UTC)


def test_a_copy_is_a_run_of_its_own(rest: RestClient, service: ServiceClient, client: TrainingClient) -> None:
    train(client)
    path = client.save_state("a").result().path
    copies = [
        asyncio.run(rest.copy_weights_async(path)),
        service.copy_weights(path, ttl_seconds=5).result(),
        rest.copy_weights(str(service._paths.folder(path))).result(),
    ]
    assert len({*copies, path}) == 4
    rest.delete_checkpoint_from_tinker_path(path).result()
    for copy in copies:
        loaded = service.create_training_client_from_state_with_optimizer(copy)
        for name, weight in client._adapter.copy().items():
            assert torch.equal(loaded._adapter.copy()[name], weight)
    sampler = rest.copy_weights(save(service, client, "s", 1, sampler=True)).result()
    assert rest.get_training_run_by_tinker_path(sampler).result().last_sampler_checkpoint is not None


@pytest.mark.parametrize("call", ["get_weights_info_by_tinker_path", "get_external_weights_urls", "copy_weights"])
@pytest.mark.parametrize("path", ["tinker://nobody/weights/a", "tinker://../weights/a", "/no/such/folder"])
def test_what_is_not_there_is_named(call: str, path: str, rest: RestClient) -> None:
    with pytest.raises(CheckpointError, match=path.rpartition("/")[0]):
        getattr(rest, call)(path).result()


def test_a_copy_on_a_full_disk(rest: RestClient, client: TrainingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path = client.save_state("a").result().path

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(CheckpointError, match=r"cannot be copied to .*copy-.*: .*No space left on device"):
        rest.copy_weights(path).result()
    assert len(rest.list_user_checkpoints().result().checkpoints) == 1


def test_an_sdk_without_the_response_says_where_the_files_are(
    rest: RestClient, service: ServiceClient, client: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = client.save_state("a").result().path
    monkeypatch.delattr("tinker.types.ExternalWeightsUrlsResponse")
    monkeypatch.delattr("mint_lab.types.ExternalWeightsUrlsResponse", raising=False)
    with pytest.raises(ConfigError, match=f"later version of tinker.*{service._paths.folder(path)}"):
        rest.get_external_weights_urls(path).result()
