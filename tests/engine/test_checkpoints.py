"""Checkpoints: bit-exact, complete or absent, readable by peft alone, and never half loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mint_lab import folders, tensors
from mint_lab.engine.batch import read_batch
from mint_lab.engine.checkpoints import load_checkpoint, read_metadata, save_checkpoint
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.step import Builtin, run_pass
from mint_lab.errors import CheckpointError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES
from mint_lab.types import AdamParams

from .batches import sampled
from .reference import Reference


def step(adapter: Adapter, optimizer: Optimizer, seed: int) -> float:
    spec = LOSSES["cross_entropy"]
    batch = read_batch(sampled(seed), spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    run_pass(adapter, batch, Builtin(spec, {}))
    return optimizer.step(AdamParams(learning_rate=1e-2, weight_decay=0.1))["grad_norm"]


def state(adapter: Adapter, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    return adapter.copy() | optimizer.state()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.fixture
def trained(adapter: Adapter) -> tuple[Adapter, Optimizer]:
    optimizer = Optimizer(adapter)
    for seed in range(3):
        step(adapter, optimizer, seed)
    return adapter, optimizer


@pytest.fixture
def saved(trained: tuple[Adapter, Optimizer], tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "c", *trained)
    return tmp_path / "c"


def fresh(qwen3: Path, rank: int = 3, seed: int = 9, **options: Any) -> tuple[Adapter, Optimizer]:
    adapter = load_base(str(qwen3)).attach(LoraOptions(rank=rank, **options), seed=seed)
    return adapter, Optimizer(adapter)


def test_round_trip_is_exact(trained: tuple[Adapter, Optimizer], saved: Path, qwen3: Path) -> None:
    at_save = state(*trained)
    other = fresh(qwen3)
    step(*other, 50)  # moments that must be replaced
    load_checkpoint(saved).load_into(*other)
    assert_same(state(*other), at_save)
    for seed in (10, 11):
        assert step(*trained, seed) == step(*other, seed)
    assert_same(state(*other), state(*trained))


def test_sampler_checkpoint_has_weights_only(trained: tuple[Adapter, Optimizer], tmp_path: Path, qwen3: Path) -> None:
    save_checkpoint(tmp_path / "s", trained[0], None)
    assert sorted(f.name for f in (tmp_path / "s").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "mint_lab.json",
    ]
    checkpoint = load_checkpoint(tmp_path / "s")
    assert checkpoint.optimizer is None
    other = fresh(qwen3)
    checkpoint.load_into(other[0])
    assert_same(other[0].copy(), trained[0].copy())


def test_nothing_is_pickled(saved: Path) -> None:
    files = sorted(f.name for f in saved.rglob("*"))
    assert files == ["adapter_config.json", "adapter_model.safetensors", "mint_lab.json", "optimizer.safetensors"]
    for file in saved.glob("*.json"):
        json.loads(file.read_text())


def test_fresh_optimizer_round_trips(adapter: Adapter, tmp_path: Path, qwen3: Path) -> None:
    save_checkpoint(tmp_path / "c", adapter, Optimizer(adapter))
    assert load_checkpoint(tmp_path / "c").optimizer == {}
    other = fresh(qwen3)
    step(*other, 1)
    load_checkpoint(tmp_path / "c").load_into(*other)
    assert other[1].state() == {}


def test_peft_loads_a_checkpoint(trained: tuple[Adapter, Optimizer], saved: Path, qwen3: Path) -> None:
    plain = Reference(qwen3, saved)
    with torch.no_grad(), trained[0].base.using(trained[0]):
        ours = torch.log_softmax(trained[0].base(input_ids=torch.tensor([[5, 6, 7]])).logits[0], -1)
        torch.testing.assert_close(
            plain.logprobs([5, 6, 7], [1, 2, 3]), ours[torch.arange(3), [1, 2, 3]], rtol=1e-5, atol=1e-5
        )


def test_metadata_is_read_without_weights(saved: Path, adapter: Adapter) -> None:
    (saved / "adapter_model.safetensors").unlink()
    assert read_metadata(saved) == (adapter.base.name, adapter.lora)


class Crash(BaseException):
    """As if the process had been killed: not an Exception that anything would handle."""


@pytest.mark.parametrize("kind", [Crash, OSError])
@pytest.mark.parametrize("moment", ["weights", "config", "optimizer", "rename"])
def test_crash_while_writing_keeps_the_old_one(
    moment: str,
    kind: type[BaseException],
    trained: tuple[Adapter, Optimizer],
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = state(*trained)
    step(*trained, 5)
    calls = {"n": 0}

    def fail_at(n: int, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == n:
                raise kind("crash")
            return real(*args, **kwargs)

        return call

    if moment == "rename":
        monkeypatch.setattr(Path, "replace", fail_at(2, Path.replace))
    elif moment == "config":
        monkeypatch.setattr(trained[0].base, "peft_config", fail_at(1, trained[0].base.peft_config))
    else:
        monkeypatch.setattr(tensors, "save_file", fail_at(1 if moment == "weights" else 2, save_file))
    with pytest.raises(Crash if kind is Crash else CheckpointError):
        save_checkpoint(saved, *trained)
    monkeypatch.undo()
    found = load_checkpoint(saved)
    assert_same(found.weights | (found.optimizer or {}), before)
    assert [f.name for f in saved.parent.iterdir()] == ["c"], "no drafts are left"


def kill_between_the_renames(trained: tuple[Adapter, Optimizer], saved: Path) -> dict[str, torch.Tensor]:
    """Overwrite, and crash after the first rename without cleaning up; returns what was saved before."""
    before = state(*trained)
    step(*trained, 5)
    real = Path.replace

    def replace(path: Path, target: Path) -> None:
        real(path, target)
        raise Crash

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        patched.setattr(folders.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Crash):
            save_checkpoint(saved, *trained)
    hidden = sorted(f.name for f in saved.parent.iterdir())
    assert len(hidden) == 2, "two complete copies, and neither has the name"
    assert all(name.startswith(".c") for name in hidden)
    return before


def test_save_killed_between_renames_loses_nothing(trained: tuple[Adapter, Optimizer], saved: Path) -> None:
    before = kill_between_the_renames(trained, saved)
    assert read_metadata(saved) == (trained[0].base.name, trained[0].lora)
    found = load_checkpoint(saved)
    assert_same(found.weights | (found.optimizer or {}), before)


def test_every_killed_save_of_a_folder_is_recovered_whatever_its_name(tmp_path: Path) -> None:
    for name in (".a.old", ".step-10.old", "..hidden.old", ".old", "kept.old", ".both.old", "both"):
        (tmp_path / name).mkdir()
    folders.recover_all(tmp_path)
    names = ["a", "step-10", ".hidden", ".old", "kept.old", ".both.old", "both"]
    assert {entry.name for entry in tmp_path.iterdir()} == set(names)


def test_save_after_a_killed_save(trained: tuple[Adapter, Optimizer], saved: Path) -> None:
    kill_between_the_renames(trained, saved)
    save_checkpoint(saved, *trained)
    assert_same(load_checkpoint(saved).weights, trained[0].copy())
    shutil.rmtree(saved)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(saved)


def test_reader_between_renames_does_not_break_save(
    trained: tuple[Adapter, Optimizer], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(*trained, 5)
    real, read = Path.replace, []

    def replace(path: Path, target: Path) -> None:
        real(path, target)
        if path == saved and not read:
            read.append(target)
            folders.recover(saved)

    monkeypatch.setattr(Path, "replace", replace)
    save_checkpoint(saved, *trained)
    monkeypatch.undo()
    assert len(read) == 1
    assert_same(load_checkpoint(saved).weights, trained[0].copy())
    assert [f.name for f in saved.parent.iterdir()] == ["c"]


def test_replaced_checkpoint_leaves_no_copy(trained: tuple[Adapter, Optimizer], saved: Path) -> None:
    step(*trained, 5)
    save_checkpoint(saved, *trained)
    assert_same(load_checkpoint(saved).weights, trained[0].copy())
    assert [f.name for f in saved.parent.iterdir()] == ["c"]


def test_unwritable_folder_raises(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*file/c"):
        save_checkpoint(tmp_path / "file" / "c", adapter, None)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit(folder: Path, **facts: Any) -> None:
    about = folder / "mint_lab.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **facts}))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (shutil.rmtree, "no checkpoint at .*: expected a folder with mint_lab.json or adapter_config.json in it"),
    "no facts": (lambda f: [(f / n).unlink() for n in ("mint_lab.json", "adapter_config.json")], "no checkpoint at"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "is damaged"),
    "truncated weights": (lambda f: truncate(f / "adapter_model.safetensors"), "is damaged"),
    "truncated moments": (lambda f: truncate(f / "optimizer.safetensors"), "is damaged"),
    "empty moments file": (lambda f: (f / "optimizer.safetensors").write_bytes(b""), "is damaged"),
    "facts that are no json": (lambda f: (f / "mint_lab.json").write_text("{"), "is damaged"),
    "facts that are no text": (lambda f: (f / "mint_lab.json").write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "facts that are a list": (lambda f: (f / "mint_lab.json").write_text("[]"), "is damaged"),
    "no format": (lambda f: (f / "mint_lab.json").write_text("{}"), "is damaged"),
    "a newer format": (lambda f: edit(f, format=3), "has format 3, this version reads up to 2; upgrade mint_lab"),
    "a bad rank": (lambda f: edit(f, lora={"rank": 0}), "is damaged: rank is 0"),
    "an unknown option": (lambda f: edit(f, lora={"ranks": 3}), "is damaged"),
    "dropout that is no pair": (lambda f: edit(f, dropout=[1]), "is damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_checkpoint_raises(case: str, saved: Path) -> None:
    damage, words = DAMAGE[case]
    damage(saved)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another base model": (lambda f: edit(f, base_model="other"), "is of base model 'other', but this client trains"),
    "a weight too few": (
        lambda f: rewrite(f / "adapter_model.safetensors", dict.popitem),
        r"do not fit this adapter \(rank 3\)",
    ),
    "a weight of another shape": (
        lambda f: rewrite(f / "adapter_model.safetensors", lambda t: t.update({min(t): torch.zeros(1, 2)})),
        r"has shape \(1, 2\), expected",
    ),
    "a moment too few": (lambda f: rewrite(f / "optimizer.safetensors", dict.popitem), "optimizer state does not fit"),
    "a moment of another name": (
        lambda f: rewrite(f / "optimizer.safetensors", lambda t: t.update({"exp_avg.x": torch.zeros(1)})),
        r"exp_avg.x has shape \(1,\), expected none",
    ),
    "a moment of another shape": (
        lambda f: rewrite(f / "optimizer.safetensors", lambda t: t.update({min(t): torch.zeros(1)})),
        r"has shape \(1,\), expected",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_checkpoint_changes_nothing(case: str, saved: Path, qwen3: Path) -> None:
    change, words = FOREIGN[case]
    other = fresh(qwen3)
    step(*other, 1)
    before = state(*other)
    change(saved)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved).load_into(*other)
    assert_same(state(*other), before)
    step(*other, 2)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nonfinite_tensor_is_refused_by_name(file: str, value: float, saved: Path, qwen3: Path) -> None:
    names: list[str] = []

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        names.append(max(tensors, key=lambda name: tensors[name].numel()))
        tensors[names[0]].view(-1)[0] = value

    rewrite(saved / file, spoil)
    adapter, optimizer = fresh(qwen3)
    before = state(adapter, optimizer)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved).load_into(adapter, optimizer)
    assert f"{file} is damaged: {names[0]} has the value {value:g}, expected finite numbers" in str(caught.value)
    assert_same(state(adapter, optimizer), before)


def test_nonfinite_weight_is_not_saved(trained: tuple[Adapter, Optimizer], saved: Path) -> None:
    """The checkpoint that was there before stays."""
    adapter, optimizer = trained
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    name = list(adapter.parameters)[3]
    adapter.parameters[name].data[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=f"was not written: {name} has the value nan"):
        save_checkpoint(saved, adapter, optimizer)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("shape", [{"rank": 4}, {"unembed": False}, {"mlp": False}])
def test_other_adapter_shape_raises(shape: dict[str, Any], saved: Path, qwen3: Path) -> None:
    other = fresh(qwen3, **shape)
    before = state(*other)
    with pytest.raises(CheckpointError, match=f"do not fit this adapter .rank {shape.get('rank', 3)}."):
        load_checkpoint(saved).load_into(other[0])
    assert_same(state(*other), before)


def test_older_folder_is_read(saved: Path, trained: tuple[Adapter, Optimizer], qwen3: Path) -> None:
    """Format 1 had kinds of layers under other names, and no alpha."""
    edit(saved, format=1, lora={"rank": 3, "train_mlp": True, "train_attn": True, "train_unembed": True})
    assert read_metadata(saved) == (trained[0].base.name, LoraOptions(3, alpha=32))
    other = fresh(qwen3)
    load_checkpoint(saved).load_into(*other)
    assert_same(state(*other), state(*trained))


def test_start_and_dropout_are_saved_with_an_optimizer_only(
    trained: tuple[Adapter, Optimizer], tmp_path: Path, qwen3: Path
) -> None:
    adapter, optimizer = trained
    adapter.start_here()
    start = adapter.copy()
    adapter.dropout_seed, adapter.dropout_passes = 2**64 - 1, 7
    step(adapter, optimizer, 1)
    save_checkpoint(tmp_path / "c", adapter, optimizer)
    other = fresh(qwen3)
    load_checkpoint(tmp_path / "c").load_into(*other)
    assert other[0].start is not None
    assert_same(other[0].start, start)
    assert (other[0].dropout_seed, other[0].dropout_passes) == (2**64 - 1, 7)
    load_checkpoint(tmp_path / "c").load_into(other[0])
    assert_same(other[0].start, adapter.copy())
    assert other[0].dropout_passes == 0
    save_checkpoint(tmp_path / "c", adapter, None)
    assert not (tmp_path / "c" / "start.safetensors").exists()


def test_start_that_does_not_fit_changes_nothing(
    trained: tuple[Adapter, Optimizer], tmp_path: Path, qwen3: Path
) -> None:
    trained[0].start_here()
    save_checkpoint(tmp_path / "c", *trained)
    rewrite(tmp_path / "c" / "start.safetensors", dict.popitem)
    other = fresh(qwen3)
    before = state(*other)
    with pytest.raises(CheckpointError, match="do not fit this adapter"):
        load_checkpoint(tmp_path / "c").load_into(*other)
    assert_same(state(*other), before)
