"""List and delete the checkpoints on this machine, with the calls of the API's REST client."""

from __future__ import annotations

import re
import shutil
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.checkpoints import METADATA_FILE, delete_checkpoint, read_adapter, read_metadata
from ..errors import CheckpointError, ConfigError
from ..folders import recover, recover_all, write_folder
from ..lora_options import ADAPTER_CONFIG
from ..types import (
    Checkpoint,
    CheckpointsListResponse,
    Cursor,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoResponse,
)
from .futures import run_now

if TYPE_CHECKING:
    from ..types import APIFuture
    from .checkpoint_paths import CheckpointPaths

__all__ = ["RestClient"]

# Folder within a run -> the API's type of the checkpoints in it.
_CHECKPOINT_TYPES = {"weights": "training", "sampler_weights": "sampler"}


class RestClient:
    """Lists and deletes the checkpoints under one home folder. A run is known once it has saved a checkpoint.

    Every call returns a finished future, and has an ``*_async`` form. ``access_scope`` and ``project_id`` are arguments
    of the hosted service and not used here: everything on this machine belongs to its user.
    """

    def __init__(self, paths: CheckpointPaths) -> None:
        self._paths = paths

    def __repr__(self) -> str:
        return f"RestClient({str(self._paths.home)!r})"

    def get_training_run(self, training_run_id: str, access_scope: str = "owned") -> APIFuture[TrainingRun]:
        """Return base model, rank and latest checkpoints of a run.

        Raises:
            CheckpointError: If the run has no readable checkpoint (from the future).
        """
        return run_now(lambda: self._run(training_run_id))

    def get_training_run_by_tinker_path(self, tinker_path: str, access_scope: str = "owned") -> APIFuture[TrainingRun]:
        """Return the run that saved ``tinker_path``.

        Raises:
            CheckpointError: If the path has another form, or the run has no readable checkpoint (from the future).
        """
        return run_now(lambda: self._run(self._paths.parse(tinker_path)[0]))

    def list_training_runs(
        self, limit: int = 20, offset: int = 0, access_scope: str = "owned", project_id: str | None = None
    ) -> APIFuture[TrainingRunsResponse]:
        """Return ``limit`` runs with readable checkpoints, the latest first, after skipping ``offset``."""

        def read() -> TrainingRunsResponse:
            runs = sorted(self._runs(), key=lambda run: run.last_request_time, reverse=True)
            cursor = Cursor(offset=offset, limit=limit, total_count=len(runs))
            return TrainingRunsResponse(training_runs=runs[offset : offset + limit], cursor=cursor)

        return run_now(read)

    def list_checkpoints(self, training_run_id: str) -> APIFuture[CheckpointsListResponse]:
        """Return the checkpoints of a run, the latest first; none for an unknown run.

        Raises:
            CheckpointError: If ``training_run_id`` is not a plain name (from the future).
        """
        return run_now(lambda: CheckpointsListResponse(checkpoints=self._checkpoints(training_run_id)))

    def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> APIFuture[None]:
        """Delete a checkpoint by its run and id, ``weights/NAME``.

        Raises:
            CheckpointError: As :meth:`delete_checkpoint_from_tinker_path`.
        """
        return self.delete_checkpoint_from_tinker_path(f"tinker://{training_run_id}/{checkpoint_id}")

    def delete_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Delete a checkpoint under the home folder; plain directories are refused.

        Raises:
            CheckpointError: If there is no checkpoint at that path, or it cannot be deleted (from the future).
        """
        return run_now(lambda: self._delete(tinker_path))

    def list_user_checkpoints(self, limit: int = 100, offset: int = 0) -> APIFuture[CheckpointsListResponse]:
        """Return ``limit`` checkpoints of all runs, the latest first, after skipping ``offset``."""

        def read() -> CheckpointsListResponse:
            found = [item for name in self._paths.run_names() for item in self._checkpoints(name)]
            found.sort(key=lambda checkpoint: checkpoint.time, reverse=True)
            cursor = Cursor(offset=offset, limit=limit, total_count=len(found))
            return CheckpointsListResponse(checkpoints=found[offset : offset + limit], cursor=cursor)

        return run_now(read)

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[WeightsInfoResponse]:
        """Return base model, rank and kinds of layers of a checkpoint, or of an adapter's folder.

        Raises:
            CheckpointError: If there is no checkpoint at that path, or it is damaged (from the future).
        """

        def read() -> WeightsInfoResponse:
            saved = read_adapter(self._existing(tinker_path))
            lora = saved.lora
            kinds: dict[str, Any] = {"train_unembed": lora.unembed, "train_mlp": lora.mlp, "train_attn": lora.attn}
            known = {name: value for name, value in kinds.items() if name in WeightsInfoResponse.model_fields}
            return WeightsInfoResponse(base_model=saved.base_model, is_lora=True, lora_rank=lora.rank, **known)

        return run_now(read)

    def get_external_weights_urls(self, tinker_path: str) -> APIFuture[Any]:
        """Return the addresses of a checkpoint's files, ``file://…``, by name; they expire with the files.

        Raises:
            CheckpointError: If there is no checkpoint at that path (from the future).
            ConfigError: If the installed SDK has no such call (from the future).
        """

        def read() -> Any:
            try:
                from ..types import ExternalWeightsUrlsResponse
            except (AttributeError, ImportError):
                raise ConfigError(
                    f"get_external_weights_urls needs a later version of tinker than {version('tinker')}; the files "
                    f"are in {self._existing(tinker_path)}"
                ) from None
            folder = self._existing(tinker_path)
            files = sorted(file for file in folder.iterdir() if file.is_file())
            urls = {file.name: file.absolute().as_uri() for file in files}
            return ExternalWeightsUrlsResponse(urls=urls, expires=datetime.max.replace(tzinfo=UTC))

        return run_now(read)

    def copy_weights(
        self,
        path: str,
        destination_project_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> APIFuture[str]:
        """Copy a checkpoint, or the folder of an adapter, to a run of its own. The other arguments are not used.

        Returns:
            A future of the copy's path.

        Raises:
            CheckpointError: If there is no checkpoint at that path, or it cannot be copied (from the future).
        """

        def copy() -> str:
            folder = self._existing(path)
            read_adapter(folder)  # raises for a damaged one
            kind = folder.parent.name if folder.parent.name in _CHECKPOINT_TYPES else "weights"
            run, name = f"copy-{uuid.uuid4().hex[:12]}", re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).lstrip("._-")
            target = self._paths.run_folder(run) / kind / (name or "copy")
            try:
                write_folder(target, lambda draft: _copy_files(folder, draft))
            except OSError as error:
                raise CheckpointError(f"{path} cannot be copied to {target}: {error}") from error
            return self._paths.uri_of_folder(run, kind, target.name) or str(target)

        return run_now(copy)

    async def list_user_checkpoints_async(self, limit: int = 100, offset: int = 0) -> CheckpointsListResponse:
        return await self.list_user_checkpoints(limit, offset)

    async def get_weights_info_by_tinker_path_async(self, tinker_path: str) -> WeightsInfoResponse:
        return await self.get_weights_info_by_tinker_path(tinker_path)

    async def get_external_weights_urls_async(self, tinker_path: str) -> Any:
        return await self.get_external_weights_urls(tinker_path)

    async def copy_weights_async(self, *args: Any, **kwargs: Any) -> str:
        return await self.copy_weights(*args, **kwargs)

    async def get_training_run_async(self, *args: Any, **kwargs: Any) -> TrainingRun:
        return await self.get_training_run(*args, **kwargs)

    async def get_training_run_by_tinker_path_async(self, *args: Any, **kwargs: Any) -> TrainingRun:
        return await self.get_training_run_by_tinker_path(*args, **kwargs)

    async def list_training_runs_async(self, *args: Any, **kwargs: Any) -> TrainingRunsResponse:
        return await self.list_training_runs(*args, **kwargs)

    async def list_checkpoints_async(self, training_run_id: str) -> CheckpointsListResponse:
        return await self.list_checkpoints(training_run_id)

    async def delete_checkpoint_async(self, training_run_id: str, checkpoint_id: str) -> None:
        await self.delete_checkpoint(training_run_id, checkpoint_id)

    async def delete_checkpoint_from_tinker_path_async(self, tinker_path: str) -> None:
        await self.delete_checkpoint_from_tinker_path(tinker_path)

    def _folders(self, run: str) -> list[tuple[str, Path]]:
        """Return path and folder of every checkpoint of a run, the latest first.

        Drafts and old folders, which :mod:`mint_lab.engine.checkpoints` names with a leading dot, are left out.
        """
        for kind in _CHECKPOINT_TYPES:
            recover_all(self._paths.run_folder(run) / kind)
        checkpoints = [
            (path, folder)
            for kind in _CHECKPOINT_TYPES
            for folder in self._paths.run_folder(run).glob(f"{kind}/*")
            if (path := self._paths.uri_of_folder(run, kind, folder.name)) and (folder / METADATA_FILE).is_file()
        ]
        return sorted(checkpoints, key=lambda item: _time_saved(item[1]), reverse=True)

    def _checkpoints(self, run: str) -> list[Checkpoint]:
        return [_checkpoint(path, folder) for path, folder in self._folders(run)]

    def _run(self, run: str) -> TrainingRun:
        folders = self._folders(run)
        if not folders:
            raise CheckpointError(f"run {run!r} has no checkpoint under {self._paths.home}")
        base_model, lora = read_metadata(folders[0][1])
        checkpoints = [_checkpoint(path, folder) for path, folder in folders]
        latest = {
            checkpoint_type: next((c for c in checkpoints if c.checkpoint_type == checkpoint_type), None)
            for checkpoint_type in _CHECKPOINT_TYPES.values()
        }
        return TrainingRun(
            training_run_id=run,
            base_model=base_model,
            model_owner="local",
            is_lora=True,
            lora_rank=lora.rank,
            last_request_time=checkpoints[0].time,
            last_checkpoint=latest["training"],
            last_sampler_checkpoint=latest["sampler"],
        )

    def _runs(self) -> list[TrainingRun]:
        runs: list[TrainingRun] = []
        for name in self._paths.run_names():
            try:
                runs.append(self._run(name))
            except CheckpointError:  # a damaged checkpoint does not hide other runs
                continue
        return runs

    def _existing(self, path: str) -> Path:
        """Return the folder of a checkpoint, or of an adapter, that exists."""
        folder = self._paths.folder(path)
        recover(folder)
        if not any((folder / name).is_file() for name in (METADATA_FILE, ADAPTER_CONFIG)):
            raise CheckpointError(f"no checkpoint at {path}")
        return folder

    def _delete(self, tinker_path: str) -> None:
        self._paths.parse(tinker_path)  # raises for a plain directory
        delete_checkpoint(self._existing(tinker_path))


def _copy_files(folder: Path, draft: Path) -> None:
    shutil.copytree(folder, draft, dirs_exist_ok=True)


def _checkpoint(path: str, folder: Path) -> Checkpoint:
    kind, name = path.split("/")[-2:]
    return Checkpoint.model_validate(
        {
            "checkpoint_id": f"{kind}/{name}",
            "checkpoint_type": _CHECKPOINT_TYPES[kind],
            "time": _time_saved(folder),
            "tinker_path": path,
            "size_bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        }
    )


def _time_saved(folder: Path) -> datetime:
    return datetime.fromtimestamp((folder / METADATA_FILE).stat().st_mtime, UTC)
