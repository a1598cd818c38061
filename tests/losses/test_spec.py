"""What a loss is: settings that are checked, a registry that counts versions, and one call form out of two."""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

import pytest
import torch

from mint_lab.data import to_datum
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec, Param
from mint_lab.losses.decorator import spec_of
from mint_lab.losses.spec import DataKind, Unit
from mint_lab.types import Datum

BETA = Param("beta", 0.5, 0.0, 1.0, "made up", minimum=0.1)


def scaled(data: list[Any], logprobs_list: list[torch.Tensor], beta: float = 1.0) -> tuple[Any, dict[str, float]]:
    return beta * torch.stack([lp.sum() for lp in logprobs_list]).sum(), {}


def spec(name: str = "scaled", **fields: Any) -> LossSpec:
    return LossSpec(name=name, family="custom", fn=scaled, **{"params": (BETA,), **fields})


def batch() -> tuple[list[Any], list[torch.Tensor]]:
    """Two datums, one with a prompt position: log-probabilities -1, -2 (weights 0, 1) and -4 (weight 1)."""
    logq = {"logprobs": [-1.5, -2.5], "advantages": [5.0, 2.0]}
    data = [to_datum([1, 2, 3], 2, **logq), to_datum([4, 5], 1, logprobs=[-4.0], advantages=[-1.0])]
    return data, [torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)]


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), ({}, 0.5), ({"beta": 2}, 2.0), ({"beta": "0.25"}, 0.25)])
def test_config_lays_what_is_given_over_the_defaults(given: dict[str, Any] | None, expected: float) -> None:
    """A value beyond what a slider spans (here 1.0) may be given by hand."""
    assert spec().config(given) == {"beta": expected}
    assert isinstance(spec().config(given)["beta"], float)


def test_settings_by_keyword_and_a_short_text() -> None:
    data, logprobs = batch()
    for fn in (spec().bind(beta=2), spec().bind({"beta": 2}), spec().bind({"beta": 3}, beta=2)):
        assert float(fn(data, logprobs)[0].detach()) == -14.0
    with pytest.raises(ConfigError, match="scaled: unknown setting 'gamma'"):
        spec().bind(gamma=1)
    with pytest.raises(ConfigError, match=r"scaled: the settings are 0.1, expected a dict"):
        spec().bind(0.1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"scaled: the settings are 0.1, expected a dict"):
        spec().bind(0.1, beta=2)  # type: ignore[arg-type]
    assert repr(LOSSES["simpo"]) == "LossSpec('simpo', v1, preference)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"betta": 1}, r"scaled: unknown setting 'betta'; expected one of: beta; did you mean 'beta'\?"),
        ({"beta": "much"}, "scaled: beta is 'much', expected a number"),
        ({"beta": None}, "scaled: beta is None, expected a number"),
        ({"beta": 0.05}, r"scaled: beta is 0.05, expected a number from 0.1 up"),
        ({"beta": math.nan}, r"scaled: beta is nan, expected a number from 0.1 up"),
    ],
)
def test_a_bad_config_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec().config(given)
    with pytest.raises(ConfigError, match=message):
        spec().bind(given)


def test_a_loss_without_settings_says_so() -> None:
    with pytest.raises(ConfigError, match="cross_entropy: unknown setting 'beta'; it takes no settings"):
        LOSSES["cross_entropy"].config({"beta": 1})


@pytest.mark.parametrize("name", ["ppo", "cispo"])
def test_clip_bounds_may_meet_but_not_cross(name: str) -> None:
    assert LOSSES[name].config() == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    meeting = {"clip_low_threshold": 1.0, "clip_high_threshold": 1.0}
    assert LOSSES[name].config(meeting) == meeting
    with pytest.raises(ConfigError, match=rf"{name}: clip_low_threshold 1.3 lies above clip_high_threshold 1.2"):
        LOSSES[name].config({"clip_low_threshold": 1.3})


def test_bind_fixes_the_settings_of_a_custom_loss() -> None:
    data, logprobs = batch()
    assert spec().bind({"beta": 2.0})(data, logprobs)[0].item() == -14.0
    assert spec().bind()(data, logprobs)[0].item() == -3.5


def test_bound_loss_carries_its_description() -> None:
    """The fixed settings are the defaults of the description; a run that is given the function inherits from it."""
    bound = spec(unit="pair", reduction="mean").bind(beta=2.0)
    assert (bound.spec.unit, bound.spec.reduction) == ("pair", "mean")
    assert bound.spec.config()["beta"] == 2.0


def test_bind_of_cross_entropy_is_the_sum_by_hand() -> None:
    """-(0 * -1 + 1 * -2 + 1 * -4) = 6, and the gradient of each log-probability is minus its weight."""
    data, logprobs = batch()
    loss, metrics = LOSSES["cross_entropy"].bind()(data, logprobs)
    loss.backward()
    assert loss.item() == 6.0
    assert metrics == {"loss": 6.0}
    assert [lp.grad.tolist() for lp in logprobs if lp.grad is not None] == [[0.0, -1.0], [-1.0]]


def test_bind_of_dro_is_the_sum_by_hand() -> None:
    """Per token -(logp A - beta/2 (logp - logq)^2), beta 1: -(-2*2 - 0.5*0.25) = 4.125 and -(-4*-1 - 0) = -4."""
    loss, _ = LOSSES["dro"].bind({"beta": 1.0})(*batch())
    assert loss.item() == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].builtin])
def test_bind_sums_what_the_builtin_gives_per_token(name: str) -> None:
    data, logprobs = batch()
    loss, _ = LOSSES[name].bind()(data, logprobs)
    by_hand = 0.0
    for datum, lp in zip(data, logprobs, strict=True):
        fields = {key: value.to_torch() for key, value in datum.loss_fn_inputs.items()}
        keywords: dict[str, Any] = {"weights": fields["weights"]}
        if name != "cross_entropy":
            keywords |= {"sampling_logprobs": fields["logprobs"], "advantages": fields["advantages"]}
        by_hand += LOSSES[name].fn(lp, **keywords, **LOSSES[name].config()).sum().item()
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_policy_losses_take_absent_weights_as_ones() -> None:
    """Tinker's own datums have none: every token counts, -r A with r = e^0.5: -(5 + 2) e^0.5 - (-1)."""
    data, logprobs = batch()
    for datum in data:
        del datum.loss_fn_inputs["weights"]
    loss, _ = LOSSES["importance_sampling"].bind()(data, logprobs)
    assert loss.item() == pytest.approx(-7 * math.exp(0.5) + 1, rel=1e-6)


PAIRS, GROUPS, TELLS = (
    "needs pairs of chosen and rejected",
    "needs groups of samples of one prompt",
    "does not tell chosen from rejected",
)


@pytest.mark.parametrize(
    ("unit", "reasons"),
    [
        ("pair", {"pair": None, "group": PAIRS, "datum": PAIRS, "": None}),
        ("group", {"pair": GROUPS, "group": None, "datum": GROUPS, "": None}),
        ("datum", {"pair": TELLS, "group": None, "datum": None, "": None}),
        ("", {"pair": None, "group": None, "datum": None, "": None}),
    ],
)
def test_what_a_loss_compares_must_be_in_the_batch(unit: Unit, reasons: dict[Unit, str | None]) -> None:
    """A loss for single datums can train on groups; an unknown unit, on either side, is refused nowhere."""
    assert {of: spec(unit=unit).unfit(DataKind(frozenset(), of)) for of in reasons} == reasons


def test_the_shipped_losses() -> None:
    assert {"cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "pairwise_preference"} <= set(LOSSES)
    for name, loss in LOSSES.items():
        assert name == loss.name
        assert loss.summary.endswith(".")
        assert loss.formula
        assert f"def {loss.fn.__name__}(" in loss.source
        assert loss.config() == {p.name: p.default for p in loss.params}
        assert all(p.low <= p.default <= p.high and p.doc for p in loss.params)


def test_a_maximum() -> None:
    capped = spec(params=(Param("beta", 0.1, 0.0, 0.4, maximum=0.5),))
    assert capped.config({"beta": 0.5}) == {"beta": 0.5}
    with pytest.raises(ConfigError, match=r"scaled: beta is 0\.6, expected a number from 0 to 0\.5"):
        capped.config({"beta": 0.6})


def test_every_loss_that_ships_says_what_it_is() -> None:
    for name, shipped in LOSSES.items():
        assert shipped.name == name
        assert shipped.formula
        assert shipped.summary.endswith(".")
        assert shipped.fn.__doc__
        assert shipped.paper.startswith("https://") or shipped.builtin
        assert all(
            p.doc and p.low <= p.default <= p.high and p.minimum <= p.default <= p.maximum for p in shipped.params
        )
        signature = inspect.signature(shipped.fn).parameters
        assert {p.name: p.default for p in shipped.params} == {
            k: v.default for k, v in signature.items() if isinstance(v.default, float)
        }


@pytest.mark.parametrize("name", [name for name, s in LOSSES.items() if not s.builtin])
def test_a_loss_that_ships_can_be_opened_as_a_cell(name: str) -> None:
    """Its own source, with the public names of the modules, is the whole loss; as a cell it reads the same inputs."""
    namespace = dict(vars(importlib.import_module(LOSSES[name].fn.__module__)))
    namespace |= {"torch": torch, "F": torch.nn.functional, "Datum": Datum, "ConfigError": ConfigError}
    fields = ("logprobs", "advantages", "teacher_logprobs", "reference_logprobs")
    data = [to_datum([1, 2, 3], 2, **{f: [-9.0, -k / 4] for k, f in enumerate(fields)}) for _ in range(2)]
    lists = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])]
    shipped = LOSSES[name]
    exec(shipped.source, namespace)
    fn = namespace[shipped.fn.__name__]
    assert fn(data, lists)[1] == shipped.fn(data, lists)[1]
    assert spec_of(fn).inputs == tuple(x for x in shipped.inputs if x == "reference_logprobs")
