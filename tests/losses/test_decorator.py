"""A function becomes a loss: its name, its settings, its refusals."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses import dpo as reference
from mint_lab.losses.decorator import Range, loss, params_of, spec_of
from mint_lab.losses.preference import sequence_scores


def test_the_decorator_registers_and_returns_the_function() -> None:
    @loss
    def mine(data: Any, logprobs_list: Any, beta: Annotated[float, Range(0, 1)] = 0.25, gamma: float = -2.0) -> Any:
        """One line.

        And another.
        """
        return None

    spec = LOSSES["mine"]
    assert spec.fn is mine
    assert (spec.family, spec.summary, spec.version) == ("custom", "One line.", 1)
    assert "def mine" in spec.source
    beta, gamma = spec.params
    assert (beta.name, beta.default, beta.low, beta.high, beta.minimum) == ("beta", 0.25, 0, 1, 0)
    assert (gamma.low, gamma.high, gamma.minimum) == (-20.0, 20.0, -math.inf)
    loss(mine)
    assert LOSSES["mine"].version == 2


def test_mathematics_in_a_docstring_is_the_formula_and_no_part_of_the_summary() -> None:
    def mine(data: Any, logprobs_list: Any) -> Any:
        r"""DPO, :math:`-\frac1n\sum \log\sigma(d)`
        with :math:`d` the difference.

        And :math:`more`.
        """

    spec = spec_of(mine)
    assert spec.formula == r"-\frac1n\sum \log\sigma(d)"
    assert spec.summary == "DPO with the difference."


def test_the_decorator_takes_name_formula_and_summary() -> None:
    loss(name="other", formula="x^2", summary="A square.")(lambda data, logprobs_list: None)
    assert (LOSSES["other"].formula, LOSSES["other"].summary) == ("x^2", "A square.")


def test_names() -> None:
    def fn(data: Any, logprobs_list: Any) -> Any: ...

    assert spec_of(fn).name == "fn"
    assert spec_of(lambda d, lp: None).name == "custom_loss"
    assert spec_of(functools.partial(fn)).name == "custom_loss"
    with pytest.raises(ConfigError, match="cannot name a loss"):
        spec_of(fn, "two words")
    with pytest.raises(ConfigError, match="built-in loss"):
        loss(name="ppo")(fn)


def test_a_slider_without_a_range() -> None:
    one, zero = params_of(lambda d, lp, a=0.5, b=0: None, "x")
    assert (one.low, one.high) == (0.0, 5.0)
    assert (zero.low, zero.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda: None, r"takes \(nothing\)"),
        (lambda data: None, r"takes \(data\)"),
        (lambda *args: None, r"takes \(args\)"),
        (lambda data, *, logprobs_list: None, "expected"),
        (lambda data, logprobs_list, beta: None, "'beta' has no default"),
        (lambda data, logprobs_list, beta="x": None, "the default 'x'"),
        (lambda data, logprobs_list, beta=True: None, "the default True"),
        (lambda data, logprobs_list, beta=float("nan"): None, "the default nan"),
        (lambda data, logprobs_list, steps=3: None, "setting of the run"),
        (7, "expected a name, a LossSpec or a function"),
    ],
)
def test_functions_that_cannot_be_a_loss(fn: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(fn)


@pytest.mark.parametrize(("low", "high"), [(1, 0), (1, 1), (0, math.inf), (math.nan, 1), ("0", 1)])
def test_ranges_that_are_none(low: Any, high: Any) -> None:
    with pytest.raises(ConfigError, match="lower one first"):
        Range(low, high)


def test_a_function_that_reads_the_reference_says_so() -> None:
    def by_key(data: Any, logprobs_list: Any) -> Any:
        return [d.loss_fn_inputs["reference_logprobs"] for d in data]

    def in_a_function_inside(data: Any, logprobs_list: Any) -> Any:
        def read(datum: Any) -> Any:
            return datum.loss_fn_inputs["reference_logprobs"]

        return [read(d) for d in data]

    def by_helper(data: Any, logprobs_list: Any) -> Any:
        return reference.log_ratios(data, *sequence_scores(data, logprobs_list)[:2])

    def by_another_loss(data: Any, logprobs_list: Any, beta: float = 1.0) -> Any:
        return reference.dpo_loss(data, logprobs_list, beta)

    def not_at_all(data: Any, logprobs_list: Any) -> Any:
        """Reads no reference_logprobs."""
        return sequence_scores(data, logprobs_list)

    for fn in (by_key, in_a_function_inside, by_helper, by_another_loss):
        assert spec_of(fn).inputs == ("reference_logprobs",)
    assert spec_of(not_at_all).inputs == ()
    loss(inputs=("reference_logprobs",))(not_at_all)
    assert LOSSES["not_at_all"].inputs == ("reference_logprobs",)
