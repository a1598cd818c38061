"""Every metric that the package reports has one description, and its values lie in the range that this declares."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab import ServiceClient
from mint_lab.data import arithmetic_pairs, pairs_to_data
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.metrics import (
    METRICS,
    MetricSpec,
    clip_metrics,
    completion_metrics,
    displacement_frac,
    kl_base_metrics,
    mismatch_metrics,
    pair_metrics,
    ratio_metrics,
    register_metric,
    reward_metrics,
)
from mint_lab.metrics.registry import metric
from mint_lab.runs import Run
from mint_lab.runs.sample_batch import made_up_data
from mint_lab.types import AdamParams

from ..recipes.test_reference_cache import ReferenceBigram
from ..runs.bigram import letter_pairs
from ..runs.conftest import finish, make_run

__all__ = ["make_run"]

# Rounding of float32 sums; the declared ranges are those of exact arithmetic.
ROUNDING = 1e-5
LOGPROBS = st.floats(-30, 0, width=32)
# Losses of the package itself: other tests of this process may have registered more.
LOSS_NAMES = [name for name in LOSSES if (LOSSES.first(name).fn.__module__ or "").startswith("mint_lab.")]


def assert_described(metrics: Mapping[str, float]) -> None:
    """Every metric has a spec, and its value lies in the spec's range."""
    for name, value in metrics.items():
        spec = metric(name)
        assert spec is not None, f"{name} is reported but not in METRICS"
        low, high = spec.range or (None, None)
        assert low is None or value >= low - ROUNDING, (name, value)
        assert high is None or value <= high + ROUNDING, (name, value)


def test_registry_import_needs_neither_torch_nor_pandas() -> None:
    code = "import mint_lab.metrics.registry, sys; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", METRICS.values(), ids=METRICS.keys())
def test_spec_is_one_sentence_of_plain_text(spec: MetricSpec) -> None:
    assert METRICS[spec.name] is spec
    assert spec.definition[0].isupper()
    assert spec.definition.endswith(".")
    assert ". " not in spec.definition
    assert "\n" not in spec.definition
    assert "$" not in spec.definition + spec.formula
    assert spec.definition.isascii()
    assert spec.name not in spec.also_called


# Metrics that can have either sign; a share is 0 to 1, a sum of log-probabilities at most 0, and the rest at least 0.
SIGNED = {
    *("loss", "loss:sum", "mean_margin", "rewards/chosen", "rewards/rejected", "rewards/margins", "reward"),
    "rewards/shift",
    *("kl/k1", "kl/teacher", "kl_base/k1"),
}


@pytest.mark.parametrize("spec", METRICS.values(), ids=METRICS.keys())
def test_spec_declares_the_bounds_that_its_mathematics_sets(spec: MetricSpec) -> None:
    if spec.unit.startswith("share"):
        assert spec.range == (0, 1)
    elif spec.name.startswith("logps/"):
        assert spec.range == (None, 0)
    else:
        assert spec.range == (None if spec.name in SIGNED else (0, None))


def test_also_called_does_not_repeat_a_metric_of_the_package() -> None:
    """An alias that is the bare name of another metric would say that the two are the same."""
    assert {alias for spec in METRICS.values() for alias in spec.also_called} & set(METRICS) == set()


def test_metric_resolves_held_out_names() -> None:
    assert metric("pair_accuracy") is METRICS["pair_accuracy"]
    assert metric("held_out/pair_accuracy") is METRICS["pair_accuracy"]
    assert metric("made_up") is None
    assert metric("held_out/") is None


def test_metrics_cannot_be_assigned() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        METRICS["mine"] = MetricSpec("mine", "Mine.")  # type: ignore[index]


def test_register_metric_accepts_an_equal_spec_again() -> None:
    spec = MetricSpec("margin_std", "Standard deviation of the margins.", "nats", (0.0, None))
    assert register_metric(spec) is spec
    assert register_metric(MetricSpec("margin_std", "Standard deviation of the margins.", "nats", (0.0, None))) == spec
    assert metric("held_out/margin_std") is spec
    assert list(METRICS)[-1] == "margin_std"


def test_register_metric_refuses_another_meaning() -> None:
    with pytest.raises(ConfigError, match=r"'pair_accuracy' is already defined as 'Share of pairs .* choose another"):
        register_metric(MetricSpec("pair_accuracy", "Something else."))
    with pytest.raises(ConfigError, match="already defined"):
        register_metric(MetricSpec("nll", METRICS["nll"].definition, "bits a token"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "metric name '': expected a name"),
        ({"name": "held_out/nll"}, "expected a name without 'held_out/'"),
        ({"definition": " "}, "metric 'mine': the definition is empty"),
        ({"range": (1.0, 0.0)}, r"range is \(1.0, 0.0\), expected low < high"),
        ({"range": (1.0, 1.0)}, "expected low < high"),
        ({"range": (1.0,)}, r"range is \(1.0,\), expected a pair"),
        ({"range": (math.nan, 1.0)}, "expected low < high"),
    ],
)
def test_a_spec_is_checked(fields: dict[str, Any], message: str) -> None:
    given_fields: dict[str, Any] = {"name": "mine", "definition": "Mine."} | fields
    with pytest.raises(ConfigError, match=message):
        MetricSpec(**given_fields)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_losses_report_described_metrics(name: str) -> None:
    data = made_up_data()
    generator = torch.Generator().manual_seed(0)
    logprobs = [-torch.rand(d.model_input.length, generator=generator) * 3 for d in data]
    _, metrics = LOSSES.first(name).bind()(data, [row.requires_grad_(True) for row in logprobs])
    assert "loss" in metrics
    assert_described(metrics)


@pytest.mark.parametrize(
    ("recipe", "loss", "options"),
    [
        ("preference", "pairwise_preference", {}),
        ("preference", "orpo", {}),
        ("sft", "cross_entropy", {}),
        ("unpaired", "bco", {}),
        ("rl", "ppo", {"kl_to_base": True}),
        ("rl", "grpo", {}),
        ("rl", "importance_sampling", {"weights": False}),
    ],
)
def test_runs_report_described_metrics(
    make_run: Callable[..., Run], tmp_path: Path, recipe: str, loss: str, options: dict[str, Any]
) -> None:
    if recipe == "unpaired":  # its losses read reference log-probabilities
        options = {"client": ReferenceBigram(tmp_path / "reference"), **options}
    if recipe == "rl":
        prompts = [{"prompt": f"{chr(97 + i)}:"} for i in range(20)]
        options = {"data": prompts, "held_out": prompts[:5], "reward": _low, "max_tokens": 4, **options}
    elif recipe == "sft":  # held-out pairs, so that pair metrics are evaluated as well
        options = {"data": letter_pairs(20), "held_out": letter_pairs(5), **options}
    run = finish(make_run(recipe, loss=loss, steps=4, eval_every=2, **options))
    reported = [run.baseline, *(m for record in run.records for m in (record.metrics, record.held_out))]
    assert all(reported[:2])
    for metrics in reported:
        assert_described(metrics)
    columns = set(run.history.columns) - {"loss_name", "loss_version"}
    assert [c for c in columns if not c.startswith("settings/") and metric(c) is None] == []


def test_training_client_reports_described_metrics() -> None:
    client = ServiceClient().create_lora_training_client("mint-tiny", rank=2, seed=0)
    data = pairs_to_data(arithmetic_pairs(2), client.get_tokenizer())
    passes = [client.forward(data, "cross_entropy"), client.forward_backward(data, "cross_entropy")]
    passes += [client.forward_backward_custom(data, LOSSES.first("simpo").bind())]
    reported = [future.result().metrics for future in passes]
    reported.append(client.optim_step(AdamParams(learning_rate=1e-3)).result().metrics)
    assert {"loss:sum", "time:sum", "passes:max", "micro_batches:max"} <= set(reported[0])
    assert set(reported[-1]) == {"grad_norm"}
    for metrics in reported:
        assert_described(metrics)


def _low(response_text: str, example: Any) -> float:
    """Share of characters in the lower half of the bigram table."""
    return sum(ord(c) < 64 for c in response_text) / max(len(response_text), 1)


@given(st.lists(st.tuples(LOGPROBS, LOGPROBS, st.floats(-3, 3), st.sampled_from([0.0, 1.0])), min_size=1, max_size=20))
def test_policy_metrics_lie_in_their_ranges(rows: list[tuple[float, float, float, float]]) -> None:
    logp, logq, advantages, weights = torch.tensor(rows, dtype=torch.float64).T
    weights[0] = 1.0
    assert_described(ratio_metrics(logp, logq, weights))
    assert_described(clip_metrics(logp, logq, advantages, weights))
    assert_described(kl_base_metrics(logp, logq, weights))
    assert_described(mismatch_metrics(logp, logq, weights))


@given(st.lists(st.tuples(*[st.floats(-200, 0, width=32)] * 4), min_size=1, max_size=20))
def test_pair_metrics_lie_in_their_ranges(rows: list[tuple[float, float, float, float]]) -> None:
    chosen, rejected, chosen_before, rejected_before = torch.tensor(rows).T
    assert_described(pair_metrics(chosen, rejected))
    fraction = displacement_frac(chosen, rejected, chosen_before, rejected_before)
    assert_described({"displacement_frac": fraction})


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=4), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=10),
)
def test_rollout_metrics_lie_in_their_ranges(rewards: list[list[float]], completions: list[tuple[int, bool]]) -> None:
    assert_described(reward_metrics(rewards))
    assert_described(completion_metrics([n for n, _ in completions], [truncated for _, truncated in completions]))
