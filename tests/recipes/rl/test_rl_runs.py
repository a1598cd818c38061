"""Reinforcement learning with what every run has: guarded functions, references, hot reload, the token view."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.data.reference_logprobs import ReferenceClient
from mint_lab.data.rewards import REWARDS, reward
from mint_lab.errors import DataError
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register_loss
from mint_lab.runs import Run
from mint_lab.types import Datum, TensorData
from mint_lab.ui.tokens import tokens_of

from ...runs.bigram import BigramClient
from ...runs.cells import cancel_polls
from ...runs.conftest import finish
from ...waiting import TIMEOUT, Gate, until

PROMPTS = [{"prompt": f"{chr(97 + i % 26)}:", "answer": "?"} for i in range(40)]


def low(response_text: str, example: Any) -> float:
    return sum(ord(c) < 64 for c in response_text) / max(len(response_text), 1)


class WithReference(BigramClient):
    """A client that computes reference log-probabilities with its first table, as the local client does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.table.detach().clone()
        self.request_sizes: list[int] = []

    def reference_logprobs(self, data: list[Datum]) -> Future[list[TensorData]]:
        self.request_sizes.append(len(data))
        now, self.table = self.table, self.first
        rows = [TensorData.from_torch(row) for row in self._logprobs(data)]
        self.table = now
        future: Future[list[TensorData]] = Future()
        future.set_result(rows)
        return future

    def reference_folder(self) -> Path:
        raise AssertionError("references of rollouts are not stored on disk")


@pytest.fixture
def rl(make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(**options: Any) -> Run:
        given = {"data": PROMPTS, "held_out": PROMPTS[:10], "reward": low, "max_tokens": 4, "steps": 4, **options}
        run = make_run("rl", **given)
        run.prepare()
        run._trainer.cancel_after = 0.1
        return run

    return make


def endless(calls: list[Any], from_call: int) -> Callable[..., Any]:
    """PPO that does not return, from call number ``from_call`` on."""

    def mine(data: Any, logprobs_list: Any) -> Any:
        calls.append(len(data))
        while len(calls) >= from_call:
            pass
        return LOSSES["ppo"].bind()(data, logprobs_list)

    return mine


def ppo_again(data: Any, logprobs_list: Any) -> Any:
    return LOSSES["ppo"].bind()(data, logprobs_list)


# -- losses that do not return, fail, or print ------------------------------------------------------------------------


@pytest.mark.parametrize(("control", "status"), [("pause", "paused"), ("stop", "stopped")])
def test_pause_and_stop_cancel_a_runaway_loss(rl: Any, control: str, status: str) -> None:
    calls: list[Any] = []
    register_loss(name="mine")(endless(calls, 3))
    run = rl(loss="mine").start()
    until(lambda: len(calls) == 3)
    getattr(run, control)()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == (status, 2)
    assert "the loss had not returned after" in run.error.message
    expected = rl(loss="ppo")
    assert expected.step(2).wait(TIMEOUT)
    assert torch.allclose(run.client.table, expected.client.table, atol=1e-6)


def test_fixed_runaway_loss_gets_the_same_responses(rl: Any) -> None:
    calls: list[Any] = []
    register_loss(name="mine")(endless(calls, 2))
    run = rl(loss="mine").start()
    until(lambda: len(calls) == 2)
    register_loss(name="mine")(ppo_again)
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, [r.loss_version for r in run.records]) == ("finished", [1, 2, 2, 2])
    whole = finish(rl(loss="ppo"))
    assert torch.allclose(run.client.table, whole.client.table, atol=1e-6)


def test_fixed_loss_resumes_the_run(rl: Any) -> None:
    calls: list[int] = []

    @register_loss(name="mine")
    def fails(data: Any, logprobs_list: Any) -> Any:
        calls.append(1)
        assert len(calls) < 3, "not a third time"
        return LOSSES["ppo"].bind()(data, logprobs_list)

    run = rl(loss="mine").start()
    assert run.wait(TIMEOUT, check=False)
    assert (run.status, run.steps_done) == ("paused", 2)
    assert run.error.loss == "mine"
    assert run.error.reward is None
    reward(name="low")(low)
    assert run.status == "paused", "the reward was not at fault"
    register_loss(name="mine")(ppo_again)
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("finished", 4)


def test_output_of_a_loss_is_limited_and_reported(rl: Any, capfd: pytest.CaptureFixture[str]) -> None:
    @register_loss(name="mine")
    def chatty(data: Any, logprobs_list: Any) -> Any:
        for i in range(100):
            print("value", i)
        return LOSSES["ppo"].bind()(data, logprobs_list)

    run = finish(rl(loss="mine", steps=1))
    assert len(capfd.readouterr().out.splitlines()) == 20
    assert "mine v1 printed 100 lines in one call, of which 20 are shown" in run.records[0].warnings


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_fixed_reward_resumes_the_run(rl: Any) -> None:
    run = rl()
    assert run.step(1).wait(TIMEOUT)

    @reward(name="low")
    def broken(response_text: str, example: Any) -> float:
        raise ValueError("broken")

    assert run.step(2).wait(TIMEOUT, check=False)
    assert run.error.loss is None
    assert run.error.reward.label == "low v2"
    register_loss(name="mine")(ppo_again)
    reward(name="another")(low)
    assert run.status == "paused", "neither was at fault"
    reward(name="low")(low)
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("paused", 3), "as many steps as were requested"


def test_failed_run_that_a_person_paused_stays_paused(rl: Any) -> None:
    def broken(response_text: str, example: Any) -> float:
        raise ValueError("broken")

    run = rl(reward=broken).start()
    assert run.wait(TIMEOUT, check=False)
    run.pause()
    reward(name="broken")(low)
    assert run.status == "paused"
    finish(run)


@pytest.mark.parametrize(("control", "status"), [("pause", "paused"), ("stop", "stopped"), ("register", "finished")])
def test_runaway_reward_is_cancelled(rl: Any, control: str, status: str) -> None:
    run = rl()
    assert run.step(2).wait(TIMEOUT)
    before, calls = run.client.table.detach().clone(), []

    @reward(name="low")
    def endless(response_text: str, example: Any) -> float:
        calls.append(response_text)
        while len(calls) > 5:
            pass
        return low(response_text, example)

    run.start()
    until(lambda: len(calls) == 6)
    if control == "register":
        reward(name="low")(low)
        assert run.wait(TIMEOUT, check=True)
        assert torch.equal(run.client.table, finish(rl(reward=low)).client.table)
    else:
        getattr(run, control)()
        assert run.wait(TIMEOUT, check=False)
        assert torch.equal(run.client.table, before)
        assert "low v2, line 5: it had not returned after" in run.error.message or "line 4" in run.error.message
        assert f"response {calls[-1]!r}" in run.error.message
    assert run.status == status


def test_reward_cannot_end_the_worker(rl: Any) -> None:
    def leaves(response_text: str, example: Any) -> float:
        raise SystemExit

    run = rl(reward=leaves).start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert run.error.message.startswith("leaves v1, line 2: the function raised SystemExit")
    assert run.error.reward.name == "leaves"


@pytest.mark.parametrize("where", ["training", "held-out"])
def test_message_says_weights_unchanged_only_before_the_update(rl: Any, where: str) -> None:
    run = rl(eval_every=1, held_out=[{"prompt": "#:"}])
    assert run.step(1).wait(TIMEOUT)
    before = run.client.table.detach().clone()

    @reward(name="low")
    def leaves(response_text: str, example: Any) -> float:
        if (example["prompt"] == "#:") == (where == "held-out"):
            raise SystemExit
        return low(response_text, example)

    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.steps_done == 1
    untouched = torch.equal(run.client.table, before)
    assert ("No weight was changed" in run.error.message) == untouched == (where == "training")


def test_slow_reward_is_not_cancelled(rl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole rollout takes far longer than the limit for one response: 0.9 s each, by the clock of the grading."""
    calls: list[str] = []
    gate, clock = Gate(), SimpleNamespace(now=0.0)
    monkeypatch.setattr("mint_lab.recipes.rl.grading.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow(response_text: str, example: Any) -> float:
        calls.append(response_text)
        clock.now += 0.9
        if len(calls) == 20:
            gate()
        return low(response_text, example)

    run = rl(reward=slow, held_out=PROMPTS[:1], steps=2)
    run._trainer.cancel_after = 1.0
    polls = cancel_polls(run)
    run.start()
    gate.wait()
    run.pause()
    for _ in range(2):  # by the second one, the first one has had its effect
        assert polls.acquire(timeout=TIMEOUT)
    gate.open()
    assert run.wait(TIMEOUT, check=True)
    assert (run.status, run.steps_done) == ("paused", 1)
    assert len(calls) >= 32


def test_registry_keeps_no_run_alive() -> None:
    gc.collect()
    before = len(REWARDS._subscribers)
    run = Run("rl", data=PROMPTS, reward=low, client=BigramClient())
    assert len(REWARDS._subscribers) == before + 1
    del run
    gc.collect()
    assert len(REWARDS._subscribers) == before


# -- references -------------------------------------------------------------------------------------------------------


def test_grpo_gets_base_logprobs_once_per_rollout(rl: Any) -> None:
    client = WithReference()
    assert isinstance(client, ReferenceClient)
    options = {"loss": "grpo", "loss_config": {"beta": 0.5}, "steps": 6, "updates_per_rollout": 3}
    run = finish(rl(client=client, learning_rate=0.2, **options))
    assert client.request_sizes == [len(client.batches[0]), len(client.batches[3])]
    start = client.first.log_softmax(-1)
    for batch in client.batches:
        for datum in batch:
            pairs = zip(datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].tolist(), strict=True)
            expected = [float(start[a, b]) for a, b in pairs]
            assert datum.loss_fn_inputs["reference_logprobs"].tolist() == pytest.approx(expected, abs=1e-5)
    divergence = [r.metrics["kl/reference"] for r in run.records]
    assert divergence[0] == pytest.approx(0, abs=1e-6)
    assert divergence[-1] > 1e-4, "the model has moved away from the base model"
    # A client without references: a sampling client on the first weights computes them.
    other = finish(rl(learning_rate=0.2, **options))
    assert torch.allclose(other.client.table, run.client.table, atol=1e-5)


def test_kl_term_keeps_the_model_near_the_base(rl: Any) -> None:
    def divergence(beta: float) -> float:
        run = finish(rl(loss="grpo", loss_config={"beta": beta}, steps=12, learning_rate=0.2, kl_to_base=True))
        return run.records[-1].metrics["kl_base/k3"]

    assert divergence(1.0) < 0.5 * divergence(0.0)


def test_loss_can_change_within_a_rollout(rl: Any) -> None:
    client = WithReference()
    run = rl(client=client, loss="ppo", steps=9, updates_per_rollout=9, learning_rate=0.1, minibatches=1)
    for name in ("ppo", "cispo", "grpo"):
        assert run.set_loss(name).step(3).wait(TIMEOUT)
        assert run.error is None
    assert [r.loss_name for r in run.records] == ["ppo"] * 3 + ["cispo"] * 3 + ["grpo"] * 3
    assert [(e.step, e.label) for e in run.edits if e.kind == "loss"] == [(4, "cispo v1"), (7, "grpo v1")]
    assert ["reference_logprobs" in b[0].loss_fn_inputs for b in client.batches] == [False] * 6 + [True] * 3
    assert len({len(b) for b in client.batches}) == 1, "one rollout"
    assert client.request_sizes == [len(client.batches[0])], "requested when the loss was set"
    (moments,) = client.optimizer.state.values()
    assert int(moments["step"]) == 9
    assert run.status == "finished"


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_displayed_tokens_are_of_the_last_rollout(rl: Any) -> None:
    run = finish(rl(loss="ppo", steps=3, learning_rate=0.3))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert (seen.step, seen.loss, seen.pairs, len(seen.data)) == (3, "ppo v1", False, 4)
    assert seen.gradients is not None
    last = [d.model_input.to_ints() for d in run.client.batches[-1]]
    for datum, logprobs, gradient, title in zip(seen.data, seen.logprobs, seen.gradients, seen.titles, strict=True):
        assert datum.model_input.to_ints() in last
        fields = {k: v.to_torch() for k, v in datum.loss_fn_inputs.items()}
        # -d min(rA, clamp(r)A)/dlogp = -rA if the clip is not active, on tokens of nonzero weight.
        r, a = (logprobs - fields["logprobs"]).exp(), fields["advantages"]
        active = ((r > 1.2) & (a > 0)) | ((r < 0.8) & (a < 0))
        expected = torch.where(active, 0.0, -r * a) * fields["weights"]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
        assert f"advantage {float(a[-1]):+.3g}" in title
    best, worst = (float(d.loss_fn_inputs["advantages"].to_torch()[-1]) for d in seen.data[:2])
    assert best > 0 > worst
    message = tokens_of(seen)
    assert {"gradient", "logprob", "ratio", "advantage", "weight"} <= {column["name"] for column in message["columns"]}
    assert [row["title"] for row in message["rows"]] == seen.titles
    assert message["by"] == "gradient"


def test_displayed_tokens_of_a_loss_with_a_reference(rl: Any) -> None:
    """Also with a client that computes no reference log-probabilities."""
    run = finish(rl(loss="grpo", steps=2))
    seen = run.held_out_tokens().result(TIMEOUT)
    assert seen.gradients is not None
    assert "reference_log_ratio" in {column["name"] for column in tokens_of(seen)["columns"]}


def test_before_a_rollout_there_are_no_tokens(rl: Any) -> None:
    with pytest.raises(DataError, match="no rollout has been sampled yet"):
        rl().held_out_tokens().result(TIMEOUT)
