"""Metrics of sampled tokens by hand arithmetic and by identities between them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import DataError
from mint_lab.metrics import (
    clip_metrics,
    kl_base_metrics,
    log_ratios_by_sign,
    mismatch_metrics,
    ratio_metrics,
)

LN2 = math.log(2)


def test_ratio_metrics_by_hand() -> None:
    """Ratios 2 and 1/2; the token of weight 0 (ratio e^9) is left out. w = 1.6, 0.4: ess = 1 / ((2.56 + 0.16) / 2)."""
    logq = torch.tensor([-1.0, -3.0, -9.0])
    logp = logq + torch.tensor([LN2, -LN2, 9.0])
    assert ratio_metrics(logp, logq, torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(
        {
            "ratio/mean": 1.25,
            "ratio/min": 0.5,
            "ratio/max": 2.0,
            "kl/k1": 0.0,
            "kl/k2": LN2**2 / 2,
            "kl/k3": 0.25,
            "ess": 1 / 1.36,
            "entropy_est": 2.0,
        },
        rel=1e-6,
        abs=1e-7,
    )


def test_clip_metrics_by_hand() -> None:
    """Ratios 1.5, 1.5, 0.5, 0.5, 1: the clip is active for (1.5, A > 0) and (0.5, A < 0); four are out of range."""
    logp = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0]).log()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    metrics = clip_metrics(logp, torch.zeros(5), advantages)
    assert metrics == pytest.approx({"clip_frac/low": 0.2, "clip_frac/high": 0.2, "out_of_range_frac": 0.8})
    wide = clip_metrics(logp, torch.zeros(5), advantages, clip_low_threshold=0.4, clip_high_threshold=2)
    assert set(wide.values()) == {0.0}
    masked = clip_metrics(logp, torch.zeros(5), advantages, torch.tensor([1.0, 0, 0, 0, 1]))
    assert masked == pytest.approx({"clip_frac/low": 0, "clip_frac/high": 0.5, "out_of_range_frac": 0.5})
    assert clip_metrics(logp, torch.zeros(5), torch.zeros(5))["clip_frac/high"] == 0, (
        "without an advantage no clip is active"
    )


def test_clip_is_not_active_at_its_bound() -> None:
    metrics = clip_metrics(
        torch.zeros(2), torch.zeros(2), torch.tensor([1.0, -1.0]), clip_low_threshold=1, clip_high_threshold=1
    )
    assert set(metrics.values()) == {0.0}


@given(st.lists(st.floats(-30, 0, width=32), min_size=1, max_size=20))
def test_ratio_metrics_on_policy(values: list[float]) -> None:
    logp = torch.tensor(values)
    metrics = ratio_metrics(logp, logp)
    assert (metrics["ratio/mean"], metrics["ratio/min"], metrics["ratio/max"], metrics["ess"]) == (1, 1, 1, 1)
    assert metrics["kl/k1"] == metrics["kl/k2"] == metrics["kl/k3"] == 0
    assert metrics["entropy_est"] == pytest.approx(-sum(values) / len(values), abs=1e-6)


@given(st.lists(st.tuples(st.floats(-20, 0, width=32), st.floats(-20, 0, width=32)), min_size=1, max_size=20))
def test_estimator_identities(rows: list[tuple[float, float]]) -> None:
    """k3 = mean(r) - 1 + k1; k2 >= k1^2 / 2 (Jensen); k3 >= 0; 1/n <= ess <= 1."""
    logp, logq = torch.tensor(rows, dtype=torch.float64).T
    metrics = ratio_metrics(logp, logq)
    assert metrics["kl/k3"] == pytest.approx(metrics["ratio/mean"] - 1 + metrics["kl/k1"], rel=1e-9, abs=1e-9)
    assert metrics["kl/k2"] >= metrics["kl/k1"] ** 2 / 2 - 1e-9
    assert metrics["kl/k3"] >= 0
    assert 1 / len(rows) - 1e-9 <= metrics["ess"] <= 1 + 1e-9
    assert metrics["ratio/min"] <= metrics["ratio/mean"] * (1 + 1e-12)


def test_ess_does_not_depend_on_the_scale_of_the_ratios() -> None:
    logq = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    logp = logq + torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64)
    assert ratio_metrics(logp, logq)["ess"] == pytest.approx(ratio_metrics(logp - 5, logq)["ess"])


def test_ess_is_one_in_n_if_one_token_dominates() -> None:
    """The ratio e^800 overflows float64; w does not."""
    metrics = ratio_metrics(torch.tensor([0.0, -1, -1, -1]), torch.tensor([-800.0, -1, -1, -1]))
    assert (metrics["ratio/mean"], metrics["ratio/max"]) == (math.inf, math.inf)
    assert metrics["ess"] == pytest.approx(0.25)
    assert metrics["kl/k1"] == pytest.approx(-200)


@pytest.mark.parametrize("nonfinite", [math.nan, math.inf, -math.inf])
def test_values_at_weight_0_are_ignored(nonfinite: float) -> None:
    weights = torch.tensor([0.0, 1.0])
    logp, logq, a = torch.tensor([nonfinite, -1.0]), torch.tensor([-1.0, -1.5]), torch.tensor([nonfinite, 1.0])
    assert all(math.isfinite(v) for v in ratio_metrics(logp, logq, weights).values())
    assert clip_metrics(logp, logq, a, weights)["clip_frac/high"] == 1


def test_infinite_and_zero_ratios() -> None:
    """The sampler gave the first of two tokens probability 0: that token has all the weight, so ess = 1 / 2."""
    metrics = ratio_metrics(torch.tensor([-1.0, -1.0]), torch.tensor([-math.inf, -1.0]))
    assert metrics["ess"] == 0.5
    assert (metrics["ratio/mean"], metrics["kl/k1"], metrics["kl/k2"], metrics["kl/k3"]) == (
        math.inf,
        -math.inf,
        math.inf,
        math.inf,
    )
    # The trainer gives the first token probability 0, so its ratio is 0: w = (0, 2), and ess = 1 / 2.
    zero = ratio_metrics(torch.tensor([-math.inf, -1.0]), torch.tensor([-1.0, -1.0]))
    assert (zero["ess"], zero["ratio/min"], zero["kl/k1"]) == (0.5, 0, math.inf)
    assert ratio_metrics(torch.full((2,), -math.inf), torch.tensor([-1.0, -2.0]))["ess"] == 1


def test_kl_base_metrics_by_hand() -> None:
    """Ratios b / p of 1/2 and 1: k1 = (ln 2) / 2, k2 = (ln 2)^2 / 4, k3 = (1/2 - 1 + ln 2) / 2."""
    logp = torch.tensor([-1.0, -2.0, -5.0])
    base = logp - torch.tensor([LN2, 0.0, 3.0])
    assert kl_base_metrics(logp, base, torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(
        {"kl_base/k1": LN2 / 2, "kl_base/k2": LN2**2 / 4, "kl_base/k3": (LN2 - 0.5) / 2}
    )


def test_mismatch_metrics_by_hand() -> None:
    logp = torch.tensor([-1.0, -2.0, -3.0])
    metrics = mismatch_metrics(logp, torch.tensor([-1.5, -1.9, 9.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert metrics == pytest.approx({"mismatch/mean": 0.3, "mismatch/max": 0.5}, rel=1e-6)


def test_log_ratios_by_sign() -> None:
    logp = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    signs = torch.tensor([1.0, -1.0, 0.0, 2.0, -1.0])
    rising, falling = log_ratios_by_sign(logp, torch.zeros(5), signs, torch.tensor([1.0, 1, 1, 1, 0]))
    assert rising.tolist() == pytest.approx([0.1, 0.4])
    assert falling.tolist() == pytest.approx([0.2])


def test_results_are_floats() -> None:
    metrics = ratio_metrics(torch.tensor([-1.0], requires_grad=True), torch.tensor([-1.0]))
    assert all(isinstance(v, float) for v in metrics.values())


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"shapes differ: \[\(1,\), \(2,\)\], expected one value per token"):
        ratio_metrics(torch.zeros(2), torch.zeros(1))
    with pytest.raises(DataError, match="shapes differ"):
        clip_metrics(torch.zeros(2), torch.zeros(2), torch.zeros(1))
    with pytest.raises(DataError, match="shapes differ"):
        ratio_metrics(torch.zeros(2), torch.zeros(2), torch.zeros(3))
    with pytest.raises(DataError, match="field 'weights': no token has a nonzero weight"):
        ratio_metrics(torch.zeros(2), torch.zeros(2), torch.zeros(2))
    with pytest.raises(DataError, match="no token has a nonzero weight"):
        ratio_metrics(torch.zeros(0), torch.zeros(0))
