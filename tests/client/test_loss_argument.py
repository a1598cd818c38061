"""From ``loss_fn`` to the engine's objective; every wrong argument is in ``test_bad_input.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.client.loss_argument import builtin_objective, custom_objective
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.usercode.guarded_loss import GuardedLoss


def test_builtin_gets_its_checked_settings() -> None:
    objective = builtin_objective("ppo", {"clip_high_threshold": 1.3})
    assert objective.spec is LOSSES["ppo"]
    assert objective.config == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.3}
    with pytest.raises(ConfigError, match="unknown setting 'clip'"):
        builtin_objective("ppo", {"clip": 1.3})


def test_reduction_is_read_from_bound_and_guarded_losses() -> None:
    """A plain function says nothing, so a split batch must assume that its datums are coupled."""
    spec = LOSSES["pairwise_preference"]
    bound = spec.bind({"beta": 0.5})
    assert spec.reduction == "mean"
    assert custom_objective(bound).reduction == "mean"
    assert custom_objective(GuardedLoss(spec, bound)).reduction == "mean"
    assert custom_objective(LOSSES["ppo"].bind()).reduction == "sum"

    def plain(data: Any, logprobs_list: list[torch.Tensor]) -> Any:
        return torch.cat(logprobs_list).sum(), {}

    objective = custom_objective(plain)
    assert (objective.fn, objective.reduction) == (plain, "coupled")
