"""Runs: what they record, which step an edit takes effect at, and that results are reproducible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.errors import ConfigError, RunError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.runs import Run, load_run
from mint_lab.runs.early_stopping import EarlyStopping

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT, finish, in_state, timeless

HELD = ("pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "displacement_frac", "loss")


# -- a whole run --------------------------------------------------------------------------------------------------


def test_run_learns_and_records_every_step(make_run: Any) -> None:
    run = finish(make_run(steps=30))
    assert run.status == "finished"
    assert [r.step for r in run.records] == list(range(1, 31))
    assert run.records[-1].held_out["pair_accuracy"] == 1.0 > run.baseline["pair_accuracy"]
    assert run.records[-1].metrics["loss"] < run.records[0].metrics["loss"]
    assert [r.step for r in run.records if r.held_out] == [5, 10, 15, 20, 25, 30]
    assert set(HELD) <= set(run.baseline) == set(run.records[-1].held_out)
    assert sum(run.records[4].histograms["margin"]) == 10  # the held-out pairs
    assert sum(run.records[3].histograms["margin"]) == 4  # the batch
    assert [loss.name for loss in run.losses] == ["pairwise_preference"]
    assert "def pairwise_preference_loss" in run.losses[0].source
    assert run.steps_per_s > 0
    assert run.data_sizes == (40, 10)


def test_each_step_is_one_pass_then_one_update(make_run: Any) -> None:
    run = finish(make_run(steps=3, eval_every=100))
    assert run.client.calls == ["forward", *["forward_backward", "optim_step"] * 3, "forward"]


def test_nothing_is_loaded_or_written_before_the_start(make_run: Any, tmp_path: Any) -> None:
    run = make_run(data="no/such/file.jsonl")
    assert run.status == "ready"
    assert run.client.calls == []
    assert not run.folder.exists()


def test_history_columns(make_run: Any) -> None:
    run = make_run()
    assert list(run.history.columns) == ["time", "step_time", "tokens", "loss_name", "loss_version"]
    assert len(run.history) == 0
    frame = finish(run).history
    assert frame.index.name == "step"
    assert list(frame.index) == list(range(1, 13))
    train = {"loss", "pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "grad_norm", "tokens_per_s"}
    assert train | {f"held_out/{name}" for name in HELD} <= set(frame.columns)
    assert frame["held_out/loss"].notna().sum() == 3  # steps 5, 10 and the last
    assert frame["pair_accuracy"].between(0, 1).all()
    assert "settings/learning_rate" in frame


def test_the_loss_on_held_out_data_is_a_mean_over_batches(make_run: Any) -> None:
    run = make_run("sft", steps=1, batch_size=5, held_out=letter_pairs(10))
    finish(run)
    # cross_entropy is a sum; ten items in two batches of five give half the sum over all ten.
    mean_nll = run.baseline["nll"]
    tokens = 4 * 10  # three characters and the end mark
    assert run.baseline["loss"] == pytest.approx(mean_nll * tokens / 2, rel=1e-5)


def test_default_folder_is_created_at_the_start(make_run: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(folder=None, steps=1)
    assert run.folder is None
    finish(run)
    assert run.folder.parent == tmp_path / "runs"
    assert run.folder.name.endswith("-preference-pairwise_preference")
    assert load_run(run.folder).records == run.records


def test_pace_is_that_of_the_last_twenty_steps(make_run: Any) -> None:
    """Ten steps of 9 s, then twenty of 0.5 s: 19 steps in 9.5 s."""
    run = make_run()
    assert run.steps_per_s == 0.0
    assert run.step(1).wait(TIMEOUT)
    (record,) = run.records
    assert run.steps_per_s == 0.0
    times = [9.0 * k for k in range(1, 11)] + [90.0 + 0.5 * k for k in range(1, 21)]
    run._loop.records = [replace(record, step=k, time=time) for k, time in enumerate(times, 1)]
    assert run.steps_per_s == pytest.approx(2.0)


def test_figure(make_run: Any) -> None:
    run = make_run()
    assert "no steps yet" in str(run.figure().layout.annotations)
    run.step(6).wait(TIMEOUT)
    run.set_loss("hinge")
    figure = finish(run).figure()
    assert {"loss", "pair_accuracy", "mean_margin"} <= {a.text for a in figure.layout.annotations}
    assert any(a.text == "hinge v1" and a.x == 6.5 for a in figure.layout.annotations)
    assert {type(t).__name__ for t in figure.data} == {"Scatter", "Heatmap"}


# -- the same every time ------------------------------------------------------------------------------------------


def test_same_seed_same_records(make_run: Any) -> None:
    first, second = (finish(make_run(seed=3, client=BigramClient(), data=letter_pairs(21))) for _ in range(2))
    assert [timeless(r) for r in first.records] == [timeless(r) for r in second.records]
    other = finish(make_run(seed=4, client=BigramClient(), data=letter_pairs(21)))
    assert other.records[0].metrics["loss"] != first.records[0].metrics["loss"]


def test_pausing_changes_no_number(make_run: Any) -> None:
    whole = finish(make_run(client=BigramClient()))
    pieces = make_run(client=BigramClient())
    while pieces.status in ("ready", "paused"):
        assert pieces.step(5).wait(TIMEOUT)
    assert [timeless(r) for r in whole.records] == [timeless(r) for r in pieces.records]


def test_every_item_once_an_epoch(make_run: Any) -> None:
    run = finish(make_run(steps=10, batch_size=4, data=letter_pairs(40)))
    firsts = [tuple(d.model_input.to_ints()) for batch in run.client.batches for d in batch[::2]]
    assert sorted(firsts) == sorted(tuple(characters(pair.prompt + pair.chosen)) for pair in letter_pairs(40))


def characters(text: str) -> list[int]:
    return [ord(c) for c in text]


# -- edits --------------------------------------------------------------------------------------------------------


def test_edit_takes_effect_at_the_next_step(make_run: Any) -> None:
    run = in_state(make_run, "running")  # inside step 1
    run.set(learning_rate=0.01, beta=0.5)
    run.set_loss("hinge")
    assert run.loss.name == "hinge"  # what the next step will use
    run.client.gate.open(10)
    assert run.wait(TIMEOUT)
    first, second = run.records[:2]
    assert (first.loss_name, first.settings["learning_rate"], first.settings["beta"]) == (
        "pairwise_preference",
        0.05,
        1.0,
    )
    assert (second.loss_name, second.settings["learning_rate"]) == ("hinge", 0.01)
    assert [(e.step, e.kind, e.label) for e in run.edits] == [
        (2, "loss", "hinge v1"),
        (2, "setting", "learning_rate 0.01"),
    ]
    assert [(loss.step, loss.name) for loss in run.losses] == [(1, "pairwise_preference"), (2, "hinge")]


def test_setting_that_returns_to_its_value_is_no_edit(make_run: Any) -> None:
    run = in_state(make_run, "paused")
    for value in (0.3, 0.7, 1.0):
        run.set(beta=value)
    run.step().wait(TIMEOUT)
    assert run.edits == []
    run.set(beta=0.3).set(beta=0.7)
    run.step().wait(TIMEOUT)
    assert [(e.step, e.label) for e in run.edits] == [(3, "beta 0.7")]


def test_another_batch_size_continues_the_epoch(make_run: Any) -> None:
    run = make_run(steps=10, batch_size=4)
    assert run.step(5).wait(TIMEOUT)
    run.set(batch_size=10)
    assert run.step(2).wait(TIMEOUT)
    seen = [tuple(d.model_input.to_ints()) for batch in run.client.batches for d in batch[::2]]
    assert len(seen) == 40
    assert sorted(seen) == sorted(tuple(characters(p.prompt + p.chosen)) for p in letter_pairs(40))


def test_hot_swap_keeps_the_optimizer(make_run: Any) -> None:
    @register(name="mine")
    def mine(data: Any, logprobs_list: Any, beta: float = 1.0) -> Any:
        return pairwise_preference_loss(data, logprobs_list, beta)

    run = make_run("preference", "mine", loss_config={"beta": 0.5}, steps=8)
    assert run.step(3).wait(TIMEOUT)
    register(name="mine")(lambda data, logprobs_list, beta=1.0: pairwise_preference_loss(data, logprobs_list, beta))
    assert run.loss.label == "mine v2"
    assert run.loss_config == {"beta": 0.5}  # kept, though the default is 1
    finish(run)
    assert [r.loss_version for r in run.records] == [1, 1, 1, 2, 2, 2, 2, 2]
    assert [(e.step, e.kind, e.label) for e in run.edits] == [(4, "loss", "mine v2")]
    assert [(x.step, x.version) for x in run.losses] == [(1, 1), (4, 2)]
    assert "lambda" in run.losses[1].source
    # The same function under another version: without a lost moment the numbers are those of an unbroken run.
    plain = finish(make_run(loss_config={"beta": 0.5}, steps=8))
    assert torch.equal(run.client.table, plain.client.table)
    (state,) = run.client.optimizer.state.values()
    assert int(state["step"]) == 8


def test_registering_another_name_leaves_the_run_alone(make_run: Any) -> None:
    run = in_state(make_run, "paused")
    register(name="other")(lambda data, logprobs_list: pairwise_preference_loss(data, logprobs_list))
    assert run.loss.label == "pairwise_preference v1"


def test_set_loss_takes_a_name_a_spec_or_a_function(make_run: Any) -> None:
    def plain(data: Any, logprobs_list: Any, gamma: float = 0.25) -> Any:
        return pairwise_preference_loss(data, logprobs_list)

    run = make_run()
    assert run.set_loss("simpo", gamma=0.5).loss_config == {"beta": 2.0, "gamma": 0.5}
    assert run.set_loss(LOSSES["hinge"]).loss.name == "hinge"
    assert run.set_loss(plain).loss_config == {"gamma": 0.25}
    assert LOSSES["plain"].family == "custom"
    assert run.set_loss(plain).loss.version == 1  # the same function is no new version
    assert [p.name for p in run.setting_params] == ["learning_rate", "gamma"]


def test_unchecked_loss_is_noted_once(make_run: Any) -> None:
    def plain(data: Any, logprobs_list: Any) -> Any:
        return pairwise_preference_loss(data, logprobs_list)

    run = make_run()
    assert run.notes == []
    for loss in (plain, "hinge", plain):
        run.set_loss(loss)
    (note,) = run.notes
    assert note.startswith("plain v1 was not checked: if it expects pairs and the data have none")


def test_functions_of_one_name_are_different_losses(make_run: Any) -> None:
    """Functions of a factory have one name, and lambdas have none; each run still trains with its own function."""

    def scaled(factor: float) -> Any:
        def mine(data: Any, logprobs_list: Any) -> Any:
            loss, _ = pairwise_preference_loss(data, logprobs_list)
            return factor * loss, {"factor": factor}

        return mine

    up, down = lambda data, lp: (torch.cat(lp).sum(), {}), lambda data, lp: (-torch.cat(lp).sum(), {})
    losses = [scaled(1.0), scaled(2.0), up, down]
    runs = [make_run(loss=losses[0], steps=2)]
    assert runs[0].step().wait(TIMEOUT)
    runs += [make_run(loss=loss, steps=2) for loss in losses[1:]]
    for run in runs:
        finish(run)
    assert [[r.metrics.get("factor") for r in run.records] for run in runs[:2]] == [[1.0, 1.0], [2.0, 2.0]]
    assert [run.loss.fn for run in runs] == losses
    assert [run.loss.label for run in runs] == ["mine v1", "mine_2 v1", "custom_loss v1", "custom_loss_2 v1"]
    assert all(run.edits == [] for run in runs)
    assert [LOSSES[run.loss.name].fn for run in runs] == losses, "the picker has each"
    assert make_run(loss=losses[1]).loss is runs[1].loss
    register(name="mine")(scaled(3.0))  # on purpose, under that name
    assert [run.loss.version for run in runs] == [2, 1, 1, 1]


def test_function_may_have_the_name_of_a_registered_loss(make_run: Any) -> None:
    def hinge(data: Any, logprobs_list: Any) -> Any:
        return pairwise_preference_loss(data, logprobs_list)

    builtin = LOSSES["hinge"]
    run = make_run().set_loss(hinge)
    assert (run.loss.label, run.loss.fn, LOSSES["hinge"]) == ("hinge_2 v1", hinge, builtin)
    assert run.set_loss(builtin.fn).loss is builtin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.set(betta=1), "did you mean 'beta'"),
        (lambda run: run.set(beta=-1), "from 0 up"),
        (lambda run: run.set(beta=float("inf")), "finite"),
        (lambda run: run.set(learning_rate=float("nan")), "learning_rate"),
        (lambda run: run.set(learning_rate="fast"), "learning_rate"),
        (lambda run: run.set(batch_size=0), "batch_size"),
        (lambda run: run.set(batch_size=2.5), "batch_size"),
        (lambda run: run.set(steps=float("inf")), "steps"),
        (lambda run: run.set_loss("nope"), "unknown loss"),
        (lambda run: run.set_loss("hinge", gamma=1), "unknown setting"),
        (lambda run: run.set_loss("ppo"), "needs logprobs and advantages"),
        (lambda run: run.set_loss("cross_entropy"), "recipe='sft'"),
        (lambda run: run.set_loss(lambda data: 0), "logprobs_list"),
        (lambda run: run.set_loss(lambda data, lp, steps=1: 0), "steps"),
        (lambda run: run.set_loss(3), "expected a name"),
    ],
)
def test_refused_edit_changes_nothing(make_run: Any, change: Any, message: str) -> None:
    run = make_run()
    before = (run.loss, run.settings, run.steps_total)
    with pytest.raises(ConfigError, match=message):
        change(run)
    assert (run.loss, run.settings, run.steps_total) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "preferences"}, "did you mean 'preference'"),
        ({"loss": "dpoo"}, "unknown loss"),
        ({"recipe": "sft", "loss": "hinge"}, "recipe='preference'"),
        ({"loss_config": {"alpha": 1}}, "unknown setting"),
        ({"steps": 0}, "steps"),
        ({"eval_every": 0}, "eval_every"),
        ({"batch_size": -3}, "batch_size"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(**options)


# -- evaluation ----------------------------------------------------------------------------------------------------


def test_last_evaluation_uses_all_held_out_items(make_run: Any) -> None:
    sizes: list[int] = []

    class Client(BigramClient):
        def forward(self, data: Any, loss_fn: str, loss_fn_config: Any = None) -> Any:
            sizes.append(len(data))
            return super().forward(data, loss_fn, loss_fn_config)

    run = finish(make_run(client=Client(), held_out=letter_pairs(150), steps=10, batch_size=20, eval_every=5))
    assert sizes == [256, 44, 120, 256, 44]  # all; three batches of 20 pairs; all
    counts = [sum(r.histograms["margin"]) for r in run.records if r.held_out]
    assert counts == [60, 150]


def test_further_fields_reach_the_loss_but_not_the_built_in_forward(make_run: Any) -> None:
    class Strict(BigramClient):
        def forward(self, data: Any, loss_fn: str, loss_fn_config: Any = None) -> Any:
            assert all(set(d.loss_fn_inputs) == {"target_tokens", "weights"} for d in data)
            return super().forward(data, loss_fn, loss_fn_config)

    def with_reference(data: Any, logprobs_list: Any) -> Any:
        assert all("reference_logprobs" in d.loss_fn_inputs for d in data)
        return pairwise_preference_loss(data, logprobs_list)

    run = make_run(loss=with_reference, client=Strict(), steps=2)
    recipe = run._recipe

    class Enriched:
        def __getattr__(self, name: str) -> Any:
            return getattr(recipe, name)

        def prepare(self, *args: Any, **options: Any) -> Any:
            job = recipe.prepare(*args, **options)
            for datum in (*job.data, *job.held_out):
                datum.loss_fn_inputs["reference_logprobs"] = datum.loss_fn_inputs["weights"]
            return job

    run._recipe = Enriched()
    finish(run)
    assert "loss" in run.records[-1].held_out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recipe": "sft", "lora": LoraOptions(4, dropout=0.1), "max_length": 40, "max_rows": 9, "on_bad_row": "skip"},
        {"recipe": "rl", "loss": "grpo", "group_size": 3, "max_tokens": 5, "seed": 4, "keep_snapshots": None},
        {"loss": "dpo", "loss_config": {"beta": 0.3}, "schedule": "cosine", "betas": (0.8, 0.9), "rank": 3},
        {"early_stopping": EarlyStopping(3, metric="loss"), "tags": ["a"], "description": "b", "name": "c"},
    ],
)
def test_another_run_has_the_same_arguments_and_the_present_loss_and_settings(
    options: dict[str, Any], tmp_path: Path
) -> None:
    old = Run(**options, steps=7, eval_every=3, folder=tmp_path / "old")
    if "recipe" not in options:
        old.set_loss("simpo", gamma=2.0)
    old.set(learning_rate=1e-3, batch_size=6, steps=9)
    new = old.again(tmp_path / "new")
    assert (new.status, new.folder, new.loss, new.plan) == ("ready", tmp_path / "new", old.loss, old.plan)
    assert replace(new._info(), name=old.name) == old._info()
    assert new.name == options.get("name", f"{new.recipe}-{new.loss.name}-{new.seed}")
    assert new._limits == old._limits
    assert Run(**options).again().folder is None


def test_another_run_needs_another_client(make_run: Any) -> None:
    with pytest.raises(RunError, match="weights are trained already; make a new client, and with it a new run"):
        make_run().again()
