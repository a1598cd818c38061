"""Recipes by name, which losses they train with, and recipes of other packages."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.cells.loss_cell import run_cell
from mint_lab.data import TASKS, Pair, Rows
from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.recipes import RECIPES, Recipe, recipe
from mint_lab.recipes.registry import (
    ENTRY_POINTS,
    _Recipes,
    check_loss,
    recipe_for,
    recipe_named,
    recipe_of,
    recipes_for,
    unchecked_note,
)
from mint_lab.runs import Run
from mint_lab.usercode.cell_source import cell_from

from ..waiting import Attempt, Gate, join


class _Made(Recipe):
    name = "made"
    default_loss = "cross_entropy"

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any:
        raise NotImplementedError


@pytest.fixture
def made() -> type[Recipe]:
    return recipe(_Made)


# Reasons by recipe and loss: what the picker shows, and what a run raises.
UNFIT = [
    ("preference", "cross_entropy", "does not tell chosen from rejected"),
    ("preference", "ppo", "needs logprobs and advantages, which this data does not have"),
    ("sft", "dpo", "needs pairs of chosen and rejected"),
    ("sft", "hinge", "needs pairs of chosen and rejected"),
    ("sft", "gspo", "needs logprobs and advantages, which this data does not have"),
    ("rl", "cross_entropy", "does not read advantages"),
    ("rl", "dpo", "needs pairs of chosen and rejected"),
    ("rl", "reverse_kl", "needs teacher_logprobs, which this data does not have"),
    ("sft", "bco", "needs pairs of chosen and rejected, or a label for each completion"),
    ("unpaired", "dpo", "needs pairs of chosen and rejected"),
    ("unpaired", "cross_entropy", "does not read label"),
    ("unpaired", "grpo", "needs logprobs and advantages, which this data does not have"),
]


@pytest.mark.parametrize(("name", "loss", "reason"), UNFIT)
def test_unfit_losses_are_refused_with_the_reason(name: str, loss: str, reason: str) -> None:
    assert LOSSES[loss].unfit(recipe_named(name).data_kind) == reason
    with pytest.raises(ConfigError, match=f"{loss} {reason}"):
        check_loss(recipe_named(name), LOSSES[loss])
    with pytest.raises(ConfigError, match=f"{loss} {reason}"):
        Run(name, loss)


def test_every_bundled_loss_fits_the_recipe_of_its_family() -> None:
    expected = {"preference": "preference", "supervised": "sft", "policy": "rl"}
    for name, spec in LOSSES.items():
        fitting = [other for other in recipes_for(spec) if other in expected.values()]
        assert fitting == ([] if name == "reverse_kl" else [expected[spec.family]]), name
        assert ("unpaired" in recipes_for(spec)) == (name in {"kto", "bco"})


def test_the_refusal_names_the_recipe_that_fits() -> None:
    with pytest.raises(ConfigError, match="use recipe='sft'"):
        check_loss(recipe_named("preference"), LOSSES["cross_entropy"])
    with pytest.raises(ConfigError, match="use recipe='rl'"):
        check_loss(recipe_named("sft"), LOSSES["ppo"])
    with pytest.raises(ConfigError, match="use recipe='preference' or loss='kto' or 'bco'"):
        check_loss(recipe_named("unpaired"), LOSSES["dpo"])
    with pytest.raises(ConfigError, match="use loss='kto' or 'bco'"):
        check_loss(recipe_named("unpaired"), LOSSES["reverse_kl"])
    with pytest.raises(ConfigError, match=r"\(recipe 'preference'\); use recipe='sft'$"):  # fourteen losses fit
        check_loss(recipe_named("preference"), LOSSES["cross_entropy"])


@pytest.mark.parametrize("origin", ["dpo", "simpo", "kto"])
def test_a_cell_made_from_a_pair_loss_is_refused_on_single_rows(origin: str) -> None:
    """Its rows would be taken for chosen and rejected in turn, though they have nothing to do with each other."""
    line, _, body = cell_from(LOSSES[origin]).partition("\n")
    run_cell(line.removeprefix("%%loss "), body.replace("mean()", "sum()"), {})
    with pytest.raises(ConfigError, match=f"my_{origin} needs pairs of chosen and rejected"):
        Run("sft", f"my_{origin}", data=[("a", "b"), ("c", "d")])
    assert Run("preference", f"my_{origin}").loss.unit == "pair"


def test_a_cell_of_ones_own_is_judged_by_preflight() -> None:
    paired = (
        "def paired(data, lps):\n"
        "    s = [lp.sum() for lp in lps]\n"
        "    return sum((r - c).exp() for c, r in zip(s[0::2], s[1::2])), {}\n"
    )
    run_cell("paired", paired, {})
    with pytest.raises(ConfigError, match="paired needs pairs"):
        Run("sft", "paired")
    single = "def lone(data, lps):\n    return -sum(lp.sum() for lp in lps), {}\n"
    run_cell("lone", single, {})
    with pytest.raises(ConfigError, match="lone does not tell chosen from rejected"):
        Run("preference", "lone")
    assert Run("sft", "lone").notes == []


READS_LABEL = """
import torch

def judged(data, logprobs_list, beta=0.1):
    terms = []
    for datum, logprobs in zip(data, logprobs_list, strict=True):
        fields = datum.loss_fn_inputs
        reward = beta * (fields["weights"].to_torch() * (logprobs - fields["reference_logprobs"].to_torch())).sum()
        sign = 1 if fields["label"].to_torch().item() else -1
        terms.append(-torch.nn.functional.logsigmoid(sign * reward))
    return torch.stack(terms).mean(), {}
"""


@pytest.mark.parametrize("coupled", [False, True])
def test_a_cell_that_reads_the_label_takes_data_with_it(coupled: bool) -> None:
    """Also one whose unit no check can find, because it depends on the whole batch."""
    run_cell("judged", READS_LABEL.replace(".mean()", ".mean() ** 2") if coupled else READS_LABEL, {})
    spec = LOSSES["judged"]
    assert (spec.inputs, spec.unit) == (("reference_logprobs", "label"), "datum")
    assert recipes_for(spec) == ["unpaired"]
    assert unchecked_note(spec) is None
    for name in ("preference", "sft", "rl"):
        with pytest.raises(ConfigError, match="judged needs label, which this data does not have"):
            Run(name, "judged")
    assert Run("unpaired", "judged").notes == []


@pytest.mark.parametrize("origin", ["kto", "bco"])
def test_a_cell_made_from_a_loss_for_both_takes_both(origin: str) -> None:
    line, _, body = cell_from(LOSSES[origin]).partition("\n")
    run_cell(line.removeprefix("%%loss "), body.replace("mean()", "sum()"), {})
    assert recipes_for(LOSSES[f"my_{origin}"]) == ["preference", "unpaired"]
    run_cell("mine --from dpo", READS_LABEL.replace("judged", "mine"), {})
    assert recipes_for(LOSSES["mine"]) == ["unpaired"]


def test_an_unchecked_loss_is_accepted_with_a_warning() -> None:
    def unchecked(data: Any, logprobs_list: Any) -> Any:
        return sum(lp.sum() for lp in logprobs_list), {}

    run = Run("sft", unchecked)
    assert [note for note in run.notes if "unchecked v1 was not checked" in note]
    run.set_loss("cross_entropy")
    assert len(run.notes) == 1
    assert unchecked_note(LOSSES["dpo"]) is None
    run_cell("unseen --no-preflight", "def unseen(data, lps):\n    return sum(lp.sum() for lp in lps), {}\n", {})
    assert "unseen v1 was not checked" in str(unchecked_note(LOSSES["unseen"]))


def test_unknown_recipes_and_what_was_meant() -> None:
    for given, meant in (
        ("sfft", "did you mean 'sft'"),
        ("dpo", r"Run\(loss='dpo'\)"),
        ("ppo", r"Run\('rl', loss='ppo'\)"),
    ):
        with pytest.raises(ConfigError, match=meant):
            recipe_named(given)
    with pytest.raises(ConfigError, match="base_model='mint-tiny'"):
        recipe_named("mint-tiny")


def test_an_option_of_another_recipe_is_said_to_be_one() -> None:
    with pytest.raises(ConfigError, match="'group_size' is an option of the rl recipe, and this is sft"):
        recipe_named("sft", {"group_size": 4})
    with pytest.raises(ConfigError, match="'group_size' is an option of the rl recipe, and this is sft"):
        recipe_named("sft", {"num_generations": 4})


def test_a_registered_recipe_is_found_and_forgotten(made: type[Recipe]) -> None:
    assert isinstance(recipe_named("made"), made)
    assert list(RECIPES)[:4] == ["preference", "sft", "rl", "unpaired"]
    assert "made" in RECIPES
    assert recipe(made) is made  # once more: replaced
    RECIPES.remove("made")
    assert "made" not in RECIPES
    with pytest.raises(ConfigError, match="no registered recipe is called 'nope'"):
        RECIPES.remove("nope")


def test_a_bundled_recipe_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="'sft' is a bundled recipe"):
        recipe(type("Other", (_Made,), {"name": "sft"}))


def test_a_recorded_run_of_an_unknown_recipe_can_be_read() -> None:
    assert recipe_of("gone").charts == ("loss", "grad_norm")
    with pytest.raises(ConfigError, match="not registered here"):
        recipe_of("gone").prepare(None, None, None, seed=0)


def test_recipes_of_installed_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages: one offers a recipe, the other one cannot be imported and is left out with a warning."""
    (tmp_path / "offered.py").write_text(
        "from mint_lab.recipes import Recipe\n"
        "class Offered(Recipe):\n"
        "    name, default_loss = 'offered', 'cross_entropy'\n"
        "    def prepare(self, tokenizer, data, held_out, *, seed, max_length=None): ...\n"
    )
    for package, target in (("offered_pkg", "offered:Offered"), ("broken_pkg", "not_there:Recipe")):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{package} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(RECIPES, "_loaded", False)
    with pytest.warns(UserWarning, match="the recipe 'broken_pkg' of broken_pkg is left out: ModuleNotFoundError"):
        assert "offered" in RECIPES
    assert recipe_named("offered").default_loss == "cross_entropy"


# -- from several threads ----------------------------------------------------------------------------------------------


LOOKUPS: dict[str, Callable[[Any], Any]] = {
    "name": lambda recipes: recipes["plugged"].name,
    "membership": lambda recipes: "plugged" in recipes,
    "list": list,
    "length": len,
}
FOUND = {"name": "plugged", "membership": True, "list": ["sft", "plugged"], "length": 2}


@pytest.mark.parametrize("look", LOOKUPS)
def test_first_looks_from_two_threads_load_the_packages_once(
    made: type[Recipe], monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """The second one waits; it must not miss the recipes that are being loaded."""
    gate, loads = Gate(holds=1), []

    def load() -> type[Recipe]:
        loads.append(threading.current_thread().name)
        gate()
        return type("Plugged", (made,), {"name": "plugged"})

    point = SimpleNamespace(name="plugged", value="a:b", dist=None, load=load)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    recipes = _Recipes(type(RECIPES["sft"]))
    first = threading.Thread(target=lambda: list(recipes))
    first.start()
    gate.wait()
    attempt = Attempt(lambda: LOOKUPS[look](recipes), recipes, "_lock")
    assert attempt.waits
    gate.open()
    assert attempt.result() == FOUND[look]
    join(first)
    assert len(loads) == 1


def test_registrations_wait_for_each_other(made: type[Recipe]) -> None:
    recipes, gate = _Recipes(), Gate(holds=1)
    kinds = [type(f"Kind{i}", (made,), {"name": f"kind{i}"}) for i in range(2)]
    kinds[0].__init__ = lambda self: gate()  # type: ignore[misc]
    first = threading.Thread(target=recipes.register, args=(kinds[0],))
    first.start()
    gate.wait()
    attempts = [Attempt(lambda: recipes.register(kinds[1]), recipes, "_lock")]
    attempts += [Attempt(lambda: recipes.remove("kind0"), recipes, "_lock")]
    assert [attempt.waits for attempt in attempts] == [True, True]
    gate.open()
    join(first)
    for attempt in attempts:
        attempt.result()
    assert "kind1" in recipes
    assert "kind0" not in recipes


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ([Pair("a", "b", "c")], "preference"),
        ([{"question": "a", "chosen": "b", "rejected": "c"}], "preference"),
        ([("a", "b")], "sft"),
        ([{"messages": []}], "sft"),
        ([{"conversations": []}], "sft"),
        ([{"prompt": "a", "completion": "b"}], "sft"),
        ([{"prompt": "a", "response": "b"}], "sft"),
        ([{"question": "a", "answer": "b"}], "sft"),
        ([{"prompt": "a", "answer": "b"}], "rl"),
        ([{"prompt": "a", "completion": "b", "label": True}], "unpaired"),
        ([{"messages": [], "label": 0}], "unpaired"),
        (["a"], "rl"),
        ("subtraction", "rl"),
        (TASKS["addition"], "rl"),
        (None, "preference"),
    ],
)
def test_recipe_that_data_look_made_for(data: Any, name: str) -> None:
    assert recipe_for(data)[0] == name
    if isinstance(data, list):
        row = data[0]
        assert RECIPES[name].takes(row)
        assert [other.takes(row) for other in list(RECIPES.values())[: list(RECIPES).index(name)]].count(True) == 0


def test_recipe_of_an_iterator_reads_and_returns_its_first_rows() -> None:
    """An endless source: 20 rows are read, and the limit is kept."""
    endless = ({"prompt": str(n), "completion": "x"} for n in itertools.count())
    name, reason, data = recipe_for(Rows(endless, max_rows=30, on_bad_row="skip"))
    assert (name, reason, data.on_bad_row) == ("sft", "row 0 has 'prompt', 'completion'", "skip")
    assert data.map(lambda row, _: row["prompt"]) == [str(n) for n in range(30)]


def test_first_rows_may_be_bad(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('not JSON\n{"prompt": "a", "completion": "b"}\n')
    assert recipe_for(path)[:2] == ("sft", "row 1 has 'prompt', 'completion'")
    assert recipe_for([{}, "a"])[1] == "row 1 has text alone"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "is empty, expected at least one row"),
        ([{"a": 1, "b": 2}], "datum 0: found 'a', 'b', which no recipe is known to train on; name the recipe"),
        ([3], "found a int"),
        ([{"prompt": "a", "label": 1}], "name the recipe"),
        ("missing.jsonl", "is missing"),
    ],
)
def test_data_that_look_made_for_no_recipe(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recipe_for(data)


def test_recipe_takes_no_rows_by_default() -> None:
    assert _Made().takes({"prompt": "a"}) is False
