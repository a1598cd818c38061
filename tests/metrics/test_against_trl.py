"""Our metrics equal those that TRL's trainer logs when its loss code runs on the same tensors.

``GRPOTrainer._compute_loss`` is TRL's, unchanged; the object it runs on is a stand-in that hands it per-token
log-probabilities instead of running a model.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.data.advantages import ADVANTAGES, group_advantages
from mint_lab.metrics import clip_metrics, kl_base_metrics, ratio_metrics, reward_metrics

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
trl = pytest.importorskip("trl", reason="TRL is not installed")

ROWS, TOKENS = 6, 7


def logged_by_trl(logp: Any, logq: Any, base: Any, advantages: Any, mask: Any) -> dict[str, float]:
    """What GRPOTrainer logs for these tensors, ``(rows, tokens)``, advantages ``(rows,)``."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logp, -logq, None),
        _metrics={"train": defaultdict(list)},
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(reduce=lambda t, reduction: t, gather=lambda t: t, num_processes=1),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
        aux_loss_enabled=False,
        beta=0.04,
        current_gradient_accumulation_steps=1,
        epsilon_high=0.2,
        epsilon_low=0.2,
        importance_sampling_level="token",
        loss_type="bnpo",
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones(ROWS, 1),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": logq,
        "ref_per_token_logps": base,
    }
    GRPOTrainer._compute_loss(stand_in, None, inputs)
    return {name: values[-1] for name, values in stand_in._metrics["train"].items()}


@pytest.mark.parametrize("seed", range(5))
def test_clip_fractions_divergence_and_entropy(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logq = -torch.rand(ROWS, TOKENS, generator=g, dtype=torch.float64) * 3
    logp, base = (logq + 0.4 * torch.randn(ROWS, TOKENS, generator=g, dtype=torch.float64) for _ in range(2))
    advantages = torch.randn(ROWS, generator=g, dtype=torch.float64)
    mask = (torch.rand(ROWS, TOKENS, generator=g) < 0.7).double()
    mask[:, 0] = 1
    theirs = logged_by_trl(logp, logq, base, advantages, mask)
    flat = [x.flatten() for x in (logp, logq, advantages[:, None].expand(-1, TOKENS), mask)]
    ours = clip_metrics(flat[0], flat[1], flat[2], flat[3])
    assert ours["clip_frac/low"] == pytest.approx(theirs["clip_ratio/low_mean"], rel=1e-6)
    assert ours["clip_frac/high"] == pytest.approx(theirs["clip_ratio/high_mean"], rel=1e-6)
    assert ours["clip_frac/low"] + ours["clip_frac/high"] == pytest.approx(theirs["clip_ratio/region_mean"], rel=1e-6)
    assert 0 < ours["clip_frac/low"] < ours["out_of_range_frac"], (
        "both shares are positive, so the comparison is not trivial"
    )
    divergence = kl_base_metrics(flat[0], base.flatten(), flat[3])
    assert divergence["kl_base/k3"] == pytest.approx(theirs["kl"], rel=1e-9)
    # TRL logs the mean of the exact entropy; the stand-in returns -log q in its place, whose mean is our estimate.
    assert ratio_metrics(flat[0], flat[1], flat[3])["entropy_est"] == pytest.approx(theirs["entropy"], rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_rewards_and_advantages(seed: int) -> None:
    """TRL computes these inside its sampling code, so its formulas are repeated here; ``nanstd`` is TRL's."""
    from trl.trainer.utils import nanstd

    rewards = torch.randint(0, 3, (8, 4), generator=torch.Generator().manual_seed(seed)).double()
    rewards[0] = 1.0
    within = rewards.std(dim=1)
    assert reward_metrics(rewards.tolist()) == pytest.approx(
        {
            "reward": float(torch.nanmean(rewards)),
            "reward_std": float(nanstd(rewards.flatten())),
            "group_std": float(within.mean()),
            "frac_reward_zero_std": float(torch.isclose(within, torch.zeros(8).double()).double().mean()),
        },
        rel=1e-6,
    )
    centred = rewards - rewards.mean(1, keepdim=True)
    expected = {"centred": centred, "normalised": centred / (within[:, None] + 1e-4), "leave_one_out": 4 / 3 * centred}
    for kind in ADVANTAGES:
        advantages = [group_advantages(row, kind) for row in rewards.tolist()]
        torch.testing.assert_close(torch.tensor(advantages).double(), expected[kind], rtol=1e-6, atol=1e-9)
