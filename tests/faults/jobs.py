"""The runs that are killed: ``python -m tests.faults.jobs NAME FOLDER STEPS`` starts or continues one, to its end.

With ``SHADOW CALL`` a power cut is prepared, see :mod:`tests.faults.power_cut`; CALL is 0 for none.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import mint_lab as ml
from mint_lab.errors import RunError

from .power_cut import watch

__all__ = ["JOBS", "LOSS", "run_job"]

LOSS = """\
# %%loss noisy
import torch


def noisy(data, logprobs_list, beta=0.5):
    margins = torch.stack([lp.sum() for lp in logprobs_list])
    margins = beta * (margins[0::2] - margins[1::2]) + 0.01 * torch.randn(len(margins) // 2)
    return -torch.nn.functional.logsigmoid(margins).mean(), {"noise": float(torch.rand(()))}
"""
"""A loss of a cell that draws from torch's global generator."""

JOBS: dict[str, dict[str, Any]] = {
    "preference": {"recipe": "preference", "loss": "dpo", "batch_size": 4, "warmup_steps": 5, "schedule": "cosine"},
    "sft": {"recipe": "sft", "batch_size": 2, "accumulate": 2, "weight_decay": 0.1},
    "rl": {
        **{"recipe": "rl", "loss": "ppo", "batch_size": 3, "group_size": 4, "max_tokens": 4},
        **{"minibatches": 2, "updates_per_rollout": 2, "delay": 3, "kl_to_base": True},
    },
    "custom": {"recipe": "preference", "loss": "noisy", "batch_size": 4, "loss_config": {"beta": 0.7}},
}


def run_job(name: str, folder: Path, steps: int = 30) -> ml.Run:
    """Start or continue a run in ``folder``; return it when it is finished."""
    settings = dict(JOBS[name])
    if folder.exists():
        try:
            run = ml.Run.open(folder, run_source=True)
        except RunError as error:
            if "no snapshot" not in str(error) and "holds no run" not in str(error):
                raise
            shutil.rmtree(folder)  # killed before it had trained
            return run_job(name, folder, steps)
    else:
        if settings.get("loss") == "noisy":
            from mint_lab.cells.loss_cell import run_cell

            settings["loss"] = run_cell("noisy --no-preflight", LOSS.partition("\n")[2], {}).spec
        run = ml.Run(**settings, steps=steps, eval_every=4, folder=folder)
    import torch

    if not run.records:
        torch.manual_seed(0)
    if run.status != "finished":  # killed after its last snapshot
        run.start().wait()
    return run


def main() -> None:
    name, folder, steps, *cut = sys.argv[1:]
    if cut:
        watch(Path(folder).parent, Path(cut[0]), int(cut[1]) or None)
    run_job(name, Path(folder), int(steps))


if __name__ == "__main__":
    main()
