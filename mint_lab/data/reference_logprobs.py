"""Reference log-probabilities for losses that measure against the model before training (DPO and its kin).

They depend on the base model and the tokens alone, so a data set needs them once: they are kept on disk, in the folder
that the client names for its base model, as sixteen safetensors files of ``hash of the tokens -> (N,) float32``. A file
that is damaged counts as missing, and is written anew; each is written beside its place and renamed.
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
# Datums between two writes: what a process that ends early has to do again.
BATCH = 4096
_CHECK = "sha256"


@runtime_checkable
class ReferenceClient(Protocol):
    """The part of a training client that is needed here; the local one has it."""

    def reference_logprobs(self, data: list[Datum]) -> Any:
        """A future of one tensor a datum, ``(N_i,)``: the base model's log-probabilities of the targets."""
        ...

    def reference_folder(self) -> Path:
        """Where reference values of this very base model may be kept."""
        ...


def with_reference(data: Sequence[Datum], client: ReferenceClient, *, cache: bool = True) -> list[Datum]:
    """The same datums with ``loss_fn_inputs["reference_logprobs"]``, ``(N,)`` float32, nats.

    The values are the base model's, whatever ``client`` has learnt. What was computed before is read back, bit for bit.

    Args:
        data: datums with ``target_tokens``; they are not changed.
        client: a training client on this machine.
        cache: keep the values on disk, and look for them there first.

    Raises:
        ConfigError: ``client`` computes no reference log-probabilities.
        DataError: a datum is not fit for the model; its index is the one in ``data``.
    """
    from ..types import Datum, TensorData

    if not isinstance(client, ReferenceClient):
        raise ConfigError(
            f"{type(client).__name__} computes no reference log-probabilities; expected a training client of "
            "mint_lab.ServiceClient (with another, put compute_logprobs of a base model's sampling client into "
            f"loss_fn_inputs[{FIELD!r}])"
        )
    if not data:
        raise DataError("the data set is empty, expected at least one Datum")
    keys = [_key(datum, index) for index, datum in enumerate(data)]
    folder = client.reference_folder() if cache else None
    known = {} if folder is None else _read(folder, keys, data)
    missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        fresh = dict(zip((keys[i] for i in part), _ask(client, data, part), strict=True))
        known |= fresh
        if folder is not None:
            _write(folder, fresh)
    return [
        Datum(
            model_input=datum.model_input,
            loss_fn_inputs={**datum.loss_fn_inputs, FIELD: TensorData.from_numpy(known[key])},
        )
        for datum, key in zip(data, keys, strict=True)
    ]


def _key(datum: Any, index: int) -> str:
    """Hash of a datum's input and target tokens."""
    try:
        rows = (datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].to_numpy())
        arrays = [np.asarray(row).astype(np.int64, casting="safe") for row in rows]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{type(datum).__name__} ({type(error).__name__}: {error}), expected a Datum of text tokens with "
            "target_tokens",
            index=index,
        ) from None
    digest = hashlib.sha256(np.int64(arrays[0].size).tobytes())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _ask(client: ReferenceClient, data: Sequence[Datum], part: list[int]) -> list[NDArray[np.float32]]:
    try:
        found = client.reference_logprobs([data[i] for i in part]).result()
    except DataError:
        client.reference_logprobs(list(data)).result()  # raises the same with the index in the whole data set
        raise
    # a copy of its own: what is kept must not change with what the client does to its buffers
    return [np.array(row.to_numpy(), dtype=np.float32) for row in found]


# --- on disk ---------------------------------------------------------------------------------------------------------


def _file(folder: Path, key: str) -> Path:
    return folder / f"{key[0]}.safetensors"


def _read(folder: Path, keys: Sequence[str], data: Sequence[Datum]) -> Rows:
    """What is known of ``keys``."""
    files = {_file(folder, key) for key in keys}
    stored = {key: row for file in sorted(files) for key, row in _load(file).items()}
    lengths = {key: datum.model_input.length for key, datum in zip(keys, data, strict=True)}
    return {key: stored[key] for key, length in lengths.items() if key in stored and stored[key].shape == (length,)}


def _load(file: Path) -> Rows:
    """A file's rows; none where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        rows: dict[str, Any] = load(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}
    check = rows.pop(_CHECK, np.empty(0, np.uint8))
    whole = all(row.dtype == np.float32 and row.ndim == 1 for row in rows.values())
    if not whole or check.tobytes() != _checksum(rows):
        return {}
    return {key: row.copy() for key, row in rows.items()}  # what safetensors gives cannot be written to


def _checksum(rows: Mapping[str, NDArray[np.float32]]) -> bytes:
    digest = hashlib.sha256()
    for key in sorted(rows):
        digest.update(key.encode())
        digest.update(rows[key].tobytes())
    return digest.digest()


def _write(folder: Path, fresh: Rows) -> None:
    """Add ``fresh`` to the files; a folder that cannot be written is no reason to stop, only to say so."""
    from safetensors.numpy import save

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted({_file(folder, key) for key in fresh}):
            rows = _load(file) | {key: row for key, row in fresh.items() if _file(folder, key) == file}
            _replace(file, save({**rows, _CHECK: np.frombuffer(_checksum(rows), np.uint8)}))
    except OSError as error:
        warnings.warn(f"reference log-probabilities are not kept, {folder} cannot be written: {error}", stacklevel=3)


def _replace(file: Path, content: bytes) -> None:
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(draft).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise
