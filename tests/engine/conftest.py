"""Models and batches for the engine's tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.engine.models import Adapter, load_base
from mint_lab.lora_options import LoraOptions

from .families import build


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny random model of a family, which is built once."""

    @functools.cache
    def make(name: str) -> Path:
        return build(name, tmp_path_factory.mktemp(name))

    return make


@pytest.fixture(scope="session")
def qwen3(family: Callable[[str], Path]) -> Path:
    return family("qwen3")


@pytest.fixture
def adapter(qwen3: Path) -> Adapter:
    return random_adapter(qwen3)


def random_adapter(folder: Path, **options: Any) -> Adapter:
    """Return an adapter whose B is not 0, as after some training, so that every parameter has a gradient."""
    made = load_base(str(folder)).attach(LoraOptions(**{"rank": 3, **options}), seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in made.parameters.values():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return made
