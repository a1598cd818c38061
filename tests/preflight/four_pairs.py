"""What the tests of preflight share: data, a loss, and the verdicts of a report."""

from __future__ import annotations

import numpy as np
import torch

from mint_lab.data.render import to_datum
from mint_lab.preflight import Report
from mint_lab.types import Datum


def four_pairs() -> list[Datum]:
    """Four pairs with prompts of three tokens, and the fields of losses on samples and of losses with a reference."""
    batch: list[Datum] = []
    for i in range(8):
        length = 7 + i % 3
        batch.append(
            to_datum(
                list(range(5, 5 + length)),
                3,
                logprobs=np.full(length - 1, -1.0, dtype=np.float32),
                advantages=np.linspace(-1, 1, length - 1, dtype=np.float32),
                reference_logprobs=np.full(length - 1, -2.0, dtype=np.float32),
                teacher_logprobs=np.full(length - 1, -1.5, dtype=np.float32),
            )
        )
    return batch


def weights(datum: Datum) -> torch.Tensor:
    return datum.loss_fn_inputs["weights"].to_torch()


def total(logprobs_list: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([lp.sum() for lp in logprobs_list]).sum()


def verdicts(report: Report) -> dict[str, str]:
    return {line.name: line.verdict for line in report.lines}


def warnings_of(report: Report) -> dict[str, str]:
    """Messages of the warnings of a report without a failure."""
    assert report.ok, report
    return {line.name: line.message for line in report.lines if line.verdict == "warn"}
