"""Sequences of start, step, edit, failure, retry, pause and stop: the run agrees with the model after each of them.

The worker is held inside every gradient call until the machine lets it go on, so nothing waits for time to pass.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.errors import ConfigError, ModelError, RunError
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import hinge_loss, pairwise_preference_loss, simpo_loss
from mint_lab.runs import Run, load_run

from ..waiting import TIMEOUT
from .bigram import BigramClient, letter_pairs
from .loop_model import Model, ModelPlan

WAIT = TIMEOUT
DEFAULTS: dict[str, tuple[Any, dict[str, float]]] = {
    "pairwise_preference": (pairwise_preference_loss, {"beta": 1.0}),
    "hinge": (hinge_loss, {"beta": 1.0}),
    "simpo": (simpo_loss, {"beta": 2.0, "gamma": 1.0}),
}


def make_good() -> Any:
    """A new version of the loss ``mine``, which reports a metric of the trainer."""

    def mine(data: Any, logprobs_list: Any, factor: float = 1.0) -> Any:
        loss, _ = pairwise_preference_loss(data, logprobs_list)
        return factor * loss, {"grad_norm": 0.0}

    return mine


def broken(data: Any, logprobs_list: Any, factor: float = 1.0) -> Any:
    raise ValueError("a planted bug")


class Gate:
    """Holds the worker inside a gradient call; tells who waits on ``changed`` of its arrival."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_waiting = self.is_open = self.stays_open = False

    def __call__(self) -> None:
        with self.changed:
            self.is_waiting = True
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.is_open or self.stays_open, WAIT)
            self.is_open = False

    def open(self, *, for_good: bool = False) -> None:
        with self.changed:
            self.is_waiting, self.is_open, self.stays_open = False, True, for_good
            self.changed.notify_all()


class Client(BigramClient):
    """Fails once at the request ``armed``; every gradient call takes a second of the patched clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(gate=self._hold)
        self.clock, self.held, self.armed = clock, Gate(), ""

    def _hold(self) -> None:
        self.held()
        self.clock.now += 1

    def _disarm(self) -> str:
        armed, self.armed = self.armed, ""
        return f"planted failure of {armed}"

    def optim_step(self, adam_params: Any) -> Any:
        if self.armed == "optim_step":
            raise ConnectionError(self._disarm())
        if self.armed == "dropped gradient":
            self.gradient = None
            raise ModelError(self._disarm())
        return super().optim_step(adam_params)

    def forward(self, *args: Any, **options: Any) -> Any:
        if self.armed == "forward":
            raise ConnectionError(self._disarm())
        return super().forward(*args, **options)


class Clock:
    """Stands for the module ``time`` of the loop and the trainer."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Sequences:
    """A run on the bigram client, and the model of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.patches = [
            mock.patch(f"mint_lab.{module}.time", SimpleNamespace(perf_counter=self.clock.perf_counter, monotonic=None))
            for module in ("runs.loop", "recipes.guarded_trainer")
        ]
        for patch in self.patches:
            patch.start()
        self.register_version(make_good())
        self.client = Client(self.clock)
        options: dict[str, Any] = {"data": letter_pairs(11), "held_out": letter_pairs(4), "folder": self.folder / "run"}
        self.run_ = Run(client=self.client, steps=5, batch_size=4, learning_rate=0.05, eval_every=2, **options)
        self.run_.prepare()
        self.run_._loop._advice = SimpleNamespace(window=1, update=lambda records: [])  # type: ignore[assignment]
        self.changed = self.client.held.changed = self.run_._loop._changed
        own = {"learning_rate": 0.05, "warmup_steps": 0, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95}
        own |= {"adam_eps": 1e-12, "grad_clip_norm": 0.0, "batch_size": 4, "accumulate": 1}
        fn, config = DEFAULTS["pairwise_preference"]
        plan = ModelPlan("pairwise_preference", 1, fn, config, own, 5)
        self.model = Model(self.run_.trainer.job.data, plan, eval_every=2)  # type: ignore[union-attr]
        self.calls: list[tuple[Any, int]] = []
        self.was_started = False

    def register_version(self, fn: Any, **options: Any) -> None:
        register(name="mine", unit="pair", **options)(fn)
        self.is_fit = not options
        self.mine = (LOSSES["mine"].version, None if fn is broken else fn)

    def settle(self) -> None:
        """Wait until the worker is inside a gradient call or the run has left "running"."""
        with self.changed:
            is_settled = self.changed.wait_for(
                lambda: self.client.held.is_waiting or self.run_.status != "running", WAIT
            )
        assert is_settled

    # -- what a person does --------------------------------------------------------------------------------------------

    def start(self, max_steps: int | None) -> None:
        if self.model.status in ("stopped", "finished"):
            with pytest.raises(RunError, match=f"this run is {self.model.status}"):
                self.run_.start()
            return
        _ = self.run_.start() if max_steps is None else self.run_.step(max_steps)
        self.was_started = True
        self.model.start(max_steps)
        self.settle()

    def pause(self) -> None:
        self.run_.pause()
        self.model.pause()

    def stop(self) -> None:
        self.run_.stop()
        self.model.stop()

    def go_on(self) -> None:
        """Let the gradient call in progress go on; start or resume the run if there is none."""
        if not self.model.at_gate:
            self.start(None)
            return
        self.client.held.open()
        self.model.open_gate()
        self.settle()

    def set_own(self, name: str, value: float) -> None:
        self.run_.set(**{name: value})
        self.model.plan = _replaced(self.model.plan, own={name: value})

    def set_config(self, name: str, value: float) -> None:
        if name in self.model.plan.config:
            self.run_.set(**{name: value})
            self.model.plan = _replaced(self.model.plan, config={name: value})
        else:
            with pytest.raises(ConfigError, match=f"unknown setting '{name}'"):
                self.run_.set(**{name: value})

    def set_steps(self, steps: int) -> None:
        if self.model.allows(steps):
            self.run_.set(steps=steps)
            self.model.set_steps(steps)
        else:
            with pytest.raises(ConfigError, match=f"steps={steps}, but"):
                self.run_.set(steps=steps)

    def set_loss(self, name: str) -> None:
        if name == "mine" and not self.is_fit:
            with pytest.raises(ConfigError, match="needs advantages"):
                self.run_.set_loss(name)
            return
        version, (fn, config) = (
            (1, DEFAULTS[name]) if name != "mine" else (self.mine[0], (self.mine[1], {"factor": 1.0}))
        )
        before = self.model.plan
        kept = before.config if before.name == name else config
        self.run_.set_loss(name)
        self.model.plan = ModelPlan(name, version, fn, kept, before.own, before.steps)

    def register(self, is_broken: bool) -> None:
        self.register_version(broken if is_broken else make_good())
        was_running = self.model.status == "running"
        self.model.register(ModelPlan("mine", *self.mine, {}, {}, 0))
        if not was_running:
            self.settle()

    def register_unfit(self) -> None:
        """The run keeps its version, and says so."""
        self.register_version(make_good(), inputs=("advantages",))
        if self.model.plan.name == "mine":
            text = f"mine v{self.mine[0]} needs advantages, which this data does not have"
            self.model.notes.append(f"{text}; this run keeps {self.model.plan.label}")

    def arm(self, request: str) -> None:
        """The next request of that kind fails; before the first start, that would be one of the baseline."""
        if not self.was_started:
            return
        self.client.armed = self.model.armed = request

    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.model.seconds += seconds if self.model.status == "running" else 0.0

    def call(self) -> None:
        future = self.run_.call(lambda: len(self.run_.records))
        if self.model.status == "running":
            self.calls.append((future, len(self.model.records)))
        else:
            assert future.result(WAIT) == len(self.model.records)

    # -- what must hold after each of them -----------------------------------------------------------------------------

    def agrees(self) -> None:
        run, model, client = self.run_, self.model, self.client
        assert (run.status, client.held.is_waiting) == (model.status, model.at_gate)
        assert run.seconds == model.seconds
        if self.was_started:
            assert run.trainer is not None
            assert run.trainer.cancel_requested() == model.cancels
        assert (run.settings, run.loss.label, run.steps_total) == (
            model.plan.settings,
            model.plan.label,
            model.plan.steps,
        )
        if model.error is None:
            assert run.error is None
        else:
            assert run.error is not None
            assert model.error in run.error.message
            assert (run.error.loss, run.error.reward) == (model.error_loss, None)
        assert run.notes == model.notes
        assert [(e.step, e.kind, e.label) for e in run.edits] == model.edits
        assert [(x.step, f"{x.name} v{x.version}", x.config) for x in run.losses] == model.losses
        assert [_seen(record) for record in run.records] == [_expected(record) for record in model.records]
        assert [list(map(id, batch)) for batch in client.batches] == [list(map(id, batch)) for batch in model.batches]
        assert torch.equal(client.table, model.client.table)
        assert (client.gradient is not None) == (model.phase == "gradient")
        self.check_calls()
        self.check_files()

    def check_calls(self) -> None:
        """A call waits for the end of the step in progress, whatever becomes of it."""
        waiting = (
            self.calls if self.model.status != "running" else [c for c in self.calls if c[1] < len(self.model.records)]
        )
        for future, steps in waiting:
            assert future.result(WAIT) >= steps
        self.calls = [each for each in self.calls if each not in waiting]
        assert not any(future.done() for future, _ in self.calls)

    def check_files(self) -> None:
        records = self.folder / "run" / "records.jsonl"
        lines = records.read_bytes().splitlines() if records.exists() else []
        assert [json.loads(line)["step"] for line in lines] == [record.step for record in self.run_.records]
        info = self.folder / "run" / "run.json"
        if self.model.status != "running" and info.exists():
            found = json.loads(info.read_text())
            is_edited = self.model.status == "paused" and found["status"] == "finished"  # more steps, not started yet
            assert found["status"] == self.model.status or is_edited

    def end(self) -> None:
        """Stop the run; what is in its folder is what it says."""
        self.stop()
        while self.model.at_gate:
            self.go_on()
        self.agrees()
        if (self.folder / "run").exists():
            saved = load_run(self.folder / "run")
            assert (saved.records, saved.edits, saved.notes) == (self.run_.records, self.run_.edits, [])
            assert saved.losses == self.run_.losses

    def clean_up(self) -> None:
        self.run_.stop()
        self.client.held.open(for_good=True)
        with self.changed:
            assert self.changed.wait_for(lambda: self.run_.status != "running", WAIT)
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.folder)


def _replaced(plan: ModelPlan, **changes: dict[str, float]) -> ModelPlan:
    fields = {name: {**getattr(plan, name), **change} for name, change in changes.items()}
    return ModelPlan(**{**vars(plan), **fields})


def _seen(record: Any) -> Any:
    label = f"{record.loss_name} v{record.loss_version}"
    return record.step, label, record.settings, bool(record.held_out), record.warnings, record.time


def _expected(record: Any) -> Any:
    return record.step, record.label, record.settings, record.is_evaluated, record.warnings, record.seconds


Action = tuple[str, tuple[Any, ...]]
ACTIONS: list[list[Action]] = [
    [("go_on", ())],
    [("go_on", ())],
    [
        *(("set_own", ("learning_rate", value)) for value in (0.05, 0.2)),
        *(("set_own", ("warmup_steps", value)) for value in (0, 4)),
        *(("set_own", ("grad_clip_norm", value)) for value in (0.0, 0.1)),
        *(("set_own", ("weight_decay", value)) for value in (0.0, 0.1)),
        *(("set_own", ("accumulate", value)) for value in (1, 2)),
        *(("set_own", ("batch_size", value)) for value in (2, 3, 4)),
        *(("set_config", (name, value)) for name in ("beta", "gamma", "factor") for value in (0.5, 1.0, 2.0)),
    ],
    [*(("set_loss", (name,)) for name in (*DEFAULTS, "mine", "mine", "mine")), ("register_unfit", ())],
    [("register", (True,)), ("register", (False,))],
    [("arm", (request,)) for request in ("optim_step", "dropped gradient", "forward")],
    [
        *(("start", (max_steps,)) for max_steps in (None, 1, 2, 1, 2)),
        *(("set_steps", (steps,)) for steps in (3, 6, 9, 12)),
        *([("pause", ())] * 2),
    ],
    [("time_passes", (7.0,)), ("time_passes", (1000.0,)), ("call", ()), ("call", ())],
]
ENDINGS: list[Action] = [
    ("stop", ()),
    ("go_on", ()),
    ("call", ()),
    ("pause", ()),
    ("register", (False,)),
    ("start", (None,)),
]


def perform(actions: list[Action]) -> None:
    """Perform the actions, and compare run and model after each of them."""
    sequences = Sequences()
    done: list[str] = []
    try:
        for name, arguments in actions:
            done.append(f"{name}{arguments}")
            getattr(sequences, name)(*arguments)
            sequences.agrees()
        sequences.end()
    except BaseException as error:
        error.add_note("after " + ", ".join(done))
        raise
    finally:
        sequences.clean_up()


@pytest.mark.parametrize("seed", range(20))
def test_run_agrees_with_the_model_in_a_long_sequence(seed: int) -> None:
    rng = random.Random(seed)
    actions: list[Action] = [("set_loss", ("mine",))] * (seed % 2) + [("set_steps", (30,)), ("go_on", ())]
    actions += [rng.choice(rng.choice(ACTIONS)) for _ in range(60)]
    perform(actions + [rng.choice(ENDINGS) for _ in range(8)])


GO: Action = ("go_on", ())
MINE: Action = ("set_loss", ("mine",))
BREAK: Action = ("register", (True,))
REPAIR: Action = ("register", (False,))
NAMED: dict[str, list[Action]] = {
    "a repaired loss completes the steps that were requested": [MINE, ("start", (2,)), BREAK, GO, GO, REPAIR, GO],
    "a repaired loss does not resume a run that was paused by hand": [MINE, BREAK, GO, GO, ("pause", ()), REPAIR, GO],
    "a stop is final": [GO, ("stop", ()), ("pause", ()), ("start", (None,)), GO],
    "an edit waits for a gradient that is kept": [
        GO,
        ("arm", ("optim_step",)),
        GO,
        ("set_own", ("batch_size", 2)),
        GO,
        GO,
    ],
    "an edit does not wait for a gradient that was dropped": [
        *(GO, ("arm", ("dropped gradient",)), GO, ("set_own", ("batch_size", 2)), GO, GO)
    ],
    "an update waits for its evaluation": [GO, GO, ("arm", ("forward",)), GO, ("set_own", ("batch_size", 2)), GO, GO],
    "an update without its evaluation is recorded": [GO, GO, ("arm", ("forward",)), GO, ("stop", ())],
    "the last step is no longer the last one": [
        *(("set_steps", (3,)), GO, GO, GO, ("arm", ("forward",)), GO, ("set_steps", (6,)), GO, GO)
    ],
    "a failed batch is used again, with another size": [
        *(MINE, BREAK, GO, GO, ("set_own", ("batch_size", 2)), REPAIR, GO, GO)
    ],
    "a version that comes while the old one fails is used at once": [MINE, BREAK, GO, REPAIR, GO, GO],
    "time in a pause does not count": [
        GO,
        GO,
        ("pause", ()),
        GO,
        ("time_passes", (1000.0,)),
        GO,
        ("time_passes", (7.0,)),
        GO,
    ],
    "a call waits for the step": [GO, ("call", ()), GO, ("call", ()), ("pause", ()), GO, ("call", ())],
}


@pytest.mark.parametrize("name", NAMED)
def test_run_agrees_with_the_model_in_a_named_sequence(name: str) -> None:
    perform(NAMED[name])


@given(actions=st.lists(st.sampled_from(ACTIONS).flatmap(st.sampled_from), max_size=25))
@settings(max_examples=20)
def test_run_agrees_with_the_model_in_a_short_sequence(actions: list[Action]) -> None:
    """As above; hypothesis reduces a sequence that fails to its shortest form."""
    perform(actions)
