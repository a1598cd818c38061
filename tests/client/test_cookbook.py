"""tinker-cookbook's own training loops, run as they are: only ``tinker.ServiceClient`` is this machine's.

The cookbook is kept beside the environment and not in it: it requires a version of ``tml-renderers`` (renderers of two
families of hosted models, which nothing here uses) that is not published. What it needs besides comes after the
environment's own packages on the path, so nothing installed changes.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tinker

import mint_lab
from mint_lab.client.service import ServiceClient
from mint_lab.errors import CheckpointError, ConfigError, ModelError

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.6.1"
NEEDS = "aiohttp blobfile chz cloudpickle pyrage termcolor tiktoken".split()
RENDERER = "mint_lab/sums"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline", "fixed_seeds", "here")]


@pytest.fixture(scope="module")
def chat() -> ModuleType:
    """The cookbook, downloaded once and then kept, with the bundled model's tokenizer and format registered in it."""
    folder = ROOT / ".cache" / f"tinker-cookbook-{VERSION}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(fresh)]
        for packages in (["--no-deps", f"tinker-cookbook=={VERSION}"], NEEDS):
            done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{packages} could not be installed:\n{done.stderr}"
        try:
            fresh.rename(folder)
        except OSError:  # another worker was first
            assert folder.is_dir()
            shutil.rmtree(fresh)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    from tinker_cookbook.renderers import register_renderer
    from tinker_cookbook.tokenizer_utils import register_tokenizer

    chat = importlib.import_module(f"{__package__}.arithmetic_chat")
    tokenizer = ServiceClient().create_sampling_client(base_model="mint-tiny").get_tokenizer()
    register_tokenizer("mint-tiny", lambda: tokenizer)
    register_renderer(RENDERER, lambda tokenizer, _=None: chat.SumRenderer(tokenizer))
    return chat


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The one change: where ``ServiceClient`` comes from. The cookbook's log handlers are removed afterwards."""
    monkeypatch.setattr(tinker, "ServiceClient", mint_lab.ServiceClient)
    monkeypatch.setenv("MINT_LAB_HOME", str(tmp_path / "home"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


@pytest.fixture
def common(tmp_path: Path) -> dict[str, Any]:
    return {"model_name": "mint-tiny", "recipe_name": "test", "log_path": str(tmp_path / "log"), "lora_rank": 8}


def logged(common: dict[str, Any], name: str) -> list[float]:
    """A metric at every step that has it, from the cookbook's own log."""
    lines = (Path(common["log_path"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]


def saved(common: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(common["log_path"]) / "checkpoints.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def dataset_settings(renderer: str, batch_size: int) -> Any:
    from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig

    return ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer="mint-tiny", renderer_name=renderer, max_length=128, batch_size=batch_size
    )


def supervised(chat: ModuleType, common: dict[str, Any], tmp_path: Path, **settings: Any) -> Any:
    """Sums in the cookbook's own ``role_colon`` chat format, which the model has never seen."""
    from tinker_cookbook.supervised import train
    from tinker_cookbook.supervised.data import FromConversationFileBuilder

    path = chat.write_conversations(tmp_path / "sums.jsonl", 16 * 12 + 32)
    builder = FromConversationFileBuilder(
        common_config=dataset_settings("role_colon", 16), file_path=str(path), test_size=32
    )
    wanted = {"learning_rate": 5e-3, "renderer_name": "role_colon", "eval_every": 4, "save_every": 5, **settings}
    return train.Config(dataset_builder=builder, **common, **wanted)


def test_supervised(chat: ModuleType, common: dict[str, Any], tmp_path: Path) -> None:
    from tinker_cookbook.supervised import train

    asyncio.run(train.main(supervised(chat, common, tmp_path, rolling_save_every=2)))
    losses = logged(common, "train_mean_nll")
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    held_out = logged(common, "test/nll")
    assert len(held_out) == 3
    assert held_out[2] < held_out[1] < held_out[0]
    assert [c["name"] for c in saved(common) if not c.get("rolling")] == ["000005", "000010", "final"]
    # The rolling checkpoints are gone, as the loop asked of the REST client.
    rest = ServiceClient().create_rest_client()
    run = rest.get_training_run_by_tinker_path(saved(common)[-1]["state_path"]).result().training_run_id
    left = {checkpoint.checkpoint_id for checkpoint in rest.list_checkpoints(run).result().checkpoints}
    names = ("000005", "000010", "final")
    assert left == {f"{kind}/{name}" for kind in ("weights", "sampler_weights") for name in names}


def test_supervised_resumes_from_checkpoint(chat: ModuleType, common: dict[str, Any], tmp_path: Path) -> None:
    """Interrupted in the seventh step and restarted, it resumes from its last checkpoint, which is of the sixth."""
    from tinker_cookbook.supervised import train

    whole = {**common, "log_path": f"{common['log_path']}-whole"}
    settings = {"lr_schedule": "constant", "eval_every": 0, "submit_ahead": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mint_lab.ServiceClient, "create_lora_training_client", seeded(0))
        asyncio.run(train.main(supervised(chat, whole, tmp_path, **settings)))
        asyncio.run(train.main(supervised(chat, common, tmp_path, **settings, max_steps=6)))
    # What an interrupted run leaves: its last periodic checkpoint, none called final.
    path = Path(common["log_path"]) / "checkpoints.jsonl"
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if '"final"' not in line]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    asyncio.run(train.main(supervised(chat, common, tmp_path, **settings)))
    again, straight = logged(common, "train_mean_nll"), logged(whole, "train_mean_nll")
    assert saved(common)[-1]["name"] == "final"
    assert len(again) == len(straight) == 12
    assert again[:5] == pytest.approx(straight[:5], abs=1e-6)
    # The checkpoint has learned from the sixth batch, which the loop then takes once more.
    assert again[5] < straight[5]
    assert max(again[5:]) < 0.7 * again[0]


def seeded(seed: int) -> Any:
    made = ServiceClient.create_lora_training_client

    def create(self: ServiceClient, *args: Any, **kwargs: Any) -> Any:
        return made(self, *args, **{**kwargs, "seed": seed})

    return create


def test_dpo(chat: ModuleType, common: dict[str, Any]) -> None:
    from tinker_cookbook.preference import train_dpo
    from tinker_cookbook.preference.dpo_datasets import DPODatasetBuilderFromComparisons

    builder = DPODatasetBuilderFromComparisons(
        common_config=dataset_settings(RENDERER, 16), comparison_builder=chat.Pairs(n=32)
    )
    config = train_dpo.Config(
        **common,
        dataset_builder=builder,
        renderer_name=RENDERER,
        learning_rate=3e-3,
        num_epochs=6,
        dpo_beta=0.5,
        save_every=6,
    )
    train_dpo.main(config)
    margins, accuracy, losses = (logged(common, name) for name in ("margin", "accuracy", "dpo_loss"))
    assert losses[0] == pytest.approx(0.6931, abs=1e-3), "at the start the model is its own reference"
    assert margins[0] == pytest.approx(0.0, abs=1e-3)
    assert mean(margins[-3:]) > 1.0
    assert mean(accuracy[-3:]) > 0.8
    assert mean(losses[-3:]) < 0.4
    assert [c["name"] for c in saved(common)] == ["000006", "final"]


def reinforcement(common: dict[str, Any], *, steps: int = 12, samples: int = 8, **settings: Any) -> Any:
    """The cookbook's arithmetic environment: 16 sums, ``samples`` of each, the same sums at every step."""
    from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder
    from tinker_cookbook.rl import train

    builder = ArithmeticDatasetBuilder(
        batch_size=16,
        model_name_for_tokenizer="mint-tiny",
        renderer_name=RENDERER,
        n_batches=1,
        group_size=samples,
        include_fewshot=False,
    )
    wanted = {
        "learning_rate": 4e-3,
        "renderer_name": RENDERER,
        "max_tokens": 8,
        "num_epochs": steps,
        "eval_every": 0,
        "save_every": 6,
        "num_groups_to_log": 1,
    }
    return train.Config(dataset_builder=builder, **common, **{**wanted, **settings})


def reinforce(config: Any) -> None:
    from tinker_cookbook.rl import train

    asyncio.run(train.main(config))


def modes() -> dict[str, dict[str, Any]]:
    from tinker_cookbook.rl.train import AsyncConfig, KLReferenceConfig, StreamMinibatchConfig

    return {
        "sync": {"rolling_save_every": 3},
        "async": {"async_config": AsyncConfig(max_steps_off_policy=2, groups_per_batch=16, loss_fn="ppo")},
        "streaming": {"stream_minibatch_config": StreamMinibatchConfig(groups_per_batch=16, num_minibatches=2)},
        "penalty": {  # a second and a third pass over every sample, one call each
            "steps": 10,
            "samples": 4,
            "kl_penalty_coef": 0.01,
            "kl_reference_config": KLReferenceConfig(base_model="mint-tiny"),
            "compute_post_kl": True,
            "num_substeps": 2,
        },
    }


@pytest.mark.parametrize("mode", ["sync", "async", "streaming", "penalty"])
def test_reinforcement(mode: str, chat: ModuleType, common: dict[str, Any]) -> None:
    settings = modes()[mode]
    reinforce(reinforcement(common, **settings))
    rewards = logged(common, "env/all/reward/total")
    assert len(rewards) == settings.get("steps", 12)
    assert mean(rewards[-4:]) > mean(rewards[:2]) + 0.25
    if mode in ("sync", "streaming"):
        # One step on what was just sampled: the trainer's log-probabilities are the sampler's.
        assert max(logged(common, "optim/kl_sample_train_v2")) < 1e-9
    assert saved(common)[-1]["name"] == "final"


def test_missing_features_raise_clear_errors(chat: ModuleType, common: dict[str, Any], tmp_path: Path) -> None:
    """Names that the loops pass on raise this package's errors, out of the loop."""
    from tinker_cookbook.rl.train import AsyncConfig
    from tinker_cookbook.supervised import train

    with pytest.raises(ConfigError, match="stable_reinforce"):
        # The cookbook's default for asynchronous runs is a loss of the hosted service's own.
        reinforce(reinforcement(common, async_config=AsyncConfig(max_steps_off_policy=1, groups_per_batch=16)))
    shutil.rmtree(common["log_path"])
    unknown = supervised(chat, common, tmp_path, load_checkpoint_path="tinker://nobody/weights/nothing")
    with pytest.raises(CheckpointError, match="nobody"):
        asyncio.run(train.main(unknown))
    with pytest.raises(ModelError, match="no-such-model"):
        asyncio.run(train.main(supervised(chat, {**common, "model_name": "no-such-model"}, tmp_path)))
    with pytest.raises(ConfigError, match="trains on this machine"):
        asyncio.run(train.main(supervised(chat, common, tmp_path, base_url="https://x")))
