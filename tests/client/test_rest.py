"""Checkpoints listed and deleted through the API's REST calls, over the folders they are."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mint_lab.client.rest import RestClient
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError
from mint_lab.types import Checkpoint, CheckpointsListResponse, TrainingRun, TrainingRunsResponse


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
