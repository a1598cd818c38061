"""Reference log-probabilities, for losses that compare with the model before training (DPO and its variants).

They depend only on the tokens and on the reference model: the model at the start of a run, or another one that
:meth:`TrainingClient.set_reference <mint_lab.client.training.TrainingClient.set_reference>` has chosen. So they are
computed once per data set and cached on disk, in the folder that the client names for that model. The folder has up to
sixteen safetensors files that map a hash of the tokens to the values, ``(N,)`` float32. A damaged file counts as
missing and is rewritten. A file is first written under a temporary name and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..types import Datum

    Rows = dict[str, NDArray[np.float32]]

__all__ = ["ReferenceClient", "with_reference"]

FIELD = "reference_logprobs"
# Datums between two writes to disk; a process that is killed loses at most this many results.
BATCH = 4096
_CHECK = "sha256"


@runtime_checkable
class ReferenceClient(Protocol):
    """The part of a training client that is needed here. The local client implements it."""

    def reference_logprobs(self, data: list[Datum]) -> Any:
        """Return a future of one tensor per datum, ``(N_i,)``: log-probabilities of the targets under the reference."""
        ...

    def reference_folder(self) -> Path:
        """Return the folder in which the values of this reference model are cached."""
        ...


def with_reference(data: Sequence[Datum], client: ReferenceClient, *, cache: bool = True) -> list[Datum]:
    """Return copies of the datums with ``loss_fn_inputs["reference_logprobs"]``, ``(N,)`` float32, nats.

    The values are those of the client's reference, no matter how far it has trained: the model at the start of its last
    run, or before a run the one at which the client started. Cached values are returned bit for bit.

    Args:
        data: Datums with ``target_tokens``; they are not changed.
        client: A training client on this machine.
        cache: Whether to read and write the cache on disk.

    Raises:
        ConfigError: If ``client`` cannot compute reference log-probabilities.
        DataError: If a datum is invalid for the model; ``error.index`` is its index in ``data``.
    """
    from ..types import Datum, TensorData

    if not isinstance(client, ReferenceClient):
        raise ConfigError(
            f"{type(client).__name__} computes no reference log-probabilities, expected a training client of "
            "mint_lab.ServiceClient; with another client, put compute_logprobs of a base model's sampling client into "
            f"loss_fn_inputs[{FIELD!r}]"
        )
    if not data:
        raise DataError("the data set is empty, expected at least one Datum")
    keys = [_key(datum, index) for index, datum in enumerate(data)]
    folder = client.reference_folder() if cache else None
    known = {} if folder is None else _read(folder, keys, data)
    missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        new_rows = dict(zip((keys[i] for i in batch), _compute(client, data, batch), strict=True))
        known |= new_rows
        if folder is not None:
            _write(folder, new_rows)
    return [
        Datum(
            model_input=datum.model_input,
            loss_fn_inputs={**datum.loss_fn_inputs, FIELD: TensorData.from_numpy(known[key])},
        )
        for datum, key in zip(data, keys, strict=True)
    ]


def _key(datum: Any, index: int) -> str:
    """Return a hash of a datum's input and target tokens."""
    try:
        rows = (datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].to_numpy())
        arrays = [np.asarray(row).astype(np.int64, casting="safe") for row in rows]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"found {type(datum).__name__} ({type(error).__name__}: {error}), expected a Datum of text tokens with "
            "target_tokens",
            index=index,
        ) from None
    # The input's length comes first, so that moving tokens from input to targets gives another hash.
    digest = hashlib.sha256(np.int64(arrays[0].size).tobytes())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _compute(client: ReferenceClient, data: Sequence[Datum], batch: list[int]) -> list[NDArray[np.float32]]:
    """Return the client's values, ``(N_i,)``, for the datums with the indices ``batch``."""
    try:
        rows = client.reference_logprobs([data[i] for i in batch]).result()
    except DataError:
        client.reference_logprobs(list(data)).result()  # raises the same error with the index in the whole data set
        raise
    # Copy: the client may reuse its buffers.
    return [np.array(row.to_numpy(), dtype=np.float32) for row in rows]


# --- cache on disk ---------------------------------------------------------------------------------------------------


def _file(folder: Path, key: str) -> Path:
    return folder / f"{key[0]}.safetensors"


def _read(folder: Path, keys: Sequence[str], data: Sequence[Datum]) -> Rows:
    """Return the cached rows of ``keys``; rows whose length does not match their datum are left out."""
    files = {_file(folder, key) for key in keys}
    stored = {key: row for file in sorted(files) for key, row in _load(file).items()}
    lengths = {key: datum.model_input.length for key, datum in zip(keys, data, strict=True)}
    return {key: stored[key] for key, length in lengths.items() if key in stored and stored[key].shape == (length,)}


def _load(file: Path) -> Rows:
    """Return the rows of a file; none if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        rows: dict[str, Any] = load(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}
    check = rows.pop(_CHECK, np.empty(0, np.uint8))
    well_formed = all(row.dtype == np.float32 and row.ndim == 1 for row in rows.values())
    if not well_formed or check.tobytes() != _checksum(rows):
        return {}
    return {key: row.copy() for key, row in rows.items()}  # safetensors returns read-only arrays


def _checksum(rows: Mapping[str, NDArray[np.float32]]) -> bytes:
    digest = hashlib.sha256()
    for key in sorted(rows):
        digest.update(key.encode())
        digest.update(rows[key].tobytes())
    return digest.digest()


def _write(folder: Path, new_rows: Rows) -> None:
    """Add ``new_rows`` to the files; if the folder cannot be written, warn and continue without the cache."""
    from safetensors.numpy import save

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted({_file(folder, key) for key in new_rows}):
            rows = _load(file) | {key: row for key, row in new_rows.items() if _file(folder, key) == file}
            _replace(file, save({**rows, _CHECK: np.frombuffer(_checksum(rows), np.uint8)}))
    except OSError as error:
        warnings.warn(f"reference log-probabilities are not cached: {folder} cannot be written: {error}", stacklevel=3)


def _replace(file: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the same folder and rename it, so readers never see a partial file."""
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(draft).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise
