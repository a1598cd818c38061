"""Reference log-probabilities: computed once, read back bit for bit, and never from a damaged file."""

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


class Scripted:
    """A client whose log-probability of a target t after an input x is -(x + t / 3)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[list[int]] = []

    def reference_folder(self) -> Path:
        return self.folder

    def reference_logprobs(self, data: list[Datum]) -> Any:
        for index, d in enumerate(data):
            if 99 in d.model_input.to_ints():
                raise DataError("token id 99, expected 0 to 98", index=index, field="model_input")
            self.asked.append(d.model_input.to_ints())
        return done([TensorData.from_numpy(expected(d)) for d in data])


def expected(d: Datum) -> NDArray[np.float32]:
    inputs = np.array(d.model_input.to_ints())
    return -(inputs + d.loss_fn_inputs["target_tokens"].to_numpy() / 3).astype(np.float32)


def found(data: list[Datum]) -> list[NDArray[np.float32]]:
    return [d.loss_fn_inputs[FIELD].to_numpy() for d in data]


def assert_right(data: list[Datum], given: list[Datum]) -> None:
    assert len(data) == len(given)
    for row, d in zip(found(data), given, strict=True):
        assert row.dtype == np.float32
        assert row.tobytes() == expected(d).tobytes()


DATA = [datum([k, k + 1, k + 2, 7], [0, 1, 1]) for k in range(20)]


@pytest.fixture
def client(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "home" / "reference" / "model")


def test_values_join_the_other_fields_and_the_data_is_left_alone(client: Scripted) -> None:
    before = [dict(d.loss_fn_inputs) for d in DATA]
    made = with_reference(DATA, client)
    assert_right(made, DATA)
    assert [dict(d.loss_fn_inputs) for d in DATA] == before
    assert set(made[0].loss_fn_inputs) == {"target_tokens", "weights", FIELD}
    assert made[3].model_input == DATA[3].model_input


def test_a_data_set_is_computed_once(client: Scripted) -> None:
    first = with_reference(DATA, client)
    assert len(client.asked) == len(DATA)
    again = with_reference(DATA, Scripted(client.folder))
    other = Scripted(client.folder)
    assert_right(with_reference(DATA[::-1], other), DATA[::-1])
    assert other.asked == []
    assert [a.tobytes() for a in found(again)] == [a.tobytes() for a in found(first)]
    torch.testing.assert_close(again[0].loss_fn_inputs[FIELD].to_torch(), torch.tensor(expected(DATA[0])))


def test_only_what_is_missing_is_asked_for_and_each_once(client: Scripted) -> None:
    with_reference(DATA[:5], client)
    client.asked.clear()
    mixed = [DATA[2], DATA[9], DATA[0], DATA[9], DATA[7]]
    assert_right(with_reference(mixed, client), mixed)
    assert client.asked == [[9, 10, 11], [7, 8, 9]]
    client.asked.clear()
    assert_right(with_reference(DATA[:10], client), DATA[:10])
    assert sorted(client.asked) == [[k, k + 1, k + 2] for k in (5, 6, 8)]


def test_targets_and_boundaries_tell_datums_apart(client: Scripted) -> None:
    """The same input with other targets; and the same tokens end to end, cut elsewhere."""

    def make(inputs: list[int], targets: list[int]) -> Datum:
        field = TensorData.from_numpy(np.array(targets, dtype=np.int64))
        return Datum(model_input=ModelInput.from_ints(inputs), loss_fn_inputs={"target_tokens": field})

    data = [make([1, 2], [3, 4]), make([1, 2], [3, 5]), make([1, 2, 3, 4], [1, 2, 3, 4]), make([2, 2], [3, 4])]
    assert_right(with_reference(data, client), data)
    assert len(client.asked) == 4
    # weights play no part
    weighted = Datum(model_input=data[0].model_input, loss_fn_inputs={**data[0].loss_fn_inputs,
                     "weights": TensorData.from_numpy(np.ones(2, np.float32))})  # fmt: skip
    with_reference([weighted], client)
    assert len(client.asked) == 4


def test_without_a_cache_nothing_is_written_or_read(client: Scripted, tmp_path: Path) -> None:
    for _ in range(2):
        assert_right(with_reference(DATA, client, cache=False), DATA)
    assert len(client.asked) == 2 * len(DATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "no safetensors", "a bit", "another kind", "no checksum", "gone"])
def test_damaged_files_are_computed_and_written_again(damage: str, client: Scripted) -> None:
    with_reference(DATA, client)
    files = sorted(client.folder.iterdir())
    file = files[0]
    content = file.read_bytes()
    lost = len(load_file(file)) - 1
    if damage == "cut":
        file.write_bytes(content[:-5])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no safetensors":
        file.write_bytes(b"\x80\x04\x95 not a tensor in sight")
    elif damage == "a bit":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "another kind":
        save_file({key: row.astype(np.float64) for key, row in load_file(file).items()}, file)
    elif damage == "no checksum":
        save_file({key: row for key, row in load_file(file).items() if key != "sha256"}, file)
    else:
        file.unlink()
    client.asked.clear()
    assert_right(with_reference(DATA, client), DATA)
    assert len(client.asked) == lost
    assert file.read_bytes() == content, "written as it was"


def test_a_failed_write_leaves_the_old_file_and_no_draft(client: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    with_reference(DATA[:3], client)
    before = {file.name: file.read_bytes() for file in client.folder.iterdir()}

    def no_room(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_room)
        with pytest.warns(UserWarning, match=r"not kept, .* cannot be written: no space left on device"):
            assert_right(with_reference(DATA, client), DATA)
    assert {file.name: file.read_bytes() for file in client.folder.iterdir()} == before


def test_work_is_kept_as_it_goes(client: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four datums at a time; the third batch fails, and the first two need not be done again."""
    monkeypatch.setattr("mint_lab.data.reference_logprobs.BATCH", 4)
    data = [*DATA[:10], datum([99, 1, 2])]
    with pytest.raises(DataError):
        with_reference(data, client)
    client.asked.clear()
    with_reference(DATA[:10], client)
    assert sorted(client.asked) == [[8, 9, 10], [9, 10, 11]]


def test_errors_name_the_datum_in_the_whole_data_set(client: Scripted) -> None:
    with_reference(DATA[:5], client)
    with pytest.raises(DataError, match="datum 7, field 'model_input': token id 99") as caught:
        with_reference([*DATA[:7], datum([1, 99, 2])], client)
    assert caught.value.index == 7


@pytest.mark.parametrize("bad", ["text", None, Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={})])
def test_what_is_no_datum_with_targets(bad: Any, client: Scripted) -> None:
    with pytest.raises(DataError, match=r"datum 1: .*expected a Datum of text tokens with target_tokens"):
        with_reference([DATA[0], bad], client)


def test_bad_clients_and_no_data(client: Scripted) -> None:
    with pytest.raises(ConfigError, match="object computes no reference log-probabilities; expected a training client"):
        with_reference(DATA, object())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the data set is empty"):
        with_reference([], client)
