"""Each threshold of preflight just below, at and just above its edge, and each message word for word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.errors import ConfigError
from mint_lab.preflight import check, preflight
from mint_lab.preflight.checks import (
    _places,
    check_memory,
    check_numerical_gradient,
    check_repeatable,
    check_weights,
    find_reduction,
    is_close,
)
from mint_lab.preflight.probe import LossProbe
from mint_lab.preflight.report import Report, ReportLine
from mint_lab.preflight.run_checks import _check_output, _gradient_line, _loss_line, _metrics_line
from mint_lab.types import Datum

from .four_pairs import total

DATA = [to_datum([1, 2, 3, 4], 2), to_datum([5, 6, 7, 8], 3)]  # weights 0 1 1 and 0 0 1


def probe_of(fn: Any, data: list[Datum] | None = None, value: float = -1.0) -> LossProbe:
    data = data or DATA
    return LossProbe(fn, data, [torch.full((d.model_input.length,), value) for d in data], 60.0)


def line_of(checked: Any, fn: Any, data: list[Datum] | None = None) -> ReportLine:
    lines: list[ReportLine] = []
    checked(probe_of(fn, data), lines)
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ("a", "b", "close"),
    [
        (0.0, 1e-5, True),
        (0.0, 1.001e-5, False),
        (1e-5, 0.0, True),
        (0.0, -1.001e-5, False),
        (2e5, 2e5 + 2.0, True),  # relative to the larger of the two
        (2e5, 2e5 + 2.001, False),
        (-2e5 - 2.0, -2e5, True),
        (2e5, -2e5, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_two_values_are_close_within_a_hundred_thousandth(a: float, b: float, close: bool) -> None:
    assert is_close(a, b) == close


def values(*numbers: float) -> Any:
    """A loss that returns these numbers in turn."""
    turns = iter(numbers)
    return lambda d, lps: (torch.tensor(next(turns), dtype=torch.float64), {})


RANDOM = ReportLine(
    "repeatable",
    "warn",
    "random: the value changes from call to call",
    "draw no random numbers, unless that is the point",
)
STATEFUL = ReportLine(
    "repeatable",
    "warn",
    "stateful: the value changes from call to call, with the same random numbers too",
    "keep nothing between calls, no counters and no lists; what changes on a schedule is a setting, run.set(...)",
)


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((0.0, 0.0, 1e-6), ReportLine("repeatable", "ok", "the same value when called again")),
        ((0.0, 0.0, 1.01e-6, 5.0, 5.0, 5.0), RANDOM),
        ((0.0, -1.01e-6, 0.0, 5.0, 5.0, 5.0), RANDOM),
        ((-4.0, -4.0, -4.000004), ReportLine("repeatable", "ok", "the same value when called again")),
        ((-4.0, -4.0, -4.0000041, 5.0, 5.0, 5.0), RANDOM),
        ((1.0, 2.0, 3.0, 5.0, 5.0, 5.1), STATEFUL),
    ],
)
def test_three_calls_give_the_same_value_within_a_millionth(numbers: tuple[float, ...], line: ReportLine) -> None:
    assert line_of(check_repeatable, values(*numbers)) == line


def test_only_a_stateful_loss_ends_the_checks() -> None:
    assert check_repeatable(probe_of(values(1.0, 1.0, 1.0)), [])
    assert check_repeatable(probe_of(values(1.0, 1.0, 2.0, 3.0, 3.0, 3.0)), [])
    assert not check_repeatable(probe_of(values(1.0, 1.0, 2.0, 3.0, 3.0, 4.0)), [])


@pytest.mark.parametrize("count", [1, 2])
def test_kept_tensors_are_counted(count: int) -> None:
    kept: list[Any] = []

    def keeps(d: Any, lps: Any) -> Any:
        kept[:] = lps[:count]
        return total(lps), {}

    assert line_of(check_memory, keeps) == ReportLine(
        "memory",
        "warn",
        f"keeps {count} tensors of the last call alive",
        "did you append to a list outside? Append float(x.detach()), without the graph behind it",
    )


def test_weights_are_tried_by_a_shift_of_each_datum_and_by_three_more_positions() -> None:
    """Positions of weight 0 move by 1 nat in datum 0 and by 1.3 in datum 1."""
    seen: list[list[list[float]]] = []
    fields: list[list[list[float]]] = []

    def records(d: Any, lps: Any) -> Any:
        seen.append([lp.tolist() for lp in lps])
        fields.append([x.loss_fn_inputs["weights"].to_numpy().tolist() for x in d])
        return total([lp * x.loss_fn_inputs["weights"].to_torch() for x, lp in zip(d, lps, strict=True)]), {}

    data = [*DATA, to_datum([1, 2, 3, 4, 5], 1)]  # the longest one has no position of weight 0
    line = line_of(check_weights, records, data)
    assert (line.verdict, line.message, line.fix) == ("ok", "3 positions of weight 0 do not matter", "")
    level, shifted, longer = seen
    assert level == [[-1.0] * 3, [-1.0] * 3, [-1.0] * 4]
    assert shifted[0] == [-2.0, -1.0, -1.0]
    assert shifted[1] == pytest.approx([-2.3, -2.3, -1.0])
    assert shifted[2] == [-1.0] * 4
    assert longer == [*level[:2], [-1.0] * 7]
    assert fields[2] == [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]


def test_longer_datum_repeats_its_last_token() -> None:
    tokens: list[list[int]] = []

    def records(d: Any, lps: Any) -> Any:
        tokens.append(list(d[0].model_input.to_ints()))
        return 0 * total(lps), {}

    line = line_of(check_weights, records, DATA[:1])
    assert (line.verdict, line.message) == ("ok", "1 position of weight 0 do not matter")
    assert tokens == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 3, 3, 3]]


@pytest.mark.parametrize(
    ("fn", "message", "fix"),
    [
        (
            lambda d, lps: (total(lps), {}),
            "log-probabilities of weight 0 (the prompt) change the loss",
            'multiply by datum.loss_fn_inputs["weights"].to_torch(), unless the prompt is meant to count',
        ),
        (
            lambda d, lps: (torch.tensor(float(len(lps[1]))), {}),
            "3 more positions of weight 0 at datum 1 change the loss",
            "divide by the sum of the weights; a mean over a padded tensor divides by the longest sequence",
        ),
    ],
)
def test_weights_that_are_ignored(fn: Any, message: str, fix: str) -> None:
    data = [DATA[0], to_datum([5, 6, 7, 8, 9], 3)]
    assert line_of(check_weights, fn, data) == ReportLine("weights", "warn", message, fix)


def test_without_a_weight_of_0_there_is_nothing_to_try() -> None:
    line = line_of(check_weights, lambda d, lps: (total(lps), {}), [to_datum([1, 2, 3], 1)])
    assert line == ReportLine("weights", "info", "no position of weight 0 to try")


@pytest.mark.parametrize(
    ("detached", "single", "verdict"),
    [
        (0.9e-4, False, "ok"),
        (1.1e-4, False, "warn"),
        (0.019, True, "ok"),
        (0.022, True, "warn"),
        (-0.022, True, "warn"),
    ],
)
def test_slope_may_differ_by_the_tolerance_of_the_precision(detached: float, single: bool, verdict: str) -> None:
    """The slope is ``1 + detached``, of which autograd gives 1."""

    def fn(d: Any, lps: Any) -> Any:
        value = total(lps) + detached * total(lps).detach()
        return (value.float() if single else value), {}

    line = line_of(check_numerical_gradient, fn)
    assert (line.name, line.verdict) == ("numerical gradient", verdict)


def test_numerical_gradient_names_datum_position_and_both_slopes() -> None:
    """The loss is 3 x, with 2 x of it detached, at position 1 of datum 1; x elsewhere."""

    def fn(d: Any, lps: Any) -> Any:
        return total(lps) * 0.5 + 2 * lps[1][1] + 2 * lps[1][1].detach(), {}

    assert line_of(check_numerical_gradient, fn) == ReportLine(
        "numerical gradient",
        "warn",
        "datum 1, position 1: 2.5 by autograd, 4.5 by differences",
        "is a part detached on purpose? Otherwise look for detach(), .item(), .data, no_grad and rounding",
    )
    line = line_of(check_numerical_gradient, lambda d, lps: (total(lps), {}), [to_datum([1, 2], 1)])
    assert line == ReportLine("numerical gradient", "ok", "agrees with autograd at 1 positions")


def test_places_are_the_five_largest_gradients_and_three_drawn_ones_of_the_later_halves() -> None:
    gradient = [torch.zeros(6) for _ in range(8)]
    for index, size in enumerate([3.0, -8.0, 1.0, 5.0, -2.0, 7.0, 4.0]):
        gradient[index][index % 2] = size
    places = _places(gradient)
    assert places[:5] == [(1, 1), (5, 1), (3, 1), (6, 0), (0, 0)]
    assert len(places) == 8
    assert all(3 <= position < 6 for _, position in places[5:])


@pytest.mark.parametrize(
    ("fn", "reduction", "unit", "message"),
    [
        (total, "sum", "datum", "the value is the sum over its datums"),
        (
            lambda lps: total(lps) / len(lps),
            "mean",
            "datum",
            "the value is the mean over its datums, so it does not grow with the batch",
        ),
        (
            lambda lps: sum(a.sum() * b.sum() for a, b in zip(lps[::2], lps[1::2], strict=True)),
            "sum",
            "pair",
            "the value is the sum over its pairs",
        ),
        (
            lambda lps: sum(a.sum() * b.sum() for a, b in zip(lps[::2], lps[1::2], strict=True)) / (len(lps) / 2),
            "mean",
            "pair",
            "the value is the mean over its pairs, so it does not grow with the batch",
        ),
        (lambda lps: total(lps) ** 2, "coupled", "", "coupled: the value needs the whole batch at once"),
    ],
)
def test_reduction_in_words(fn: Any, reduction: str, unit: str, message: str) -> None:
    lines: list[ReportLine] = []
    probe = probe_of(lambda d, lps: (fn(lps), {}), [*DATA, to_datum([9, 8, 7], 1), to_datum([9, 9, 9], 1)])
    assert find_reduction(probe, lines) == (reduction, unit)
    assert lines == [ReportLine("batch split", "info", message)]


@pytest.mark.parametrize(
    ("count", "verdict", "text"),
    [
        (0, None, ""),
        (1, "info", "1 line printed in one call"),
        (2, "info", "2 lines printed in one call"),
        (50, "info", "50 lines printed in one call"),
        (51, "warn", "51 lines printed in one call"),
        (10_000, "warn", "10,000 lines printed in one call"),
        (10_001, "fail", "10,001 lines printed in one call"),
    ],
)
def test_lines_that_a_loss_prints(count: int, verdict: str | None, text: str) -> None:
    lines: list[ReportLine] = []
    probe: Any = SimpleNamespace(printed=SimpleNamespace(lines=count))
    try:
        _check_output(probe, lines)
    except Exception as failure:
        lines.append(failure.line)  # type: ignore[attr-defined]
    fix = {
        "fail": "print less: that takes longer than the model",
        "warn": "print less; a run shows the first lines of each call and drops the rest",
    }.get(str(verdict), "")
    assert lines == ([] if verdict is None else [ReportLine("output", verdict, text, fix)])  # type: ignore[arg-type]


def test_line_of_the_loss() -> None:
    assert _loss_line(torch.tensor(1.23456)) == ReportLine("loss", "ok", "a finite scalar, 1.235")
    fix = "logprobs_list are float32; look for .double(), .half(), or a numpy number in the sum"
    expected = ReportLine("loss", "warn", "is torch.float64, 1.235", fix)
    assert _loss_line(torch.tensor(1.23456, dtype=torch.float64)) == expected


@pytest.mark.parametrize(
    ("metrics", "verdict", "message", "fix"),
    [
        ({}, "ok", "none", ""),
        ({"a": 1.0, "b": 2.0}, "ok", "a, b", ""),
        (
            {"a": 1.0, "b": 2, "c": True},
            "warn",
            "'b' is a int",
            "write float(x), or float(x.detach()) for a tensor",
        ),
        (
            {"a": 1, "b": float("nan"), "c": float("-inf"), "d": 1.0},
            "warn",
            "'c' is -inf",
            "charts leave it out; look for a mean of nothing or a division by 0",
        ),
    ],
)
def test_line_of_the_metrics(metrics: dict[str, Any], verdict: Any, message: str, fix: str) -> None:
    assert _metrics_line(metrics) == ReportLine("metrics", verdict, message, fix)


def test_line_of_the_gradient() -> None:
    some, none, empty = torch.tensor([0.0, 1.0]), torch.zeros(2), torch.zeros(0)
    assert _gradient_line([some, empty]) == ReportLine("gradient", "ok", "finite, reaches every datum (2)")
    fix = "is that meant? Clamps, relu and rounding give no gradient where they are flat"
    expected = ReportLine("gradient", "warn", "exactly 0 at datum 1, 3 of 4", fix)
    assert _gradient_line([some, none, empty, none]) == expected


def test_refused_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^the loss is 3, expected a name, a LossSpec or a function \(data, "):
        preflight(3, DATA)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^data\[1\] is a str, expected a Datum; pairs_to_data\(pairs, client.get_"):
        preflight(lambda d, lps: (total(lps), {}), [DATA[0], "x", "y"])  # type: ignore[list-item]
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=rf"^limit is {limit!r}, expected seconds above 0$"):
            preflight(lambda d, lps: (total(lps), {}), DATA, limit=limit)
    with pytest.raises(
        ConfigError, match=r"^log-probabilities of shapes \[\(3,\), \(2,\)\], expected \[\(3,\), \(3,\)"
    ):
        check(lambda d, lps: (total(lps), {}), DATA, [torch.zeros(3), torch.zeros(2)])
    with pytest.raises(ConfigError, match=r"expected \[\(3,\), \(3,\)\] as the data$"):
        check(lambda d, lps: (total(lps), {}), DATA, [torch.zeros(3)])


def test_error_when_called_again_says_so_with_its_line() -> None:
    calls: list[int] = []

    def fails(d: Any, lps: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("a planted bug")
        return total(lps), {}

    report = preflight(fails, DATA)
    line = report.lines[-1]
    number = fails.__code__.co_firstlineno + 3
    assert (line.name, line.verdict, line.message, line.fix) == (
        "returns",
        "fail",
        "when called again: ValueError: a planted bug",
        f'look at line {number}: raise ValueError("a planted bug")',
    )


@pytest.mark.parametrize("count", [10, 11])
def test_report_shows_ten_printed_lines(count: int) -> None:
    report = Report((), printed="".join(f"{k}\n" for k in range(count)))
    expected = ["preflight: ok", *(f"  | {k}" for k in range(10)), *(["  | ..."] if count > 10 else [])]
    assert repr(report).splitlines() == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.99999, "999.99 ms"), (1.0, "1.00 s"), (1e-6, "0.00 ms"), (12.345, "12.35 s")]
)
def test_cost_changes_its_unit_at_one_second(seconds: float, text: str) -> None:
    assert Report((), seconds=seconds).cost == f"A call took {text}."
