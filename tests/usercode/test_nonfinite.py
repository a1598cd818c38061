"""A loss that is not finite: the part of the batch and the line that cause it."""

from __future__ import annotations

import linecache
import math
from typing import Any

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.errors import LossError
from mint_lab.losses import LossSpec
from mint_lab.preflight import check
from mint_lab.usercode.guarded_loss import GuardedLoss
from mint_lab.usercode.locate import own_line
from mint_lab.usercode.nonfinite import first_operation, first_part

DATA = [to_datum([1, 2, 3, 4 + i], 1) for i in range(8)]
LOGPROBS = [torch.full((3,), -1.0 - i) for i in range(8)]


def margins(lps: Any) -> torch.Tensor:
    sums = torch.stack([lp.sum() for lp in lps])
    return sums[0::2] - sums[1::2]


def log_of_sigmoid(data: Any, lps: Any) -> Any:
    chances = margins(lps).sigmoid()
    return -torch.log(chances).mean(), {}


FAR = [*LOGPROBS[:4], torch.full((3,), -2000.0), *LOGPROBS[5:]]


def test_a_mean_over_pairs_is_no_loss_of_single_datums() -> None:
    """For one datum it is the mean of nothing, nan, which says nothing about the datum."""
    assert math.isnan(float(log_of_sigmoid(DATA[:1], FAR[:1])[0]))
    part = first_part(log_of_sigmoid, DATA, FAR, math.inf)
    assert part is not None
    assert (part.index, part.size, part.value) == (4, 2, math.inf)
    expected = "the pair of datums 4 and 5 alone gives inf (log-probabilities -2000 to -6 nats)"
    assert str(part) == expected


def test_a_part_has_to_explain_the_whole() -> None:
    def some(data: Any, lps: Any) -> Any:  # log(0), log(-3), 0 / 0 for datums 2, 3 and 5
        found = {2: "-inf", 3: "inf", 5: "nan"}
        return sum(float(found.get(int(-lp[0]) - 1, 0)) + lp.sum() for lp in lps), {}

    found = {whole: first_part(some, DATA, LOGPROBS, float(whole)) for whole in ("nan", "inf", "-inf")}
    assert {whole: part and part.index for whole, part in found.items()} == {"nan": 5, "inf": 3, "-inf": 2}
    only = first_part(some, DATA[2:4], LOGPROBS[2:4], math.nan)  # -inf + inf
    assert only is not None
    assert (only.index, only.value) == (0, -math.inf)


def test_parts_of_the_right_size() -> None:
    def single(data: Any, lps: Any) -> Any:
        return torch.stack([(lp + 3).log().sum() for lp in lps]).sum(), {}

    part = first_part(single, DATA[:3], LOGPROBS[:3], -math.inf)
    assert part is not None
    assert (part.index, part.size, part.value) == (2, 1, -math.inf)  # log(-3 + 3)
    assert str(part) == "datum 2 alone gives -inf (log-probabilities -3 to -3 nats)"

    def refuses_single(data: Any, lps: Any) -> Any:
        if len(data) % 2:
            raise ValueError
        return torch.stack(lps)[1::2].sum().add(12).log(), {}

    part = first_part(refuses_single, DATA, LOGPROBS, -math.inf)
    assert part is not None
    assert (part.index, part.size) == (2, 2)  # log(3 * -4 + 12)
    assert first_part(lambda d, lps: (torch.stack(lps).sum(), {}), DATA, LOGPROBS, math.nan) is None
    alone = first_part(lambda d, lps: (lps[0].sum() * math.nan, {}), DATA[:1], LOGPROBS[:1], math.nan)
    assert alone is not None
    assert (alone.index, alone.size) == (0, 1)


def masked(data: Any, lps: Any) -> Any:
    x = torch.stack([lp.sum() for lp in lps])
    x = x.masked_fill(x < 0, float("-inf"))
    return x.softmax(0).sum(), {}


def set_in_place(data: Any, lps: Any) -> Any:
    x = torch.stack([lp.sum() for lp in lps])
    x[2] = x[2] / 0
    return x.mean(), {}


def difference(data: Any, lps: Any) -> Any:
    high = torch.exp(-100 * lps[0].sum())
    return (high - torch.exp(-100 * lps[1].sum())) + lps[2].sum(), {}


def in_a_helper(data: Any, lps: Any) -> Any:
    return sum(root(lp.sum()) for lp in lps), {}


def root(x: Any) -> Any:
    return x.sqrt()


def unharmed(data: Any, lps: Any) -> Any:
    spare = torch.log(lps[0].sum() * 0)  # neither of the two is on the way to the loss
    bounded = (lps[2].sum() / 0).clamp(min=-5)
    return bounded / 0, {"spare": float(spare.detach())}


@pytest.mark.parametrize(
    ("fn", "message", "line"),
    [
        (log_of_sigmoid, "log makes the first inf", "return -torch.log(chances).mean(), {}"),
        (masked, "softmax makes the first nan", "return x.softmax(0).sum(), {}"),
        (set_in_place, "div makes the first inf", "x[2] = x[2] / 0"),
        (difference, "exp makes the first inf", "high = torch.exp(-100 * lps[0].sum())"),
        (in_a_helper, "sqrt makes the first nan", "return x.sqrt()"),
        (unharmed, "div makes the first inf", 'return bounded / 0, {"spare": float(spare.detach())}'),
    ],
)
def test_the_operation_that_made_it(fn: Any, message: str, line: str) -> None:
    error = first_operation(fn, DATA, FAR)
    assert error is not None
    assert str(error) == message
    frame = own_line(fn, error)
    assert frame is not None
    assert frame.filename == __file__
    assert frame.lineno is not None
    assert linecache.getline(__file__, frame.lineno).strip() == line


def test_no_operation_is_found_where_none_is() -> None:
    assert first_operation(lambda d, lps: (lps[0].sum(), {}), DATA, LOGPROBS) is None
    assert first_operation(lambda d, lps: (torch.tensor(math.nan), {}), DATA, LOGPROBS) is None  # Python's nan


def test_a_run_and_preflight_say_both() -> None:
    with pytest.raises(LossError) as caught:
        GuardedLoss(LossSpec("mine", "custom", log_of_sigmoid), log_of_sigmoid)(
            DATA, [lp.clone().requires_grad_() for lp in FAR]
        )
    assert caught.value.index == 4
    assert str(caught.value) == (
        "the loss is inf: the pair of datums 4 and 5 alone gives inf "
        "(log-probabilities -2000 to -6 nats); log makes the first inf; "
        "look for log(0), exp of something large, or a division by 0"
    )
    assert isinstance(caught.value.__cause__, FloatingPointError)
    report = check(log_of_sigmoid, DATA, FAR)
    (line,) = [x for x in report.lines if x.verdict == "fail"]
    assert line.message == "is inf: the pair of datums 4 and 5 alone gives inf (log-probabilities -2000 to -6 nats)"
    assert "log makes the first inf, at line " in line.fix
    assert "return -torch.log(chances).mean(), {}" in line.fix
