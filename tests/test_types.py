"""The data contract is tinker's own, and costs nothing until it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import tinker

from mint_lab import types


def test_importing_types_imports_neither_tinker_nor_torch() -> None:
    code = "import sys, mint_lab.types; print(sorted({'tinker', 'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", types.__all__)
def test_every_name_is_the_official_class(name: str) -> None:
    if version("tinker") == "0.22.0" and name in {*types.TRACED_LOSSES, "ExternalWeightsUrlsResponse"}:
        with pytest.raises((AttributeError, ImportError)):
            getattr(types, name)
        return
    ours = getattr(types, name)
    assert isinstance(ours, type) or name in types.TRACED_LOSSES
    assert ours.__module__.partition(".")[0] == "tinker"
    home = importlib.import_module("tinker.types" if hasattr(tinker.types, name) else ours.__module__)
    assert ours is getattr(home, name)


def test_names_are_listed_once_and_in_order() -> None:
    assert types.__all__ == sorted(set(types.__all__))
    assert dir(types) == types.__all__


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'mint_lab.types' has no attribute 'Datums'"):
        types.Datums  # noqa: B018  # pyright: ignore


def test_a_datum_takes_any_key_as_tensor_data() -> None:
    """What every loss of this package relies on, at whichever version of tinker is installed."""
    mask = types.TensorData.from_numpy(np.array([0.0, 1.0], dtype=np.float32))
    datum = types.Datum(model_input=types.ModelInput.from_ints([1, 2]), loss_fn_inputs={"mask": mask})
    assert datum.model_input.length == 2
    assert datum.model_input.to_ints() == [1, 2]
    assert datum.loss_fn_inputs["mask"].to_numpy().tolist() == [0.0, 1.0]
    assert datum.loss_fn_inputs["mask"].to_torch().tolist() == [0.0, 1.0]


def test_the_optimizers_defaults() -> None:
    """MinT's documented ones: a change there has to be noticed here."""
    adam = types.AdamParams()
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.eps) == (1e-4, 0.9, 0.95, 1e-12)
    assert (adam.weight_decay, adam.grad_clip_norm) == (0.0, 0.0)
