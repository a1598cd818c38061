"""Rollouts with the bigram client: what is sampled, what is trained on, what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.data.rewards import reward
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register_loss
from mint_lab.runs import Run, load_run
from mint_lab.runs.sample_batch import sample_data

from ...runs.bigram import BigramClient
from ...runs.conftest import TIMEOUT, finish

PROMPTS = [{"prompt": f"{chr(97 + i % 26)}:", "answer": "?"} for i in range(40)]


def low(response_text: str, example: Any) -> float:
    """Share of characters in the lower half of the table."""
    return sum(ord(c) < 64 for c in response_text) / max(len(response_text), 1)


def plain(data: Any) -> list[Any]:
    """Return datums as lists, which can be compared."""
    return [(d.model_input.to_ints(), {k: v.tolist() for k, v in d.loss_fn_inputs.items()}) for d in data]


@pytest.fixture
def rl(make_run: Callable[..., Run]) -> Callable[..., Run]:
    def make(**options: Any) -> Run:
        return make_run("rl", **{"data": PROMPTS, "held_out": PROMPTS[:10], "reward": low, "max_tokens": 4, **options})

    return make


@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo", "dro"])
def test_every_policy_loss_learns(rl: Any, loss: str) -> None:
    run = finish(rl(loss=loss, steps=15, batch_size=8, learning_rate=0.2, evaluation="sampled"))
    assert run.records[-1].held_out["reward"] > run.baseline["reward"] + 0.2
    assert load_run(run.folder).records == run.records


def test_one_update_per_rollout_is_on_policy(rl: Any) -> None:
    """Ratios are 1 to 1e-5 and nothing is clipped, at every step and not only at the first."""
    run = finish(rl(loss="ppo", steps=6, kl_to_base=True))
    for record in run.records:
        m = record.metrics
        assert max(abs(m[k] - 1) for k in ("ratio/mean", "ratio/min", "ratio/max", "ess")) < 1e-5
        assert (m["clip_frac/low"], m["clip_frac/high"], m["out_of_range_frac"]) == (0, 0, 0)
        assert m["mismatch/max"] < 1e-5
        assert m["tokens_per_s"] == record.tokens / record.step_time
        middle = [counts[20] for counts in record.histograms.values()]
        assert sum(middle) == sum(map(sum, record.histograms.values()))
    assert set(run.records[0].metrics) == {
        *("loss", "grad_norm", "tokens_per_s", "sampling_time", "reward", "reward_std", "group_std"),
        *("frac_reward_zero_std", "completion_length", "truncated_frac", "ratio/mean", "ratio/min", "ratio/max"),
        *("clip_frac/low", "clip_frac/high", "out_of_range_frac", "kl/k1", "kl/k2", "kl/k3", "ess", "entropy_est"),
        *("kl_base/k1", "kl_base/k2", "kl_base/k3", "mismatch/mean", "mismatch/max"),
    }
    assert set(run.records[4].held_out) == {"reward", "completion_length", "truncated_frac"}
    assert run.records[0].metrics["kl_base/k1"] == pytest.approx(0, abs=1e-6)
    assert run.records[-1].metrics["kl_base/k3"] > 1e-4, "the model has moved away from the base model"
    assert len(run._trainer._references) == len(run.client.batches[-1]), "those of the last rollout only"


def test_datums_of_a_group(rl: Any) -> None:
    run = rl(batch_size=2, group_size=4, steps=1)
    finish(run)
    (batch,) = run.client.batches
    trainer = run._trainer
    rows = {r["prompt"] for r in PROMPTS}
    for datum in batch:
        text = "".join(map(chr, datum.model_input.to_ints()))
        assert text[:2] in rows
        fields = {k: v.tolist() for k, v in datum.loss_fn_inputs.items()}
        assert set(fields) == {"target_tokens", "weights", "logprobs", "advantages"}
        assert fields["weights"] == [0.0] + [1.0] * (len(text) - 1)
        assert fields["logprobs"][0] == fields["advantages"][0] == 0
        assert len(set(fields["advantages"][1:])) == 1
        assert all(x < 0 for x in fields["logprobs"][1:])
    # The advantages of the responses to one prompt add up to 0.
    advantages = [d.loss_fn_inputs["advantages"].tolist()[-1] for d in batch]
    prompts = ["".join(map(chr, d.model_input.to_ints()[:2])) for d in batch]
    for prompt in set(prompts):
        own = [a for a, p in zip(advantages, prompts, strict=True) if p == prompt]
        assert sum(own) == pytest.approx(0, abs=1e-6)
    assert plain(trainer.sample(3, run.loss)) == plain(batch[:3])
    assert plain(sample_data(run.loss)) == plain(batch[:4]), "a loss cell is checked on the latest rollout"


def test_rollout_is_used_for_passes_times_minibatches(rl: Any) -> None:
    run = finish(rl(steps=12, batch_size=4, updates_per_rollout=2, minibatches=2, learning_rate=0.3, loss="ppo"))
    fresh = [r.step for r in run.records if "reward" in r.metrics]
    assert fresh == [1, 5, 9], "four steps per rollout; its own metrics are in the first"
    assert [r.step for r in run.records if "mismatch/mean" in r.metrics] == fresh
    assert run.client.calls.count("sample") == 3 * 4 + 4 * 10, "rollouts, and evaluations at 0, 5, 10, 12"
    for first in (0, 4, 8):
        a, b, c, d = map(plain, run.client.batches[first : first + 4])
        assert sorted(map(str, a + b)) == sorted(map(str, c + d)), "two passes over the same responses"
    later = [r for r in run.records if r.step not in fresh]
    assert max(abs(r.metrics["ratio/max"] - 1) for r in later) > 0.05
    assert any(r.metrics["clip_frac/high"] + r.metrics["clip_frac/low"] > 0 for r in later)


def test_minibatches_hold_whole_groups(rl: Any) -> None:
    run = finish(rl(steps=2, batch_size=4, minibatches=2))
    first, second = ({tuple(d.model_input.to_ints()[:2]) for d in batch} for batch in run.client.batches)
    assert not first & second


def test_minibatches_are_seeded_shuffles_of_the_groups(rl: Any) -> None:
    """By hand: pass ``p`` of the rollout at position 4r shuffles its four groups with the seed (3, 4r, p)."""
    run = finish(rl(seed=3, steps=8, batch_size=4, minibatches=2, updates_per_rollout=2))
    stream = np.random.default_rng([3, 0]).permutation(40).tolist()
    expected = []
    for position in (0, 4):
        for pass_number in (0, 1):
            order = np.arange(4)
            np.random.default_rng([3, position, pass_number]).shuffle(order)
            expected += [
                [PROMPTS[stream[position + k]]["prompt"] for k in sorted(part)] for part in (order[:2], order[2:])
            ]
    found = [["".join(map(chr, d.model_input.to_ints()[:2])) for d in batch[::8]] for batch in run.client.batches]
    assert [len(batch) for batch in run.client.batches] == [16] * 8, "every group has a spread"
    assert found == expected
    assert [r.tokens for r in run.records] == [sum(d.model_input.length for d in b) for b in run.client.batches]


def test_held_out_answers_that_a_record_keeps_are_the_first(rl: Any) -> None:
    run = finish(rl(steps=1))
    kept = [s for s in run.records[0].samples if s["source"] == "held-out"]
    assert [s["prompt"] for s in kept] == [row["prompt"] for row in PROMPTS[:2]]
    assert [s["reward"] for s in kept] == [low(s["response"], None) for s in kept]


def test_delayed_sampler_is_that_many_updates_behind(rl: Any) -> None:
    run = finish(rl(steps=5, delay=2, batch_size=4, learning_rate=0.1))
    assert ["mismatch/mean" in r.metrics for r in run.records] == [True] + [False] * 4
    assert run.records[0].metrics["ratio/max"] == pytest.approx(1, abs=1e-5)
    assert run.records[1].metrics["ratio/max"] > 1.001, "sampled from the first weights, like the first rollout"
    # The sampler's log-probabilities are those of the table two updates before.
    again = rl(steps=5, delay=2, batch_size=4, learning_rate=0.1)
    tables = [again.client.table.detach().clone()]
    for _ in range(5):
        assert again.step().wait(TIMEOUT)
        tables.append(again.client.table.detach().clone())
    datum = again.client.batches[4][0]
    tokens = [*datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].tolist()[-1]]
    rows = tables[2].log_softmax(-1)[tokens[1:-1]]
    expected = rows.gather(1, torch.tensor(tokens[2:])[:, None])[:, 0]
    assert datum.loss_fn_inputs["logprobs"].tolist()[1:] == pytest.approx(expected.tolist(), abs=1e-5)


def test_delayed_sampler_can_have_weights_from_inside_a_rollout(rl: Any) -> None:
    """Two updates per rollout, one of delay: the second rollout is sampled after update 1."""
    run = rl(steps=4, delay=1, updates_per_rollout=2, batch_size=4, learning_rate=0.1)
    assert run.step().wait(TIMEOUT)
    table = run.client.table.detach().log_softmax(-1)
    finish(run)
    datum = run.client.batches[2][0]
    tokens = [*datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].tolist()[-1]]
    expected = [float(table[a, b]) for a, b in pairwise(tokens[1:])]
    assert datum.loss_fn_inputs["logprobs"].tolist()[1:] == pytest.approx(expected, abs=1e-6)


def test_groups_without_spread_are_dropped_and_counted(rl: Any) -> None:
    def picky(response_text: str, example: Any) -> float:
        return low(response_text, example) if example["prompt"] < "n" else 1.0

    run = finish(rl(reward=picky, steps=4, batch_size=10))
    for record, batch in zip(run.records, run.client.batches, strict=True):
        prompts = {chr(d.model_input.to_ints()[0]) for d in batch}
        assert all(p < "n" for p in prompts)
        assert record.metrics["frac_reward_zero_std"] == pytest.approx(1 - len(batch) / 80)
    assert plain(run._trainer.sample(999, run.loss)) == plain(run.client.batches[-1]), "a loss is tried on these alone"


def test_rollout_without_spread_makes_no_update(rl: Any) -> None:
    run = finish(rl(reward=lambda response_text, example: 1.0, steps=3))
    assert "optim_step" not in run.client.calls
    assert [r.metrics["frac_reward_zero_std"] for r in run.records] == [1, 1, 1]
    assert all("loss" not in r.metrics for r in run.records)
    assert len(run._trainer.sample(999, run.loss)) == 4 * 8, "without any spread a loss is tried on all of them"
    assert "in 100% of the groups all rewards are equal" in run.records[-1].warnings[0]


@pytest.mark.parametrize("end", ["stop", "retry"])
def test_step_without_an_update_waits_for_its_evaluation_too(rl: Any, end: str) -> None:
    """All rewards are equal, so there is no gradient to keep; the step and its plan are kept all the same."""
    run = rl(reward=lambda response_text, example: 1.0, steps=4, eval_every=1, held_out=[{"prompt": "#:"}])
    assert run.step().wait(TIMEOUT)
    name = run.options["reward"]

    @reward(name=name)
    def fails_on_held_out(response_text: str, example: Any) -> float:
        assert example["prompt"] != "#:"
        return 1.0

    assert run.step().wait(TIMEOUT, check=False)
    assert (run.steps_done, run.trainer.retry_plan is None) == (1, False)
    if end == "stop":
        run.stop()
        assert (run.steps_done, run.records[-1].held_out) == (2, {})
        return
    run.set(batch_size=7)
    reward(name=name)(lambda response_text, example: 1.0)
    assert run.wait(TIMEOUT)
    assert [r.settings["batch_size"] for r in run.records] == [4, 4]
    assert run.step().wait(TIMEOUT)
    assert (3, "setting", "batch_size 7") in [(e.step, e.kind, e.label) for e in run.edits]


def test_same_seed_gives_the_same_run(rl: Any) -> None:
    one, two = (finish(rl(steps=4, updates_per_rollout=2, minibatches=2)) for _ in range(2))
    assert torch.equal(one.client.table, two.client.table)
    other = finish(rl(steps=4, updates_per_rollout=2, minibatches=2, seed=1))
    assert not torch.equal(one.client.table, other.client.table)


@pytest.mark.parametrize("bad", ["raises", "nan"])
def test_failing_reward_pauses_and_leaves_the_weights(rl: Any, bad: str) -> None:
    run = rl(steps=4, batch_size=4)
    assert run.step(2).wait(TIMEOUT)
    before, sampled = run.client.table.detach().clone(), run.client.calls.count("sample")

    @reward(name="low")
    def broken(response_text: str, example: Any) -> float:
        if bad == "nan":
            return float("nan")
        return 1 / 0

    run.resume()
    assert run.wait(TIMEOUT, check=False)
    error = run.error
    assert (run.status, run.steps_done) == ("paused", 2)
    assert torch.equal(before, run.client.table)
    prompt = run._trainer.job.train.examples[error.index]["prompt"]
    assert f"on example {error.index}, prompt '{prompt}', response '" in error.message
    if bad == "nan":
        assert error.message.startswith("low v2: returned nan, expected a finite number")
    else:
        assert error.message.startswith("low v2, line 5: ZeroDivisionError: division by zero")
        assert error.line == 5
        assert "-->   5" in error.traceback
        assert "rl/trainer" not in error.traceback
    reward(name="low")(low)
    assert run.wait(TIMEOUT, check=True)
    assert run.status == "finished"
    assert run.client.calls.count("sample") == sampled + 2 * 4 + 10, "the responses sampled before are graded now"
    assert [(e.step, e.kind, e.label) for e in run.edits] == [(3, "reward", "low v3")]
    assert load_run(run.folder).edits == run.edits
    kept = sorted(path.name for path in (run.folder / "rewards").iterdir())
    assert kept == ["low-v1.py", "low-v3.py"], "only those that graded"
    assert "lower half of the table" in (run.folder / "rewards" / "low-v1.py").read_text()
    whole = finish(rl(reward=low, steps=4, batch_size=4))
    assert torch.equal(run.client.table, whole.client.table), "as without the failure"


def test_reward_that_fails_on_held_out_prompts_repeats_no_update(rl: Any) -> None:
    run = rl(steps=3, batch_size=4, eval_every=2, held_out=[{"prompt": "#:", "answer": "?"}])
    assert run.step(1).wait(TIMEOUT)

    @reward(name="low")
    def fails_there(response_text: str, example: Any) -> float:
        assert example["prompt"] != "#:"
        return low(response_text, example)

    run.resume()
    assert run.wait(TIMEOUT, check=False)
    assert (run.steps_done, run.error.index) == (1, 0)
    reward(name="low")(low)
    assert run.wait(TIMEOUT, check=True)
    assert run.status == "finished"
    assert run.client.calls.count("optim_step") == 3
    whole = finish(rl(reward=low, steps=3, batch_size=4, eval_every=2, held_out=[{"prompt": "#:", "answer": "?"}]))
    assert [r.held_out for r in run.records] == [r.held_out for r in whole.records]
    assert [set(r.held_out) for r in run.records] == [set(), {*whole.baseline}, {*whole.baseline}]
    assert torch.equal(run.client.table, whole.client.table)


@pytest.mark.parametrize("name", ["reward", "ess", "truncated_frac", "kl/k1", "clip_frac/low"])
def test_loss_may_report_any_metric_name(rl: Any, name: str) -> None:
    def policy_gradient(data: Any, logprobs_list: Any) -> Any:
        advantages = [d.loss_fn_inputs["advantages"].to_torch() for d in data]
        return -sum((lp * a).sum() for lp, a in zip(logprobs_list, advantages, strict=True)), {name: 7.0}

    run = finish(rl(loss=policy_gradient, steps=4, batch_size=4, updates_per_rollout=2))
    assert run.client.calls.count("optim_step") == len(run.records) == 4
    own = "clip_frac/low" if name == "clip_frac/low" else f"loss/{name}"
    assert [record.metrics[own] for record in run.records] == [7.0] * 4
    notes = [text for record in run.records for text in record.warnings if "recorded as" in text]
    if name == own:  # a policy loss defines its own clip
        assert notes == []
        return
    assert notes == [f"policy_gradient v1 reports {name!r}, which is a metric of the run: recorded as 'loss/{name}'"]
    assert all(record.metrics.get(name, 0.0) <= 1 for record in run.records), "the run's own"
    assert name in run.records[0].metrics


@pytest.mark.parametrize("is_new_version", [False, True])
def test_reward_that_failed_grades_only_what_is_left(rl: Any, is_new_version: bool) -> None:
    """Of 4 x 8 responses the 20th fails once. The same reward grades it and the 12 after it; a new one grades all."""
    calls: list[str] = []

    def fails_once(response_text: str, example: Any) -> float:
        calls.append(response_text)
        if len(calls) == 20:
            raise ConnectionError("the judge does not answer")
        return low(response_text, example)

    run = rl(reward=fails_once, steps=1, batch_size=4, eval_every=100, held_out=PROMPTS[:1])
    run.prepare()
    run.trainer.baseline = {"reward": 0.0}  # no held-out response is graded before the first step
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.error.reward.name == "fails_once"
    assert len(calls) == 20
    if is_new_version:
        reward(name="fails_once")(fails_once)
    else:
        run.resume()
    assert run.wait(TIMEOUT)
    graded = 20 + (32 if is_new_version else 13)
    assert len(calls) == graded + 1, "and one held-out response"
    whole = finish(rl(reward=low, steps=1, batch_size=4, eval_every=100, held_out=PROMPTS[:1]))
    assert run.records[0].metrics["reward"] == whole.records[0].metrics["reward"]


def test_failing_loss_is_retried_with_the_same_responses(rl: Any) -> None:
    calls = iter(range(100))

    @register_loss
    def fragile(data: Any, logprobs_list: Any) -> Any:
        if next(calls) == 1:
            raise ValueError("once")
        return LOSSES["ppo"].bind()(data, logprobs_list)

    run = rl(loss="fragile", steps=3, batch_size=4, updates_per_rollout=2)
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.steps_done == 1
    assert "once" in run.error.message
    finish(run)
    assert plain(run.client.batches[1]) == plain(run.client.batches[2])
    whole = finish(rl(loss="ppo", steps=3, batch_size=4, updates_per_rollout=2))
    assert torch.allclose(run.client.table, whole.client.table, atol=1e-6)


def test_loss_may_read_base_logprobs(rl: Any) -> None:
    seen: list[Any] = []

    def anchored(data: Any, logprobs_list: Any) -> Any:
        seen.extend(datum.loss_fn_inputs["reference_logprobs"].to_torch() for datum in data)
        return LOSSES["ppo"].bind()(data, logprobs_list)

    spec = LOSSES.register(replace(LOSSES["ppo"], name="anchored", fn=anchored, builtin=False, params=(), optional=()))
    spec = LOSSES.register(replace(spec, inputs=(*spec.inputs, "reference_logprobs")))
    run = finish(rl(loss="anchored", steps=2, batch_size=2))
    start = BigramClient().table.detach().log_softmax(-1)
    datum = run.client.batches[1][0]
    pairs = zip(datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].tolist(), strict=True)
    expected = [float(start[a, b]) for a, b in pairs]
    assert datum.loss_fn_inputs["reference_logprobs"].tolist() == pytest.approx(expected, abs=1e-5)
    assert "kl_base/k1" not in run.records[0].metrics
    assert ["reference_logprobs" in d.loss_fn_inputs for d in run._trainer.sample(2, spec)] == [True, True]
    assert "reference_logprobs" not in run._trainer.sample(1, LOSSES["ppo"])[0].loss_fn_inputs


def test_samples_of_an_evaluation(rl: Any, tmp_path: Path) -> None:
    run = finish(rl(steps=5, eval_every=5, updates_per_rollout=5, learning_rate=0.3, loss="ppo"))
    assert [len(r.samples) for r in run.records] == [0, 0, 0, 0, 6]
    training = [s for s in run.records[-1].samples if s["source"] == "training"]
    for s in training:
        assert len(s["tokens"]) == len(s["ratio"]) == len(s["clipped"]) >= 1
        assert s["reward"] == low(s["response"], None)
        for ratio, clipped in zip(s["ratio"], s["clipped"], strict=True):
            active = (ratio < 0.8 and s["advantage"] < 0) or (ratio > 1.2 and s["advantage"] > 0)
            assert clipped == active
    assert any(any(s["clipped"]) for s in training)
    best, worst = training[:2]
    assert best["prompt"] == worst["prompt"]
    assert best["reward"] > worst["reward"]
    table = run.samples
    assert list(table.columns[:5]) == ["step", "source", "prompt", "response", "reward"]
    assert len(table) == 6
    assert load_run(run.folder).samples.equals(table)


def test_evaluation_is_greedy_by_default(rl: Any) -> None:
    greedy = finish(rl(steps=1))
    table = BigramClient().table
    by_hand = []
    for row in PROMPTS[:10]:
        token, text = ord(row["prompt"][-1]), ""
        while len(text) < 4 and (token or not text):
            token = int(table[token].argmax())
            text += chr(token)
        by_hand.append(low(text.removesuffix("\0"), None))
    assert greedy.baseline["reward"] == pytest.approx(float(np.mean(by_hand)))
    assert greedy.evaluation == "greedy"
    assert finish(rl(steps=1, evaluation="sampled")).baseline["reward"] != greedy.baseline["reward"]


def test_quick_evaluations_see_every_kind_of_prompt(rl: Any) -> None:
    """Fifty of a hundred prompts, whose two kinds alternate, are used: an even stride would see one kind only."""
    prompts = [{"prompt": f"{'ab'[i % 2]}{i % 10}:", "kind": i % 2} for i in range(100)]

    def kind(response_text: str, example: Any) -> float:
        return float(example.get("kind", low(response_text, example)))

    by_kind = finish(rl(held_out=prompts, reward=kind, steps=3, eval_every=1))
    quick = by_kind.records[0].held_out["reward"]
    assert quick == by_kind.records[1].held_out["reward"], "the same prompts each time"
    assert 0.3 < quick < 0.7
    answers = by_kind.client.calls.count("sample") - 3 * 4
    assert answers == 100 + 50 + 50 + 100, "all prompts before the first step and after the last one"
    assert by_kind.baseline["reward"] == by_kind.records[2].held_out["reward"] == 0.5


def test_changed_sampler_is_reported(rl: Any) -> None:
    run = finish(rl(steps=2, temperature=1.5))
    (warning,) = [w for w in run.records[0].warnings if "the ratio is not 1" in w]
    assert "temperature 1.5" in warning


def test_dro_without_weights_is_reported(rl: Any) -> None:
    run = finish(rl(loss="dro", weights=False, steps=1))
    assert all("weights" not in datum.loss_fn_inputs for datum in run.client.batches[0])
    share = run.records[0].metrics["unmasked_prompt_frac"]
    lengths = [d.model_input.length for d in run.client.batches[0]]
    assert share == pytest.approx(len(lengths) / sum(lengths)), "one token of each prompt is a target"
    assert any("dro runs without weights" in w for w in run.records[0].warnings)
