"""Runs side by side: the same as each alone, the same data for all, and the cosines of their gradients."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.data.sources import Rows
from mint_lab.data.tasks import TASKS
from mint_lab.errors import ConfigError, LossError, RunError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES
from mint_lab.losses.preference import hinge_loss, sequence_scores, simpo_loss
from mint_lab.recipes import preference
from mint_lab.runs import Comparison, Run, load_run
from mint_lab.runs.comparison import comparison as module
from mint_lab.types import TensorData

from ...waiting import TIMEOUT, Attempt, Gate, join, until
from ..bigram import BigramClient, letter_pairs
from ..conftest import finish, timeless

Make = Callable[..., Comparison]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """``make(losses, **options)``: bigram trainers, 12 steps; stopped when the test ends."""
    made: list[Comparison] = []

    def make_(losses: Any, **options: Any) -> Comparison:
        options = {
            **{"clients": BigramClient, "data": letter_pairs(40), "held_out": letter_pairs(10), "steps": 12},
            **{"batch_size": 4, "learning_rate": 0.05, "eval_every": 5, "folder": tmp_path / f"c{len(made)}"},
        } | options
        made.append(Comparison(losses, **options))
        return made[-1]

    yield make_
    for comparison in made:
        comparison.stop()
        assert comparison.wait(TIMEOUT, check=False)


def double(data: Any, logprobs_list: Any) -> Any:
    loss, metrics = hinge_loss(data, logprobs_list)
    return 2 * loss, metrics


def against(data: Any, logprobs_list: Any) -> Any:
    loss, metrics = hinge_loss(data, logprobs_list)
    return -loss, metrics


# -- what is compared --------------------------------------------------------------------------------------------------


def test_functions_of_one_name_have_different_labels(make: Make) -> None:
    def hinge(data: Any, logprobs_list: Any) -> Any:
        return simpo_loss(data, logprobs_list)

    compared = make({"a": "hinge", "b": hinge, "c": double})
    assert [run.loss.fn for run in compared.runs.values()] == [LOSSES["hinge"].fn, hinge, double]


@pytest.mark.parametrize("name", ["client", "loss", "loss_config", "name"])
def test_argument_of_a_single_run_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' cannot be the same for all runs"):
        make(["hinge", "simpo"], **{name: None})


# -- training ----------------------------------------------------------------------------------------------------------


def test_each_run_gives_the_numbers_of_that_run_alone(make: Make, tmp_path: Path) -> None:
    both = make({"h": "hinge", "s": "simpo", "sharp": ("hinge", {"beta": 2.0})})
    assert both.status == "ready"
    assert both.start().wait(TIMEOUT, check=True)
    assert both.status == "finished"
    for label, loss, config in (("h", "hinge", {}), ("s", "simpo", {}), ("sharp", "hinge", {"beta": 2.0})):
        options: dict[str, Any] = {"batch_size": 4, "learning_rate": 0.05, "eval_every": 5, "steps": 12}
        alone = Run(
            **{"loss": loss, "loss_config": config, "client": BigramClient(), "data": letter_pairs(40)},
            **{"held_out": letter_pairs(10), "folder": tmp_path / f"alone-{label}"},
            **options,
        )
        finish(alone)
        assert [timeless(r) for r in both[label].records] == [timeless(r) for r in alone.records]
        assert both[label].baseline == alone.baseline
    assert both["h"].records[-1].metrics != both["sharp"].records[-1].metrics


def test_data_are_loaded_once_and_batches_are_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    inner = preference.render_pairs

    def counted(given: Rows, *args: Any, **options: Any) -> Any:
        loaded.append(given.source)
        return inner(given, *args, **options)

    monkeypatch.setattr(preference, "render_pairs", counted)
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in letter_pairs(40)]
    both = make(["hinge", "simpo"], data=rows)
    both.start()
    assert both.wait(TIMEOUT, check=True)
    assert [len(source) for source in loaded] == [40, 10], "training data and held-out data, each once for both runs"
    one, other = (run.client.batches for run in both.runs.values())
    assert len(one) == len(other) == 12
    assert all(a is b for mine, theirs in zip(one, other, strict=True) for a, b in zip(mine, theirs, strict=True))


def test_pause_and_resume_change_nothing(make: Make) -> None:
    calm, hasty = make(["hinge", "simpo"]), make(["hinge", "simpo"])
    assert calm.start().wait(TIMEOUT, check=True)
    for _ in range(4):
        hasty.start().pause()
        assert hasty.wait(TIMEOUT, check=True)
        assert hasty.status in ("paused", "finished")
        if hasty.status == "finished":
            break
    else:
        assert hasty.resume().wait(TIMEOUT, check=True)
    for label in ("hinge", "simpo"):
        assert [timeless(r) for r in hasty[label].records] == [timeless(r) for r in calm[label].records]
    with pytest.raises(RunError, match="every run of this comparison has ended"):
        calm.start()
    with pytest.raises(ConfigError, match=r"no run has the label 'hing'.*did you mean 'hinge'"):
        calm["hing"]


def test_failing_loss_pauses_its_run_only(make: Make) -> None:
    calls = iter(range(1000))

    def brittle(data: Any, logprobs_list: Any) -> Any:
        if logprobs_list[0].requires_grad and next(calls) == 3:
            raise ValueError("not today")
        return hinge_loss(data, logprobs_list)

    both = make(["simpo", brittle])
    with pytest.raises(RunError, match="this comparison was never started"):
        both.wait(TIMEOUT)
    assert both.start().wait(TIMEOUT, check=False)
    assert (both["simpo"].status, both["brittle"].status, both.status) == ("finished", "paused", "paused")
    with pytest.raises(RunError, match="brittle: brittle v1, line 3: ValueError: not today"):
        both.wait(TIMEOUT)
    assert both.start().wait(TIMEOUT, check=True)
    assert both.status == "finished"
    assert both["brittle"].steps_done == 12


def test_every_run_has_a_different_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = make({"a b": "hinge", "a/b": "simpo"}, steps=2)
    assert both.start().wait(TIMEOUT, check=True)
    assert sorted(path.name for path in (tmp_path / "c0").iterdir()) == ["a-b", "a-b-2"]
    assert load_run(both["a/b"].folder).records == both["a/b"].records  # type: ignore[arg-type]
    again = make({"a b": "hinge", "a/b": "simpo"}, steps=2, folder=tmp_path / "c0")
    assert again.start().wait(TIMEOUT, check=True)
    assert sorted(path.name for path in (tmp_path / "c0").iterdir()) == ["a-b", "a-b-2", "a-b-3", "a-b-4"]
    monkeypatch.chdir(tmp_path)
    plain = make({"x": "hinge", "y": "simpo"}, steps=2, folder=None)
    assert plain.start().wait(TIMEOUT, check=True)
    assert len({run.folder for run in plain.runs.values()}) == 2
    assert all(run.folder.parent == tmp_path / "runs" for run in plain.runs.values())  # type: ignore[union-attr]


def test_forgotten_comparison_is_collected(make: Make, tmp_path: Path) -> None:
    options: dict[str, Any] = {"clients": BigramClient, "data": letter_pairs(10), "held_out": letter_pairs(4)}
    before = threading.active_count()
    both = Comparison(["hinge", "simpo"], steps=2, batch_size=4, folder=tmp_path / "f", **options)
    assert both.start().wait(TIMEOUT, check=True)
    gone = [weakref.ref(both), *(weakref.ref(run) for run in both.runs.values())]
    del both
    until(lambda: gc.collect() >= 0 and threading.active_count() <= before and not any(ref() for ref in gone))


# -- results -----------------------------------------------------------------------------------------------------------


def test_table_has_a_row_per_run_and_comparable_margins(make: Make) -> None:
    both = make({"h": ("hinge", {"beta": 3.0}), "s": "simpo"}, steps=7, held_out=letter_pairs(8))
    empty = both.table()
    assert list(empty.index) == ["h", "s"]
    assert list(empty.columns) == ["loss", "status", "steps"]
    assert both.start().wait(TIMEOUT, check=True)
    table = both.table()
    assert list(table["steps"]) == [7, 7]
    last = both["h"].records[-1].held_out
    assert table.loc["h", "final/pair_accuracy"] == last["pair_accuracy"]
    assert table.loc["h", "before/pair_accuracy"] == both["s"].baseline["pair_accuracy"]
    # hinge reports beta times the margin; the table has the margin itself.
    assert last["mean_margin"] == pytest.approx(3 * table.loc["h", "final/mean_margin"], rel=1e-5)
    assert table.loc["h", "final/mean_margin"] == last["logps/chosen"] - last["logps/rejected"]
    assert table.loc["h", "before/mean_margin"] == table.loc["s", "before/mean_margin"]
    assert list(table.columns[3:5]) == ["before/pair_accuracy", "final/pair_accuracy"]


def test_figure_draws_every_run_in_a_different_line(make: Make) -> None:
    both = make({"<b>h</b>": "hinge", "s": "simpo"})
    assert both.figure().layout.annotations[0].text == "no steps yet"
    assert both.start().wait(TIMEOUT, check=True)
    figure = both.figure()
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in shown] == ["&lt;b>h&lt;/b>", "s"]
    assert len({(trace.line.color, trace.line.dash) for trace in shown}) == 2
    accuracy = shown[0]
    assert list(accuracy.x) == [0, 5, 10, 12]
    run = both["<b>h</b>"]
    ends = accuracy.y[0], accuracy.y[-1]
    assert ends == (run.baseline["pair_accuracy"], run.records[-1].held_out["pair_accuracy"])
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[0] == "pair_accuracy"
    assert "loss" in titles


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """The bundled model, after six steps with each of four losses."""
    before = dict(LOSSES._entries)
    comparison = Comparison(
        ["hinge", double, against, "simpo"],
        **{"data": arithmetic_pairs(64), "held_out": arithmetic_pairs(16, split="held_out"), "steps": 6},
        **{"batch_size": 8, "eval_every": 3, "folder": tmp_path_factory.mktemp("real"), "seed": 5},
    )
    assert comparison.start().wait(120, check=True)
    yield comparison
    LOSSES._entries.clear()
    LOSSES._entries.update(before)


def test_cosines_of_a_loss_with_its_double_and_its_negative(real: Comparison) -> None:
    for at in (None, "simpo"):
        frame = real.gradient_cosines(at)
        assert list(frame.index) == list(frame.columns) == ["hinge", "double", "against", "simpo"]
        assert frame.loc["hinge", "hinge"] == pytest.approx(1, abs=1e-12)
        assert frame.loc["hinge", "double"] == pytest.approx(1, abs=1e-6)
        assert frame.loc["hinge", "against"] == pytest.approx(-1, abs=1e-6)
        assert -0.999 < frame.loc["hinge", "simpo"] < 0.999
        assert (frame.to_numpy() == frame.to_numpy().T).all()
        norms = frame.attrs["norms"]
        assert norms["double"] == pytest.approx(2 * norms["hinge"], rel=1e-5)
        assert (frame.attrs["at"], frame.attrs["step"], frame.attrs["datums"]) == (at, 0 if at is None else 6, 16)


def test_gradients_are_those_at_the_given_weights(real: Comparison, tmp_path: Path) -> None:
    """Before training: those of a new adapter, on the first batch. Of a run: its current weights."""
    fresh = Run(
        loss="hinge", data=arithmetic_pairs(64), held_out=arithmetic_pairs(16, split="held_out"), seed=5, batch_size=8
    ).prepare()
    assert fresh.trainer is not None
    batch = fresh.trainer.sample(64, LOSSES["hinge"])  # all of them
    order = np.random.default_rng([5, 0]).permutation(64)[:8]
    first = [datum for item in order for datum in batch[2 * item : 2 * item + 2]]
    wanted = fresh.client.weight_gradient(first, hinge_loss).result().to_torch()  # type: ignore[union-attr]
    norms = real.gradient_cosines().attrs["norms"]
    assert norms["hinge"] == pytest.approx(float(wanted.double().norm()), rel=1e-6)
    now = real["simpo"].client.weight_gradient(first, hinge_loss).result().to_torch()  # type: ignore[union-attr]
    assert real.gradient_cosines("simpo").attrs["norms"]["hinge"] == pytest.approx(float(now.double().norm()), rel=1e-6)
    assert abs(float(now.double().norm()) / float(wanted.double().norm()) - 1) > 0.01


def test_runs_that_share_a_model_do_not_affect_each_other(real: Comparison, tmp_path: Path) -> None:
    """Bit for bit, on the bundled model, with the evaluations and gradients of the others in between."""
    options: dict[str, Any] = {"data": arithmetic_pairs(64), "held_out": arithmetic_pairs(16, split="held_out")}
    for loss in ("simpo", double):
        alone = Run(loss=loss, steps=6, batch_size=8, eval_every=3, seed=5, folder=tmp_path / str(loss)[:5], **options)
        alone.start()
        assert alone.wait(TIMEOUT, check=True)
        shared = real[alone.loss.name]
        assert [timeless(r) for r in shared.records] == [timeless(r) for r in alone.records]
        ours, theirs = (list(run.client._adapter.parameters.values()) for run in (alone, shared))  # type: ignore[union-attr]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_measuring_gradients_changes_no_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": arithmetic_pairs(64), "held_out": arithmetic_pairs(16, split="held_out")}
    options |= {"steps": 12, "batch_size": 4, "eval_every": 12}
    watched = Comparison(["hinge", "simpo"], folder=tmp_path / "a", **options).start()
    seen = 0
    while watched.status == "running":
        assert watched.gradient_cosines("hinge").attrs["step"] <= watched["hinge"].steps_done
        seen += 1
    calm = Comparison(["hinge", "simpo"], folder=tmp_path / "b", **options).start()
    assert calm.wait(TIMEOUT, check=True)
    assert seen > 0
    for label in ("hinge", "simpo"):
        assert [timeless(r) for r in watched[label].records] == [timeless(r) for r in calm[label].records]


def test_cosines_on_given_data_and_with_a_reference(real: Comparison, tmp_path: Path) -> None:
    assert real["hinge"].trainer is not None
    data = real["hinge"].trainer.sample(2, LOSSES["hinge"])
    assert real.gradient_cosines(data=data).attrs["datums"] == 4
    both = Comparison(
        {"soft": ("dpo", {"beta": 0.1}), "hard": ("dpo", {"beta": 1.0}), "pp": "pairwise_preference"},
        **{"data": arithmetic_pairs(32), "held_out": arithmetic_pairs(8, split="held_out"), "batch_size": 8},
    )
    # Before training every log-ratio is 0: DPO's gradient is -beta/2 times the margin's, whatever beta is.
    frame = both.gradient_cosines()
    assert frame.loc["soft", "hard"] == pytest.approx(1, abs=1e-5)
    norms = frame.attrs["norms"]
    assert norms["hard"] == pytest.approx(10 * norms["soft"], rel=1e-4)
    assert frame.loc["soft", "pp"] < 0.999


class GradientBigram(BigramClient):
    """A bigram client that also returns gradients of its table."""

    def weight_gradient(self, data: Any, loss_fn: Any, loss_fn_config: Any = None) -> Any:
        loss, _ = loss_fn(data, self._logprobs(data))
        future: Future[Any] = Future()
        future.set_result(TensorData.from_torch(torch.autograd.grad(loss, self.table)[0].flatten()))
        return future


def test_gradients_are_those_of_edited_runs(make: Make) -> None:
    """Losses, settings and the batch size of the run whose weights are used, as they are now."""
    both = make({"a": "hinge", "b": "pairwise_preference"}, clients=GradientBigram, steps=4)
    for run in both.runs.values():
        assert run.step(2).wait(TIMEOUT)
    both["a"].set(beta=0.5, batch_size=6)
    both["b"].set_loss("simpo", gamma=0.25)
    found = both.measure_cosines("a")
    order = np.random.default_rng([0, 0]).permutation(40)[:6]
    data = both["a"].trainer.job.data  # type: ignore[union-attr]
    batch = [datum for item in order for datum in data[2 * item : 2 * item + 2]]
    client: Any = both["a"].client
    by_hand = []
    for fn, config in ((hinge_loss, {"beta": 0.5}), (simpo_loss, {"beta": 2.0, "gamma": 0.25})):
        (gradient,) = torch.autograd.grad(fn(batch, client._logprobs(batch), **config)[0], client.table)
        by_hand.append(gradient.flatten().double())
    assert (found.at, found.step, found.datums, found.labels) == ("a", 2, 12, ["a", "b"])
    assert found.norms == pytest.approx([float(g.norm()) for g in by_hand], rel=1e-6)
    cosine = float(by_hand[0] @ by_hand[1] / (by_hand[0].norm() * by_hand[1].norm()))
    assert found.values[0][1] == pytest.approx(cosine, rel=1e-6)


@pytest.mark.parametrize("halt", ["pause", "stop"])
def test_gradients_are_cancelled_by_a_later_halt_only(make: Make, monkeypatch: pytest.MonkeyPatch, halt: str) -> None:
    both = make(["hinge", "simpo"], clients=GradientBigram)
    answers: list[bool] = []

    def watched(client: Any, objectives: Any, cancel_requested: Callable[[], bool]) -> dict[str, Any]:
        answers.append(cancel_requested())
        getattr(both, halt)()
        answers.append(cancel_requested())
        return {label: np.ones(2, np.float32) for label in objectives}

    monkeypatch.setattr("mint_lab.runs.comparison.comparison.measure", watched)
    getattr(both, halt)()
    both.gradient_cosines()
    assert answers == [False, True]


def test_client_without_gradients_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="BigramClient returns no gradients of its weights"):
        make(["hinge", "simpo"]).gradient_cosines()


def test_loss_that_fails_on_the_batch_does_not_disturb_the_runs(tmp_path: Path) -> None:
    def broken(data: Any, logprobs_list: Any) -> Any:
        chosen, rejected, _ = sequence_scores(data, logprobs_list)
        return (chosen - rejected).sum() / 0, {}

    options: dict[str, Any] = {"data": arithmetic_pairs(32), "held_out": arithmetic_pairs(8, split="held_out")}
    both = Comparison(["hinge", broken], steps=2, batch_size=4, folder=tmp_path, **options)
    with pytest.raises(LossError, match="the loss is"):
        both.gradient_cosines()
    assert both.start().wait(TIMEOUT, check=False)
    assert both["hinge"].status == "finished"
    assert json.loads((tmp_path / "hinge" / "run.json").read_text())["status"] == "finished"


def test_reinforcement_learning_needs_a_rollout_first(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "rl", "steps": 1, "batch_size": 4, "group_size": 4, "learning_rate": 0.0}
    options["held_out"] = TASKS["arithmetic"].problems(4, split="held_out")  # 200 by default, sampled for each loss
    both = Comparison(["ppo", "cispo", "dro"], folder=tmp_path, **options)
    with pytest.raises(ConfigError, match="before training there is no rollout"):
        both.gradient_cosines()
    with pytest.raises(RunError, match="no rollout has been sampled yet"):
        both.gradient_cosines("ppo")
    assert both.start().wait(240, check=True)
    frame = both.gradient_cosines("ppo")
    assert frame.attrs["datums"] == 16
    # At a ratio of 1 nothing is clipped, and all three are A times the gradient of the log-probability.
    assert frame.to_numpy() == pytest.approx(np.ones((3, 3)), abs=1e-3)


# -- from several threads ----------------------------------------------------------------------------------------------


def test_first_measurements_from_two_threads_make_one_client(make: Make) -> None:
    gate, made = Gate(holds=1), []

    def connect() -> BigramClient:
        made.append(BigramClient())
        if armed:
            gate()
        return made[-1]

    armed = False
    both = make(["hinge", "simpo"], clients=connect)
    armed, before = True, len(made)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(both._untrained_client()))
    first.start()
    gate.wait()
    attempt = Attempt(both._untrained_client, module, "ONE_AT_A_TIME")
    assert attempt.waits
    gate.open()
    join(first)
    assert attempt.result() is found[0]
    assert len(made) == before + 1


@pytest.mark.parametrize("control", ["pause", "stop"])
def test_pause_and_stop_cancel_the_measurement_in_progress_only(
    make: Make, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    both = make(["hinge", "simpo"])
    asked: list[bool] = []

    def measure(client: Any, objectives: Any, cancel_requested: Callable[[], bool]) -> Any:
        asked.append(cancel_requested())
        getattr(both, control)()
        asked.append(cancel_requested())
        raise LossError("the loss had not returned")

    monkeypatch.setattr(module, "measure", measure)
    for _ in range(2):
        with pytest.raises(LossError, match="had not returned"):
            both.measure_cosines()
    assert asked == [False, True, False, True]


def test_every_run_and_the_untrained_client_have_the_same_adapter(make: Make) -> None:
    lora = LoraOptions(3, alpha=6, mlp=False)
    both = make(["hinge", "simpo"], clients=None, lora=lora)
    assert [run.lora for run in both.runs.values()] == [lora, lora]
    assert both._untrained_client().lora == lora
    with pytest.raises(ConfigError, match="rank is 8, but lora has rank 3"):
        make(["hinge", "simpo"], clients=None, lora=lora, rank=8)
