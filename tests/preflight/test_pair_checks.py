"""Which side of a pair a loss prefers, also if it couples the batch; and the margins of long completions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mint_lab.data.render import to_datum
from mint_lab.losses import LOSSES
from mint_lab.preflight import preflight
from mint_lab.preflight.pair_checks import SMALL_SLOPE, _misplaced, _pushes_up
from mint_lab.preflight.report import ReportLine
from mint_lab.types import Datum

from .four_pairs import four_pairs, verdicts


def pairs(count: int, longest: int) -> list[Datum]:
    """Pairs of random lengths with random fields, so that nothing is level by chance."""
    rng = np.random.default_rng(count)
    data: list[Datum] = []
    for length in rng.integers(6, longest, size=2 * count).tolist():
        fields = {
            name: -rng.gamma(1.5, 1.0, length - 1).astype(np.float32)
            for name in ("logprobs", "reference_logprobs", "teacher_logprobs")
        }
        fields["advantages"] = np.full(length - 1, rng.normal(), np.float32)
        data.append(to_datum(rng.integers(50, size=length).tolist(), 3, **fields))
    return data


DATA = {"few": pairs(3, 12), "even": pairs(4, 12), "long": pairs(5, 250)}


def weights(datum: Datum) -> torch.Tensor:
    return datum.loss_fn_inputs["weights"].to_torch()


def sums(data: Any, lps: Any) -> torch.Tensor:
    return torch.stack([(weights(d) * lp).sum() for d, lp in zip(data, lps, strict=True)])


def means(data: Any, lps: Any) -> torch.Tensor:
    return sums(data, lps) / torch.stack([weights(d).sum() for d in data])


def halves_of_sums(d: Any, lps: Any) -> Any:
    s = sums(d, lps)
    return -F.logsigmoid(s[: len(s) // 2] - s[len(s) // 2 :]).mean(), {}


def halves_of_means(d: Any, lps: Any) -> Any:
    s = means(d, lps)
    return -F.logsigmoid(2 * (s[: len(s) // 2] - s[len(s) // 2 :])).mean(), {}


def halves_with_a_reference(d: Any, lps: Any) -> Any:
    s = sums(d, lps) - sums(d, [x.loss_fn_inputs["reference_logprobs"].to_torch() for x in d])
    return -F.logsigmoid(0.1 * (s[: len(s) // 2] - s[len(s) // 2 :])).mean(), {}


def line_of(fn: Any, data: list[Datum], name: str) -> ReportLine | None:
    report = preflight(fn, data)
    assert report.ok, report
    return next((line for line in report.lines if line.name == name), None)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("fn", [halves_of_sums, halves_of_means, halves_with_a_reference])
def test_halves_are_no_pairs(fn: Any, data: list[Datum]) -> None:
    line = line_of(fn, data, "pairs")
    assert line is not None
    half = len(data) // 2  # what such a loss takes as chosen
    wrong = [f"raising data[{i}] (rejected) lowers the loss" for i in range(1, half, 2)]
    wrong += [f"raising data[{i}] (chosen) raises the loss" for i in range(half + half % 2, len(data), 2)]
    assert line.verdict == "warn"
    assert line.message in wrong
    assert line.fix.startswith("pairs are interleaved (chosen, rejected, chosen, ...), not halves")


def margin(d: Any, lps: Any) -> torch.Tensor:
    s = sums(d, lps)
    return s[0::2] - s[1::2]


def tokens(data: Any) -> Any:
    return sum(weights(d).sum() for d in data)


def hardest(d: Any, lps: Any) -> Any:
    m = margin(d, lps)
    return -F.logsigmoid(m.topk(max(1, len(m) // 2), largest=False).values).mean(), {}


def standardized(d: Any, lps: Any) -> Any:
    m = margin(d, lps)
    return -F.logsigmoid(m / (m.std() + 1e-6)).mean(), {}


def sorted_sides(d: Any, lps: Any) -> Any:
    """AOT: the sides' distributions, not their pairs."""
    s = sums(d, lps)
    return -F.logsigmoid(s[0::2].sort().values - s[1::2].sort().values).mean(), {}


def against_all_rejected(d: Any, lps: Any) -> Any:
    s = means(d, lps)
    others = torch.logsumexp(torch.cat([s[0::2, None], s[1::2].expand(len(s) // 2, -1)], 1), 1)
    return (others - s[0::2]).mean(), {}


def perceptron(d: Any, lps: Any) -> Any:
    lost = F.relu(-margin(d, lps))
    return lost.sum() / (1 + (lost.detach() > 0).sum()), {}


def by_tokens_with_nll(d: Any, lps: Any) -> Any:
    return -F.logsigmoid(margin(d, lps)).sum() / tokens(d) - sums(d, lps)[0::2].sum() / tokens(d[0::2]), {}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize(
    "fn", [hardest, standardized, sorted_sides, against_all_rejected, perceptron, by_tokens_with_nll]
)
def test_losses_that_couple_pairs_are_right(fn: Any, data: list[Datum]) -> None:
    line = line_of(fn, data, "pairs")
    assert line is not None
    assert line.verdict == "ok"


def nll_by_tokens(d: Any, lps: Any) -> Any:
    return -sums(d, lps).sum() / tokens(d), {}


def nll_by_place(d: Any, lps: Any) -> Any:
    return -(torch.arange(1.0, 1 + len(d)) * sums(d, lps)).mean(), {}


def whitened(d: Any, lps: Any) -> Any:
    a = torch.stack([x.loss_fn_inputs["advantages"].to_torch().mean() for x in d])
    return -((a - a.mean()) / a.std() * means(d, lps)).mean(), {}


@pytest.mark.parametrize("fn", [nll_by_tokens, nll_by_place, whitened])
def test_coupled_losses_that_are_not_on_pairs_have_no_such_line(fn: Any) -> None:
    for data in DATA.values():
        assert line_of(fn, data, "pairs") is None


def test_a_coupled_loss_with_its_sides_swapped_is_said_to_be() -> None:
    def swapped(d: Any, lps: Any) -> Any:
        return -F.logsigmoid(-margin(d, lps)).sum() / tokens(d), {}

    for data in DATA.values():
        line = line_of(swapped, data, "pairs")
        assert line is not None
        assert line.message.startswith("the pairs look swapped")


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_the_losses_that_ship_have_no_such_warning(name: str, data: list[Datum]) -> None:
    report = preflight(LOSSES[name].bind(), data)
    assert not [x for x in report.lines if x.name in ("pairs", "large margins") and x.verdict != "ok"], report
    assert any(x.name == "pairs" for x in report.lines) == (LOSSES[name].unit == "pair")


def log_of_sigmoid(d: Any, lps: Any) -> Any:
    return -(0.3 * margin(d, lps)).sigmoid().log().mean(), {}


def ratio_of_exponentials(d: Any, lps: Any) -> Any:
    return torch.log(1 + torch.exp(-0.3 * margin(d, lps))).mean(), {}


@pytest.mark.parametrize("fn", [log_of_sigmoid, ratio_of_exponentials])
def test_large_margins(fn: Any) -> None:
    line = line_of(fn, DATA["few"], "large margins")
    assert line is not None
    assert line.message == "with chosen 1000 nats further behind, the loss is inf; long completions get there"
    assert "logsigmoid" in line.fix
    stable = lambda d, lps: (-F.logsigmoid(0.3 * margin(d, lps)).mean(), {})  # noqa: E731
    assert line_of(stable, DATA["few"], "large margins") is None


def test_large_margins_whose_gradient_alone_is_not_finite() -> None:
    def root(d: Any, lps: Any) -> Any:  # exp(-1000) is 0, where the slope of the root is infinite
        return torch.sqrt(torch.exp(-margin(d, lps))).clamp(max=1e3).mean(), {}

    line = line_of(root, DATA["few"], "large margins")
    assert line is not None
    assert "its gradient is" in line.message


def test_only_losses_on_pairs_have_the_line() -> None:
    for name in LOSSES:
        found = verdicts(preflight(LOSSES[name].bind(), four_pairs()))
        assert found.get("pairs") == ("ok" if LOSSES[name].unit == "pair" else None)


def test_a_loss_that_wants_a_margin_of_a_certain_size_is_not_swapped() -> None:
    """IPO: neither more nor less than the target, relative to a reference."""

    def ipo(d: Any, lps: Any, tau: float = 0.5) -> Any:
        if len(d) % 2:
            raise ValueError("pairs")
        base = [x.loss_fn_inputs["reference_logprobs"].to_torch() for x in d]
        scores = torch.stack([(weights(x) * (lp - b)).sum() for x, lp, b in zip(d, lps, base, strict=True)])
        return ((scores[0::2] - scores[1::2] - 1 / (2 * tau)) ** 2).mean(), {}

    reference = [
        to_datum(
            [*x.model_input.to_ints(), 1],
            3,
            reference_logprobs=x.loss_fn_inputs["logprobs"].to_numpy() * (1 + i),
        )
        for i, x in enumerate(four_pairs())
    ]
    assert verdicts(preflight(ipo, reference))["pairs"] == "ok"
    assert verdicts(preflight(lambda d, lps: ipo(d, lps, -0.5), reference))["pairs"] == "warn"


ABOVE = math.nextafter(SMALL_SLOPE, 1)


@pytest.mark.parametrize(
    ("slopes", "index"),
    [
        ({0: (-1.0, 1.0), 2: (-1.0, 1.0)}, None),  # as it should be: raising chosen lowers the loss
        ({0: (1.0, -1.0), 2: (1.0, -1.0)}, None),  # all are swapped, which is another message
        ({0: (-1.0, 1.0), 2: (1.0, -1.0)}, 2),
        ({0: (-1.0, 1.0), 2: (ABOVE, 0.0)}, 2),
        ({0: (-1.0, 1.0), 2: (SMALL_SLOPE, 0.0)}, None),  # too small to count
        ({0: (-1.0, 1.0), 2: (0.0, -ABOVE)}, 3),
        ({0: (-1.0, 1.0), 2: (0.0, -SMALL_SLOPE)}, None),
        # Both sides rise; chosen falls more than rejected by just the limit, and then by less.
        ({0: (-1.0, 1.0), 2: (0.5 - SMALL_SLOPE, 0.5)}, None),
        ({0: (-1.0, 1.0), 2: (0.5, 0.5)}, 2),
        ({}, None),
    ],
)
def test_the_limit_of_a_slope(slopes: dict[int, tuple[float, float]], index: int | None) -> None:
    assert _misplaced(slopes) == index


def test_a_loss_pushes_up_from_the_limit_on() -> None:
    assert _pushes_up({0: (0.0, 0.0), 2: (0.0, ABOVE)})
    assert not _pushes_up({0: (-1.0, SMALL_SLOPE), 2: (0.0, -1.0)})
    assert not _pushes_up({})
