"""Reference log-probabilities: computed once, cached bit for bit, and never read from a damaged file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mint_lab.client.futures import done
from mint_lab.data import with_reference
from mint_lab.data.reference_logprobs import FIELD
from mint_lab.errors import ConfigError, DataError
from mint_lab.types import Datum, ModelInput, TensorData

from ..engine.batches import datum


class ScriptedClient:
    """A client whose log-probability of a target t after an input x is -(x + t / 3)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested: list[list[int]] = []

    def reference_folder(self) -> Path:
        return self.folder

    def reference_logprobs(self, data: list[Datum]) -> Any:
        for index, d in enumerate(data):
            if 99 in d.model_input.to_ints():
                raise DataError("token id 99, expected 0 to 98", index=index, field="model_input")
            self.requested.append(d.model_input.to_ints())
        return done([TensorData.from_numpy(expected(d)) for d in data])


def expected(d: Datum) -> NDArray[np.float32]:
    inputs = np.array(d.model_input.to_ints())
    return -(inputs + d.loss_fn_inputs["target_tokens"].to_numpy() / 3).astype(np.float32)


def references(data: list[Datum]) -> list[NDArray[np.float32]]:
    return [d.loss_fn_inputs[FIELD].to_numpy() for d in data]


def assert_right(data: list[Datum], given: list[Datum]) -> None:
    assert len(data) == len(given)
    for row, d in zip(references(data), given, strict=True):
        assert row.dtype == np.float32
        assert row.tobytes() == expected(d).tobytes()


DATA = [datum([k, k + 1, k + 2, 7], [0, 1, 1]) for k in range(20)]


@pytest.fixture
def client(tmp_path: Path) -> ScriptedClient:
    return ScriptedClient(tmp_path / "home" / "reference" / "model")


def test_values_are_added_to_copies_of_the_data(client: ScriptedClient) -> None:
    before = [dict(d.loss_fn_inputs) for d in DATA]
    made = with_reference(DATA, client)
    assert_right(made, DATA)
    assert [dict(d.loss_fn_inputs) for d in DATA] == before
    assert set(made[0].loss_fn_inputs) == {"target_tokens", "weights", FIELD}
    assert made[3].model_input == DATA[3].model_input


def test_a_data_set_is_computed_once(client: ScriptedClient) -> None:
    first = with_reference(DATA, client)
    assert len(client.requested) == len(DATA)
    again = with_reference(DATA, ScriptedClient(client.folder))
    other = ScriptedClient(client.folder)
    assert_right(with_reference(DATA[::-1], other), DATA[::-1])
    assert other.requested == []
    assert [a.tobytes() for a in references(again)] == [a.tobytes() for a in references(first)]
    torch.testing.assert_close(again[0].loss_fn_inputs[FIELD].to_torch(), torch.tensor(expected(DATA[0])))


def test_missing_values_are_requested_once_each(client: ScriptedClient) -> None:
    with_reference(DATA[:5], client)
    client.requested.clear()
    mixed = [DATA[2], DATA[9], DATA[0], DATA[9], DATA[7]]
    assert_right(with_reference(mixed, client), mixed)
    assert client.requested == [[9, 10, 11], [7, 8, 9]]
    client.requested.clear()
    assert_right(with_reference(DATA[:10], client), DATA[:10])
    assert sorted(client.requested) == [[k, k + 1, k + 2] for k in (5, 6, 8)]


def test_cache_key_depends_on_inputs_and_targets(client: ScriptedClient) -> None:
    """The same input with other targets; and the same tokens in total, split elsewhere."""

    def make(inputs: list[int], targets: list[int]) -> Datum:
        field = TensorData.from_numpy(np.array(targets, dtype=np.int64))
        return Datum(model_input=ModelInput.from_ints(inputs), loss_fn_inputs={"target_tokens": field})

    data = [make([1, 2], [3, 4]), make([1, 2], [3, 5]), make([1, 2, 3, 4], [1, 2, 3, 4]), make([2, 2], [3, 4])]
    assert_right(with_reference(data, client), data)
    assert len(client.requested) == 4
    # weights are not part of the key
    weighted = Datum(model_input=data[0].model_input, loss_fn_inputs={**data[0].loss_fn_inputs,
                     "weights": TensorData.from_numpy(np.ones(2, np.float32))})  # fmt: skip
    with_reference([weighted], client)
    assert len(client.requested) == 4


def test_without_a_cache_the_disk_is_not_used(client: ScriptedClient, tmp_path: Path) -> None:
    for _ in range(2):
        assert_right(with_reference(DATA, client, cache=False), DATA)
    assert len(client.requested) == 2 * len(DATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "not safetensors", "bit flip", "float64", "no checksum", "missing"]
)
def test_damaged_files_are_computed_and_written_again(damage: str, client: ScriptedClient) -> None:
    with_reference(DATA, client)
    files = sorted(client.folder.iterdir())
    file = files[0]
    content = file.read_bytes()
    n_rows = len(load_file(file)) - 1  # without the checksum
    if damage == "truncated":
        file.write_bytes(content[:-5])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "not safetensors":
        file.write_bytes(b"\x80\x04\x95 not a tensor in sight")
    elif damage == "bit flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "float64":
        save_file({key: row.astype(np.float64) for key, row in load_file(file).items()}, file)
    elif damage == "no checksum":
        save_file({key: row for key, row in load_file(file).items() if key != "sha256"}, file)
    else:
        file.unlink()
    client.requested.clear()
    assert_right(with_reference(DATA, client), DATA)
    assert len(client.requested) == n_rows
    assert file.read_bytes() == content, "the file is as before"


def test_failed_write_keeps_the_old_files(client: ScriptedClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with_reference(DATA[:3], client)
    before = {file.name: file.read_bytes() for file in client.folder.iterdir()}

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.warns(UserWarning, match=r"not cached: .* cannot be written: no space left on device"):
            assert_right(with_reference(DATA, client), DATA)
    assert {file.name: file.read_bytes() for file in client.folder.iterdir()} == before


def test_finished_batches_are_cached(client: ScriptedClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four datums: the third batch fails, and the first two are not computed again."""
    monkeypatch.setattr("mint_lab.data.reference_logprobs.BATCH", 4)
    data = [*DATA[:10], datum([99, 1, 2])]
    with pytest.raises(DataError):
        with_reference(data, client)
    client.requested.clear()
    with_reference(DATA[:10], client)
    assert sorted(client.requested) == [[8, 9, 10], [9, 10, 11]]


def test_error_index_is_that_of_the_whole_data_set(client: ScriptedClient) -> None:
    with_reference(DATA[:5], client)
    with pytest.raises(DataError, match="datum 7, field 'model_input': token id 99") as caught:
        with_reference([*DATA[:7], datum([1, 99, 2])], client)
    assert caught.value.index == 7


@pytest.mark.parametrize("bad", ["text", None, Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={})])
def test_data_without_targets_are_refused(bad: Any, client: ScriptedClient) -> None:
    with pytest.raises(DataError, match=r"datum 1: .*expected a Datum of text tokens with target_tokens"):
        with_reference([DATA[0], bad], client)


def test_bad_clients_and_empty_data_are_refused(client: ScriptedClient) -> None:
    with pytest.raises(ConfigError, match="object computes no reference log-probabilities, expected a training client"):
        with_reference(DATA, object())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the data set is empty"):
        with_reference([], client)
