"""How the code is laid out: a test for every module, one meaning for every name, one place for every loss."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from mint_lab.losses import LOSSES

from ..losses.references import losses_with_a_reference

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "mint_lab", ROOT / "tests"

# Modules whose test is not at the mirrored path, with the test that covers them.
COVERED_ELSEWHERE: Mapping[str, str] = {
    "runs/run_view.py": "runs/test_run.py",
    "ui/data_messages.py": "ui/test_messages.py",
    "ui/run_messages.py": "ui/test_messages.py",
}

# Modules of one name in several packages: each is the same subject, seen from its package.
SAME_SUBJECT: Mapping[str, str] = {
    "preference": "the losses, the metrics and the recipe for pairs",
    "registry": "entries by name: the general class, the metrics, the recipes",
    "unpaired": "the losses, the data and the recipe for labelled completions",
    "rollout": "sampling a rollout, and the metrics of one",
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("module", modules(), ids=named)
def test_every_module_has_its_test(module: Path) -> None:
    """``mint_lab/a/b.py`` is tested by ``tests/a/test_b.py``, or by the test that ``COVERED_ELSEWHERE`` names."""
    mirrored = TESTS / module.relative_to(PACKAGE).with_name(f"test_{module.name}")
    elsewhere = COVERED_ELSEWHERE.get(named(module))
    assert mirrored.is_file() != (elsewhere is not None), (
        f"expected {mirrored.relative_to(ROOT)}, or one line in the list"
    )
    assert (TESTS / elsewhere if elsewhere else mirrored).is_file()


def test_the_list_of_covered_modules_has_no_stale_line() -> None:
    assert set(COVERED_ELSEWHERE) <= {named(path) for path in modules()}


def test_module_names_mean_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        places[path.stem].append(named(path))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SAME_SUBJECT} == {}


def test_class_names_mean_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(named(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_bundled_loss_has_a_reference(name: str) -> None:
    """TRL's value and gradient, or hand arithmetic; ``tests/losses/test_gradients.py`` checks every gradient."""
    assert name in losses_with_a_reference(), f'mark the test of {name} with @pytest.mark.loss_reference("{name}")'


def test_references_name_losses_that_exist() -> None:
    assert losses_with_a_reference() <= set(LOSSES)
