"""An edit reaches the computation: a run that is edited after step 2 equals a loop by hand that uses it from step 3 on.

The loop is :func:`tests.runs.by_hand.train`. Records and weights must agree to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.client import connect
from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import hinge_loss, pairwise_preference_loss, simpo_loss
from mint_lab.runs import Run
from mint_lab.types import TensorData
from mint_lab.ui.parts import LossPicker
from mint_lab.ui.workbench import Workbench
from tests.ui.pages import Comm, comms

from ..waiting import TIMEOUT, Gate
from .bigram import BigramClient, letter_pairs
from .by_hand import HandRecord, HandStep, train
from .cells import cell
from .conftest import timeless

__all__ = ["comms"]

EDITED_AFTER, STEPS = 2, 5


def scaled(data: Any, logprobs_list: Any, beta: float = 1.0, factor: float = 1.0) -> Any:
    """A custom loss with two settings that act differently."""
    loss, metrics = pairwise_preference_loss(data, logprobs_list, beta)
    return factor * loss, metrics


CELL = """\
def mine(data, logprobs_list, beta=1.0, factor=1.0):
    loss, metrics = pairwise_preference_loss(data, logprobs_list, beta)
    return factor * loss, metrics
"""


def as_decorated() -> str:
    register(name="mine", unit="pair")(scaled)
    return "mine"


def as_cell() -> str:
    cell(CELL)
    return "mine"


def as_function() -> Any:
    return scaled


@dataclass(frozen=True)
class Case:
    """An edit and what it means.

    Attributes:
        edit: Settings by name, or the name of a loss.
        before, after: What the steps before and after the edit use.
        labels: Labels of the marks that it leaves.
        loss: Returns the loss that the run begins with; None for the default.
        rates: Learning rates of the steps after the edit, if they are not all the same.
    """

    edit: dict[str, float] | str
    before: HandStep
    after: HandStep
    labels: list[str]
    loss: Callable[[], Any] | None = None
    rates: list[float] = field(default_factory=list)


PLAIN = HandStep(config={"beta": 1.0})
CUSTOM = HandStep(scaled, {"beta": 1.0, "factor": 1.0})
CASES = {
    "learning rate": Case({"learning_rate": 0.2}, PLAIN, replace(PLAIN, learning_rate=0.2), ["learning_rate 0.2"]),
    # By hand: the rate of step n is 0.05 n / 6.
    "warm-up": Case({"warmup_steps": 6}, PLAIN, PLAIN, ["warmup_steps 6"], rates=[0.05 * n / 6 for n in (3, 4, 5)]),
    "clip": Case({"grad_clip_norm": 0.01}, PLAIN, replace(PLAIN, grad_clip_norm=0.01), ["grad_clip_norm 0.01"]),
    "larger batch": Case({"batch_size": 7}, PLAIN, replace(PLAIN, batch_size=7), ["batch_size 7"]),
    "smaller batch": Case({"batch_size": 1}, PLAIN, replace(PLAIN, batch_size=1), ["batch_size 1"]),
    "setting of a bundled loss": Case({"beta": 0.25}, PLAIN, replace(PLAIN, config={"beta": 0.25}), ["beta 0.25"]),
    "bundled loss": Case("hinge", PLAIN, HandStep(hinge_loss, {"beta": 1.0}), ["hinge v1"]),
    "bundled loss with defaults of its own": Case(
        "simpo", PLAIN, HandStep(simpo_loss, {"beta": 2.0, "gamma": 1.0}), ["simpo v1"]
    ),
    "several settings": Case(
        {"gamma": 0.5, "beta": 3.0, "learning_rate": 0.1},
        HandStep(simpo_loss, {"beta": 2.0, "gamma": 1.0}),
        HandStep(simpo_loss, {"beta": 3.0, "gamma": 0.5}, learning_rate=0.1),
        ["learning_rate 0.1", "beta 3", "gamma 0.5"],
        lambda: "simpo",
    ),
}
for _kind, _make in (("decorated", as_decorated), ("cell", as_cell), ("plain", as_function)):
    for _name in ("beta", "factor"):
        _after = replace(CUSTOM, config={**CUSTOM.config, _name: 0.25})
        CASES[f"{_name} of a {_kind} loss"] = Case({_name: 0.25}, CUSTOM, _after, [f"{_name} 0.25"], _make)


class InPython:
    """Edits a run as a script does."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def edit(self, edit: dict[str, float] | str) -> None:
        _ = self.run.set_loss(edit) if isinstance(edit, str) else self.run.set(**edit)


class OnPage:
    """Edits a run as a page does: one message per slider."""

    def __init__(self, run: Run, comm: Comm) -> None:
        self.run, self.comm = run, comm

    def edit(self, edit: dict[str, float] | str) -> None:
        if isinstance(edit, str):
            self._ask(type="set_loss", name=edit)
        for name, value in {} if isinstance(edit, str) else edit.items():
            self._ask(type="set", name=name, value=value)

    def _ask(self, **request: Any) -> None:
        assert self.comm.ask(request=7, **request)[-1] == {"type": "reply", "request": 7, "error": ""}


def edited(kind: str, when: str, make_run: Any, comms: list[Comm], case: Case, **options: Any) -> Run:
    """Return a finished run that was edited after step 2: while it was paused, or inside step 2."""
    gate = Gate() if when == "running" else None
    given = {"client": BigramClient(gate=gate), "steps": STEPS, "eval_every": 1, "held_out": letter_pairs(13)}
    run = make_run(loss=None if case.loss is None else case.loss(), **given, **options)
    editor: Any = InPython(run)
    if kind != "python":
        widget = {"workbench": lambda: Workbench(steps=3), "picker": lambda: LossPicker(run)}[kind]()
        widget.show(run)
        editor = OnPage(run, comms[-1])
    if gate is None:
        assert run.step(EDITED_AFTER).wait(TIMEOUT)
        editor.edit(case.edit)
        run.start()
    else:
        run.start()
        for _ in range(EDITED_AFTER - 1):
            gate.wait()
            gate.open()
        gate.wait()
        editor.edit(case.edit)
        gate.open(STEPS)
    assert run.wait(TIMEOUT)
    if kind != "python":
        widget.close()
    return run


def by_hand(case: Case, run: Run) -> tuple[BigramClient, list[HandStep], list[HandRecord]]:
    client = BigramClient()
    after = [replace(case.after, learning_rate=rate) for rate in case.rates]
    steps = [case.before] * EDITED_AFTER + (after or [case.after] * (STEPS - EDITED_AFTER))
    assert run.trainer is not None
    job: Any = run.trainer.job
    return client, steps, train(client, job.data, steps, unit=2, held_out=job.held_out)


ON_PAGE = ["learning rate", "warm-up", "larger batch", "bundled loss", "several settings", "factor of a cell loss"]


@pytest.mark.parametrize(
    ("name", "kind", "when"),
    [
        *((name, "python", when) for name in CASES for when in ("paused", "running")),
        *((name, kind, when) for name in ON_PAGE for kind, when in (("workbench", "running"), ("picker", "paused"))),
    ],
)
def test_edited_run_equals_the_loop_by_hand(make_run: Any, comms: list[Comm], name: str, kind: str, when: str) -> None:
    case = CASES[name]
    run = edited(kind, when, make_run, comms, case)
    client, steps, expected = by_hand(case, run)
    assert [r.metrics["loss"] for r in run.records] == [r.loss for r in expected]
    assert [r.metrics["grad_norm"] for r in run.records] == [r.grad_norm for r in expected]
    assert [r.held_out["loss"] for r in run.records] == pytest.approx([r.held_out for r in expected], rel=1e-12)
    assert torch.equal(run.client.table, client.table)
    assert [(edit.step, edit.kind, edit.label) for edit in run.edits] == [
        (EDITED_AFTER + 1, "loss" if isinstance(case.edit, str) else "setting", label) for label in case.labels
    ]
    for record, step in zip(run.records, steps, strict=True):
        assert record.settings.items() >= step.config.items()
        assert record.settings["batch_size"] == step.batch_size
        assert record.settings["grad_clip_norm"] == step.grad_clip_norm


def halved(data: Any, logprobs_list: Any, beta: float = 1.0, factor: float = 0.5) -> Any:
    """The second version of :func:`scaled`: the same settings, another formula and another default."""
    loss, metrics = hinge_loss(data, logprobs_list, beta)
    return factor * loss, metrics


HALVED = CELL.replace("factor=1.0", "factor=0.5").replace(
    "    loss,", "    from mint_lab.losses.preference import hinge_loss\n    loss,", 1
)
HALVED = HALVED.replace("pairwise_preference_loss(", "hinge_loss(")


@pytest.mark.parametrize("when", ["paused", "running"])
@pytest.mark.parametrize("kind", ["decorated", "cell"])
def test_registered_version_equals_the_loop_by_hand(make_run: Any, kind: str, when: str) -> None:
    """The new version keeps the chosen ``beta``, and brings its own default of ``factor``."""
    gate = Gate() if when == "running" else None
    loss = as_decorated() if kind == "decorated" else as_cell()
    run = make_run(loss=loss, loss_config={"beta": 0.5}, client=BigramClient(gate=gate), steps=STEPS)
    if gate is None:
        assert run.step(EDITED_AFTER).wait(TIMEOUT)
    else:
        run.start()
        gate.wait()
        gate.open()
        gate.wait()
    if kind == "decorated":
        register(name="mine", unit="pair")(halved)
    else:
        cell(HALVED)
    if gate is None:
        run.start()
    else:
        gate.open(STEPS)
    assert run.wait(TIMEOUT)
    first, second = (HandStep(fn, {"beta": 0.5, "factor": f}) for fn, f in ((scaled, 1.0), (halved, 0.5)))
    client = BigramClient()
    records = train(client, run.trainer.job.data, [first] * 2 + [second] * 3, unit=2)
    assert [r.metrics["loss"] for r in run.records] == [r.loss for r in records]
    assert torch.equal(run.client.table, client.table)
    assert [(e.step, e.kind, e.label) for e in run.edits] == [(3, "loss", "mine v2"), (3, "setting", "factor 0.5")]
    assert [r.loss_version for r in run.records] == [1, 1, 2, 2, 2]
    assert [(x.step, x.version, x.config) for x in run.losses] == [(1, 1, first.config), (3, 2, second.config)]
    assert ["hinge_loss" in x.source for x in run.losses] == [False, True]


def test_function_with_settings_equals_the_loop_by_hand(make_run: Any) -> None:
    run = make_run(steps=4)
    assert run.step(2).wait(TIMEOUT)
    assert run.set_loss(scaled, factor=0.5).step().wait(TIMEOUT)
    assert run.set(beta=2.0).start().wait(TIMEOUT)
    steps = [PLAIN, PLAIN, *(HandStep(scaled, {"beta": beta, "factor": 0.5}) for beta in (1.0, 2.0))]
    client = BigramClient()
    train(client, run.trainer.job.data, steps, unit=2)
    assert torch.equal(run.client.table, client.table)
    assert [(e.step, e.kind, e.label) for e in run.edits] == [(3, "loss", "scaled v1"), (4, "setting", "beta 2")]


# -- every setting of every loss ---------------------------------------------------------------------------------------

PAIR_PARAMS = [(spec.name, p.name) for spec in LOSSES.values() if spec.unit == "pair" for p in spec.params]


@pytest.mark.parametrize(("loss", "name"), PAIR_PARAMS)
def test_every_setting_of_a_pair_loss_reaches_the_step(make_run: Any, loss: str, name: str) -> None:
    spec = LOSSES[loss]
    run = make_run(loss=loss, steps=4).prepare()
    job: Any = run.trainer.job
    for k, datum in enumerate([*job.data, *job.held_out]):
        weights = datum.loss_fn_inputs["weights"].to_torch()
        datum.loss_fn_inputs["reference_logprobs"] = TensorData.from_torch(-weights * (3 + k % 3))
    assert run.step(2).wait(TIMEOUT)
    value = spec.config()[name] / 2 or 0.25
    assert run.set(**{name: value}).start().wait(TIMEOUT)
    tables = []
    for after in ({**spec.config(), name: value}, spec.config()):
        client = BigramClient()
        train(client, job.data, [HandStep(spec.fn, config) for config in [spec.config()] * 2 + [after] * 2], unit=2)
        tables.append(client.table)
    assert torch.equal(run.client.table, tables[0])
    assert not torch.equal(*tables), "the setting matters here"
    assert [(edit.step, edit.label) for edit in run.edits] == [(3, f"{name} {value:g}")]


def likelihood(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
    return -scale * sum(row.sum() for row in logprobs_list), {}


@pytest.mark.parametrize("loss", ["cross_entropy", "likelihood"])
def test_edits_reach_the_steps_of_sft(make_run: Any, loss: str) -> None:
    """Edits of a built-in loss after step 1; then the loss is edited, and registered again."""
    register(name="likelihood", unit="datum")(likelihood)
    run = make_run("sft", loss, steps=5)
    assert run.step().wait(TIMEOUT)
    assert run.set(batch_size=3, learning_rate=0.2, grad_clip_norm=0.5).step().wait(TIMEOUT)
    assert run.set_loss("likelihood", scale=2.0).step().wait(TIMEOUT)
    assert run.set(scale=0.5).step().wait(TIMEOUT)
    register(name="likelihood", unit="datum")(lambda data, lps, scale=1.0: likelihood(data, lps, 3 * scale))
    assert run.start().wait(TIMEOUT)
    first = HandStep(loss) if loss == "cross_entropy" else HandStep(likelihood, {"scale": 1.0})
    second = replace(first, batch_size=3, learning_rate=0.2, grad_clip_norm=0.5)
    steps = [
        *(first, second),
        *(replace(second, loss=likelihood, config={"scale": scale}) for scale in (2.0, 0.5, 1.5)),
    ]
    client = BigramClient()
    records = train(client, run.trainer.job.data, steps, unit=1)
    assert [r.metrics["loss"] for r in run.records] == [r.loss for r in records]
    assert torch.equal(run.client.table, client.table)


# -- a run that begins there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learning rate", "clip", "larger batch", "bundled loss", "factor of a plain loss"])
def test_records_equal_those_of_a_run_that_begins_there(make_run: Any, name: str) -> None:
    """The second run gets weights, optimizer, place in the data and baseline of the first, and the edit at once."""
    case = CASES[name]
    loss = None if case.loss is None else case.loss()
    run = make_run(loss=loss, steps=STEPS, eval_every=2)
    assert run.step(EDITED_AFTER).wait(TIMEOUT)
    client = BigramClient()
    client.table.data.copy_(run.client.table.data)
    client.optimizer.load_state_dict(copy.deepcopy(run.client.optimizer.state_dict()))
    after = case.after
    other = make_run(
        loss=case.edit if isinstance(case.edit, str) else loss,
        loss_config=dict(after.config),
        client=client,
        steps=STEPS - EDITED_AFTER,
        eval_every=2,
        batch_size=after.batch_size,
        learning_rate=after.learning_rate,
        grad_clip_norm=after.grad_clip_norm,
    ).prepare()
    other.trainer._position = EDITED_AFTER * 4
    other.trainer.baseline, other.trainer._before = run.baseline, run.trainer._before
    InPython(run).edit(case.edit)
    for each in (run, other):
        assert each.start().wait(TIMEOUT)
    # The other run is shorter by the steps before the edit.
    shifted = [
        replace(timeless(r), step=r.step + EDITED_AFTER, steps_total=r.steps_total + EDITED_AFTER)
        for r in other.records
    ]
    found = list(map(timeless, run.records[EDITED_AFTER:]))
    # The first record of a run has its notes; advice compares with steps that the second run does not have.
    assert [replace(r, warnings=[]) for r in found] == [replace(r, warnings=[]) for r in shifted]
    assert [bool(r.held_out) for r in found] == [False, True, True]
    assert torch.equal(run.client.table, other.client.table)


def test_tokens_of_a_paused_run_use_the_edited_settings(make_run: Any) -> None:
    """By hand: dLoss/dlogprob of every weighted token of one pair is -+ beta (1 - sigmoid(beta m)) / pairs."""
    run = make_run(steps=4)
    assert run.step(2).wait(TIMEOUT)
    shown = run.set(beta=0.5).held_out_tokens().result(TIMEOUT)
    scores = [
        lp[datum.loss_fn_inputs["weights"].to_torch() > 0].sum()
        for datum, lp in zip(shown.data, shown.logprobs, strict=True)
    ]
    slope = 0.5 * torch.sigmoid(-0.5 * (scores[0] - scores[1])) / (len(scores) // 2)
    assert (shown.step, shown.loss) == (2, "pairwise_preference v1")
    assert shown.gradients is not None
    for side, sign in ((0, -1), (1, 1)):
        weights = shown.data[side].loss_fn_inputs["weights"].to_torch()
        assert torch.allclose(shown.gradients[side], sign * slope * weights, atol=1e-6)


# -- the local client -------------------------------------------------------------------------------------------------


def test_edits_reach_the_bundled_model(tmp_path: Path) -> None:
    """Every kind of edit, one after each step."""
    options = {"data": arithmetic_pairs(40), "held_out": arithmetic_pairs(8, split="held_out")}
    run = Run(batch_size=4, learning_rate=1e-3, steps=8, eval_every=100, folder=tmp_path / "run", **options)
    first = HandStep(pairwise_preference_loss, {"beta": 1.0}, learning_rate=1e-3)
    last = HandStep(halved, {"beta": 0.5, "factor": 2.0}, 2e-3, 6, 0.1)
    as_decorated()
    edits: list[tuple[Callable[[], Any], HandStep]] = [
        (lambda: run.set(beta=0.5), replace(first, config={"beta": 0.5})),
        (lambda: run.set(learning_rate=2e-3, batch_size=6), replace(first, config={"beta": 0.5}, learning_rate=2e-3)),
        (lambda: run.set_loss("mine", beta=0.5), replace(last, loss=scaled, config={"beta": 0.5, "factor": 1.0})),
        (lambda: run.set(factor=2.0), replace(last, loss=scaled)),
        (lambda: run.set(grad_clip_norm=0.1), replace(last, loss=scaled)),
        (lambda: register(name="mine", unit="pair")(halved), last),
        (lambda: run.set(batch_size=2, warmup_steps=16), replace(last, batch_size=2, learning_rate=2e-3 * 8 / 16)),
    ]
    assert run.step().wait(TIMEOUT)
    for edit, _ in edits:
        edit()
        assert run.step().wait(TIMEOUT)
    clips = [0.0] * 5 + [0.1] * 3
    sizes = [4, 4, 6, 6, 6, 6, 6, 2]
    steps = [
        replace(step, grad_clip_norm=clip, batch_size=size)
        for step, clip, size in zip([first, *(step for _, step in edits)], clips, sizes, strict=True)
    ]
    client: Any = connect().create_lora_training_client(base_model="mint-tiny", rank=16, seed=0)
    records = train(client, run.trainer.job.data, steps, unit=2)
    assert [r.metrics["loss"] for r in run.records] == [r.loss for r in records]
    assert [r.metrics["grad_norm"] for r in run.records] == [r.grad_norm for r in records]
    own, expected = (each._adapter.copy() for each in (run.client, client))
    assert all(torch.equal(own[name], expected[name]) for name in expected)
    assert [(e.step, e.label) for e in run.edits] == [
        *((2, "beta 0.5"), (3, "learning_rate 0.002"), (3, "batch_size 6"), (4, "mine v1"), (5, "factor 2")),
        *((6, "grad_clip_norm 0.1"), (7, "mine v2"), (8, "warmup_steps 16"), (8, "batch_size 2")),
    ]
