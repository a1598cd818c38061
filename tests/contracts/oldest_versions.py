"""Import every module and train with every recipe: ``make test-oldest`` runs this with the oldest supported versions.

Run it as ``python -W error -m tests.contracts.oldest_versions``. With ``--any-version`` it does not compare the
installed versions with ``constraints-oldest.txt``; the test suite runs it in that way, with the newest versions.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import pkgutil
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mint_lab as ml
from mint_lab.data.tasks import TASKS
from mint_lab.recipes.registry import RECIPES
from tests.waiting import TIMEOUT

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints-oldest.txt"
STEPS = 3


def pinned_versions() -> dict[str, str]:
    """Return the versions in ``constraints-oldest.txt`` by normalized package name."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {normalized(name): version for name, version in pins}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_versions() -> None:
    """Raise ``SystemExit`` if an installed package has another version than ``constraints-oldest.txt`` says."""
    installed = {normalized(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    wrong = [
        f"{name} {installed.get(name, 'is missing')}, expected {version}"
        for name, version in pinned_versions().items()
        if installed.get(name) != version
    ]
    if wrong:
        raise SystemExit(f"this environment is not that of constraints-oldest.txt: {'; '.join(wrong)}")


def module_names() -> Iterator[str]:
    """Yield the name of every module of the package except programs (``__main__``)."""
    for module in pkgutil.walk_packages(ml.__path__, "mint_lab."):
        if not module.name.endswith("__main__"):
            yield module.name


def few_rows(recipe: str) -> dict[str, Any]:
    """Return data and held-out data, because the bundled ones are thousands of rows; a task generates what it needs."""
    if recipe == "rl":
        return {"held_out": TASKS["arithmetic"].problems(8, split="held_out")}
    rows: dict[str, Any] = {
        "data": ml.data.arithmetic_pairs(64),
        "held_out": ml.data.arithmetic_pairs(8, split="held_out"),
    }
    if recipe == "sft":
        rows = {name: [(pair.prompt, pair.chosen) for pair in pairs] for name, pairs in rows.items()}
    return rows


def train(recipe: str, folder: Path) -> ml.Run:
    """Train a few steps, keep the run in ``folder`` and open it again."""
    run = ml.Run(recipe, steps=STEPS, eval_every=STEPS, seed=0, folder=folder, **few_rows(recipe))
    run.start().wait(300)
    losses = [record.metrics["loss"] for record in run.records]
    assert len(losses) == STEPS, losses
    assert all(math.isfinite(loss) for loss in losses), losses
    reopened = ml.load_run(folder)
    assert [record.metrics["loss"] for record in reopened.records] == losses
    return run


def show(run: ml.Run) -> None:
    """Draw the run with plotly, as the static picture, and as a widget."""
    assert run.figure().to_json()
    charts = ml.LiveCharts(run)
    assert charts._repr_mimebundle_()
    charts.close()
    # The interpreter must not exit while the widget's thread is drawing: Python would end that thread inside C++ code.
    for thread in threading.enumerate():
        if thread.name == "mint-lab-page":
            thread.join(TIMEOUT)


def read_data_sets(folder: Path) -> None:
    """Read the same pairs from a Parquet file and from a Hugging Face data set (the extra ``data``)."""
    import datasets
    import pandas

    rows = [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}]
    file = folder / "pairs.parquet"
    pandas.DataFrame(rows).to_parquet(file)
    assert ml.data.load_pairs(file) == ml.data.load_pairs(datasets.Dataset.from_list(rows)) == ml.data.load_pairs(rows)


def main() -> None:
    # torch 2.6 leaves a temporary folder to the interpreter's exit.
    warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
    if "--any-version" not in sys.argv:
        check_versions()
    names = list(module_names())
    for name in names:
        importlib.import_module(name)
    print(f"{len(names)} modules imported")
    with tempfile.TemporaryDirectory() as root:
        read_data_sets(Path(root))
        for recipe in RECIPES:
            run = train(recipe, Path(root) / recipe)
            show(run)
            print(f"{recipe}: trained {STEPS} steps, loss {run.records[-1].metrics['loss']:.4f}")


if __name__ == "__main__":
    main()
