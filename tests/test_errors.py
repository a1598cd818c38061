"""One hierarchy; each error is also the built-in kind that a caller would expect."""

from __future__ import annotations

import pytest

from mint_lab import errors
from mint_lab.errors import DataError, LossError, MintLabError, RewardError, one_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CheckpointError", RuntimeError),
        ("ConfigError", ValueError),
        ("DataError", ValueError),
        ("LossError", RuntimeError),
        ("ModelError", RuntimeError),
        ("RunError", RuntimeError),
    ],
)
def test_each_error_is_also_a_built_in_kind(name: str, kind: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, MintLabError)
    assert issubclass(error, kind)
    with pytest.raises(kind, match=r"^what happened$"):
        raise error("what happened")


def test_every_error_is_listed() -> None:
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names | {"one_of"} == set(errors.__all__)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ({}, "too long"),
        ({"index": 0}, "datum 0: too long"),
        ({"field": "weights"}, "field 'weights': too long"),
        ({"index": 3, "field": "weights"}, "datum 3, field 'weights': too long"),
    ],
)
def test_data_error_says_where(location: dict[str, int | str], message: str) -> None:
    error = DataError("too long", **location)  # pyright: ignore
    assert str(error) == message
    assert (error.index, error.field) == (location.get("index"), location.get("field"))


def test_loss_error_keeps_line_and_datum() -> None:
    error = LossError("nan", line=7, index=2)
    assert (str(error), error.line, error.index) == ("nan", 7, 2)
    assert (LossError("nan").line, LossError("nan").index) == (None, None)


def test_reward_error_keeps_what_was_graded() -> None:
    error = RewardError("nan", index=3, prompt="p", response="r", reward="mine")
    assert (str(error), error.index, error.prompt, error.response, error.reward) == ("nan", 3, "p", "r", "mine")
    assert isinstance(error, RuntimeError)
    assert isinstance(error, MintLabError)


def test_one_of() -> None:
    names = ["ppo", "cispo", "dro"]
    assert one_of(names, "cipso") == "expected one of: cispo, dro, ppo; did you mean 'cispo'?"
    assert one_of(names, "something else") == "expected one of: cispo, dro, ppo"
    assert one_of([], "ppo") == "expected one of: "
