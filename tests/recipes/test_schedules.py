"""Schedules of the learning rate against those of transformers, and by hand."""

from __future__ import annotations

import pytest
import torch

from mint_lab.losses import LOSSES
from mint_lab.recipes.plan import StepPlan
from mint_lab.recipes.record import Edit


def plan() -> StepPlan:
    return StepPlan(LOSSES["dpo"], LOSSES["dpo"].config(), 1e-3, 32, 100)


def rates_of(name: str, warmup: int, steps: int) -> list[float]:
    """The rates that the scheduler of transformers has after 1 to ``steps`` steps, for a rate of 1."""
    import transformers

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    of_steps = {} if name == "constant" else {"num_training_steps": steps}
    scheduler = getattr(transformers, f"get_{name}_schedule_with_warmup")(
        optimizer, num_warmup_steps=warmup, **of_steps
    )
    rates = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (1, 7), (3, 10), (6, 7), (7, 7), (9, 7)])
def test_schedules_are_those_of_transformers(name: str, warmup: int, steps: int) -> None:
    changed = plan().with_settings({"learning_rate": 1.0, "steps": steps, "warmup_steps": warmup, "schedule": name})
    rates = [changed.adam(number).learning_rate for number in range(1, steps + 1)]
    assert rates == pytest.approx(rates_of(name, warmup, steps), abs=1e-12)


def test_a_schedule_by_hand() -> None:
    """Linear, 2 of 6 steps warm-up: 1/2, 1, then 3/4, 2/4, 1/4, 0. An edit of steps stretches what remains."""
    falling = plan().with_settings({"learning_rate": 1.0, "steps": 6, "warmup_steps": 2, "schedule": "linear"})
    assert [falling.adam(n).learning_rate for n in range(1, 7)] == [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert falling.with_settings({"steps": 10}).adam(6).learning_rate == 0.5
    cosine = falling.with_settings({"schedule": "cosine"})
    assert cosine.adam(4).learning_rate == pytest.approx(0.5)  # half of the way: (1 + cos(pi / 2)) / 2
    assert falling.edits_since(cosine, 3) == [Edit(3, "setting", "schedule linear")]
