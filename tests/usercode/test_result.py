"""The one check of a custom loss: a client, a run and preflight give the same verdict in the same words."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.client.gradients import token_gradients
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.engine.batch import read_batch
from mint_lab.engine.step import Custom
from mint_lab.errors import LossError
from mint_lab.losses import LossSpec
from mint_lab.preflight import check
from mint_lab.types import Datum, TensorData
from mint_lab.usercode.guarded_loss import GuardedLoss
from mint_lab.usercode.result import NONFINITE_FIX, NonfiniteLoss, ResultError, evaluate_loss, first_few

from ..client.steps import assert_same, state
from ..engine.batches import datum, sampled
from ..engine.conftest import family, qwen3

__all__ = ["family", "qwen3"]

Loss = Callable[[list[Datum], list[torch.Tensor]], Any]

DATA = sampled(3)  # three datums of 5, 9 and 3 tokens


@pytest.fixture
def client(tmp_path: Path, qwen3: Path) -> TrainingClient:
    return ServiceClient(home=tmp_path / "home").create_lora_training_client(str(qwen3), rank=3, seed=0)


@pytest.fixture
def data() -> list[Datum]:
    return copy.deepcopy(DATA)


def guarded(fn: Loss) -> GuardedLoss:
    return GuardedLoss(LossSpec("mine", "custom", fn), fn)


def total(lps: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(lps).sum()


def after(edit: Callable[[Any, Any], Any]) -> Loss:
    """A good loss that does ``edit(data, logprobs_list)`` first."""

    def fn(data: Any, lps: Any) -> Any:
        edit(data, lps)
        return total(lps), {}

    return fn


def no_grad_edit(data: Any, lps: Any) -> None:
    with torch.no_grad():
        lps[2].mul_(2)


def backward(data: Any, lps: Any) -> None:
    total(lps).backward()


def kept_graph() -> Loss:
    kept: list[torch.Tensor] = []

    def fn(data: Any, lps: Any) -> Any:
        kept.append(total([lp**2 for lp in lps]))
        torch.autograd.grad(kept[-1], lps)  # frees the graph
        return kept[-1], {}

    return fn


# Name -> the loss, the check that fails, what was found.
BROKEN: dict[str, tuple[Loss, str, str]] = {
    "a tensor": (lambda d, lps: total(lps), "returns", "the function returned a Tensor"),
    "a list of two": (lambda d, lps: [total(lps), {}], "returns", "the function returned a list"),
    "a tuple of three": (lambda d, lps: (total(lps), {}, 1), "returns", "the function returned a tuple of 3"),
    "a tuple of none": (lambda d, lps: (), "returns", "the function returned a tuple of 0"),
    "None": (lambda d, lps: None, "returns", "the function returned a NoneType"),
    "a float loss": (lambda d, lps: (total(lps).item(), {}), "loss", "is a float"),
    "a numpy loss": (lambda d, lps: (total(lps).detach().numpy(), {}), "loss", "is a ndarray"),
    "an int loss": (lambda d, lps: (total(lps).long(), {}), "loss", "is of type torch.int64"),
    "a bool loss": (lambda d, lps: (total(lps) > 0, {}), "loss", "is of type torch.bool"),
    "a complex loss": (lambda d, lps: (total(lps) * 1j, {}), "loss", "is of type torch.complex64"),
    "a vector of one": (lambda d, lps: (total(lps)[None], {}), "loss", "has shape (1,)"),
    "a vector": (lambda d, lps: (torch.cat(lps), {}), "loss", "has shape (17,)"),
    "an empty loss": (lambda d, lps: (lps[0][:0], {}), "loss", "has shape (0,)"),
    "on another device": (lambda d, lps: (total(lps).to("meta"), {}), "loss", "is on meta, logprobs_list on cpu"),
    "nan": (lambda d, lps: (total(lps) * float("nan"), {}), "loss", "is nan"),
    "inf": (lambda d, lps: (total(lps) / -0.0, {}), "loss", "is inf"),
    "-inf": (lambda d, lps: (total(lps) / 0.0, {}), "loss", "is -inf"),
    "nan and detached": (lambda d, lps: (total(lps).detach() * float("nan"), {}), "loss", "is nan"),
    "detached": (lambda d, lps: (total(lps).detach(), {}), "loss", "has no gradient"),
    "a constant": (lambda d, lps: (torch.tensor(1.0), {}), "loss", "has no gradient"),
    "metrics a list": (lambda d, lps: (total(lps), [1.0]), "metrics", "a list instead of a dict"),
    "metrics None": (lambda d, lps: (total(lps), None), "metrics", "a NoneType instead of a dict"),
    "a metric without a name": (lambda d, lps: (total(lps), {1: 2.0}), "metrics", "the name 1 is a int"),
    "a metric in words": (lambda d, lps: (total(lps), {"a": "high"}), "metrics", "'a' is a str"),
    "a number in words": (lambda d, lps: (total(lps), {"a": "1.5"}), "metrics", "'a' is a str"),
    "a metric None": (lambda d, lps: (total(lps), {"a": None}), "metrics", "'a' is a NoneType"),
    "a complex metric": (lambda d, lps: (total(lps), {"a": 1j}), "metrics", "'a' is a complex"),
    "a metric of two": (lambda d, lps: (total(lps), {"a": torch.ones(2)}), "metrics", "'a' is a Tensor"),
    "an empty metric": (lambda d, lps: (total(lps), {"a": np.zeros(0)}), "metrics", "'a' is a ndarray"),
    "a metric on meta": (
        lambda d, lps: (total(lps), {"a": torch.ones((), device="meta")}),
        "metrics",
        "'a' is a Tensor",
    ),
    "a huge metric": (lambda d, lps: (total(lps), {"a": 10**400}), "metrics", "'a' is a int"),
    "own backward": (after(backward), "inputs", "the function called backward() itself"),
    "logprobs in place": (after(no_grad_edit), "inputs", "logprobs_list[2] was changed in place"),
    "logprobs through data": (
        after(lambda d, lps: lps[1].data.clamp_(-1, 0)),
        "inputs",
        "logprobs_list[1] was changed in place",
    ),
    "logprobs to nan": (
        after(lambda d, lps: lps[1].data.fill_(float("nan"))),
        "inputs",
        "logprobs_list[1] was changed in place",
    ),
    "logprobs of another shape": (
        after(lambda d, lps: setattr(lps[1], "data", lps[1].data[:2])),
        "inputs",
        "logprobs_list[1] was changed in place",
    ),
    "a field through torch": (
        after(lambda d, lps: d[1].loss_fn_inputs["weights"].to_torch().mul_(0.5)),
        "inputs",
        'data[1].loss_fn_inputs["weights"] was changed',
    ),
    "a field through numpy": (
        after(lambda d, lps: d[2].loss_fn_inputs["logprobs"].to_numpy().fill(np.nan)),
        "inputs",
        'data[2].loss_fn_inputs["logprobs"] was changed',
    ),
    "a field more": (
        after(lambda d, lps: d[0].loss_fn_inputs.update(seen=d[0].loss_fn_inputs["weights"])),
        "inputs",
        'data[0].loss_fn_inputs["seen"] was changed',
    ),
    "a field less": (
        after(lambda d, lps: d[2].loss_fn_inputs.pop("advantages")),
        "inputs",
        'data[2].loss_fn_inputs["advantages"] was changed',
    ),
    "a field replaced": (
        after(lambda d, lps: d[0].loss_fn_inputs.update(weights=TensorData.from_numpy(np.full(5, 3.0, np.float32)))),
        "inputs",
        'data[0].loss_fn_inputs["weights"] was changed',
    ),
    "one datum": (lambda d, lps: (lps[1].sum(), {}), "gradient", "does not reach datum 0, 2 of 3"),
    "one datum detached": (
        lambda d, lps: (total([lps[0], lps[1].detach(), lps[2]]), {}),
        "gradient",
        "does not reach datum 1 of 3",
    ),
    "nan gradient": (
        lambda d, lps: (total(lps) + (lps[2][1:] * 0).sum().sqrt(), {}),
        "gradient",
        "is nan at datum 2, position 1 (log-probability -",
    ),
    "nan gradients": (
        lambda d, lps: (total([torch.sqrt(lp * 0) for lp in lps]), {}),
        "gradient",
        "is nan at datum 0, position 0 (log-probability -",
    ),
    "a freed graph": (kept_graph(), "gradient", "cannot be computed: Trying to backward through the graph a second"),
}


def logprobs_of(client: TrainingClient, data: list[Datum]) -> list[torch.Tensor]:
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    return [output["logprobs"].to_torch() for output in outputs]


def fields_of(data: list[Datum]) -> list[dict[str, bytes]]:
    return [{name: value.to_numpy().tobytes() for name, value in d.loss_fn_inputs.items()} for d in data]


def refusals(client: TrainingClient, data: list[Datum], fn: Loss) -> dict[str, ResultError]:
    """What each user of the check raises."""
    calls = {
        "client": lambda: client.forward_backward_custom(data, fn).result(),
        "run": lambda: client.forward_backward_custom(data, guarded(fn)).result(),
        "hosted run": lambda: guarded(fn)(data, [lp.requires_grad_() for lp in logprobs_of(client, data)]),
        "weight gradient": lambda: client.weight_gradient(data, guarded(fn)).result(),
        "tokens": lambda: token_gradients(client, data, fn),
        "tokens of a run": lambda: token_gradients(client, data, fn, cancel_requested=lambda: False),
    }
    errors: dict[str, ResultError] = {}
    for user, call in calls.items():
        with pytest.raises(ResultError) as caught:
            call()
        errors[user] = caught.value
    return errors


@pytest.mark.parametrize("name", BROKEN)
def test_all_users_refuse_a_broken_loss_in_the_same_words(name: str, client: TrainingClient, data: list[Datum]) -> None:
    fn, failed, found = BROKEN[name]
    client.forward_backward(data, "cross_entropy").result()  # a gradient that has to stay
    before, fields = state(client), fields_of(data)

    (line,) = [line for line in check(fn, data, logprobs_of(client, data)).lines if line.verdict == "fail"]
    errors = refusals(client, data, fn)

    assert (line.name, line.message[: len(found)]) == (failed, found)
    for user, error in errors.items():
        assert error.check == failed, user
        assert f"{error.found}; {error.fix}" in str(error), user
        if not isinstance(error, NonfiniteLoss):
            assert (error.found, error.fix) == (line.message, line.fix), user
        elif user in ("client", "tokens"):  # a run and preflight also search for the cause
            assert (error.found, error.fix) == (found, NONFINITE_FIX)
        else:
            assert error.found == line.message, user
            assert error.fix.endswith(NONFINITE_FIX)
            assert line.fix.endswith(NONFINITE_FIX)
    assert_same(before, state(client))
    assert fields_of(data) == fields


def field_of(value: Any) -> list[Datum]:
    """Data with a field whose values are unusual; the loss reads and keeps it."""
    data = copy.deepcopy(DATA)
    for d in data:
        length = d.model_input.length
        d.loss_fn_inputs["extra"] = TensorData.from_numpy(np.full(length, value, np.float32))
    return data


def reads_extra(data: Any, lps: Any) -> Any:
    far = sum(
        (d.loss_fn_inputs["extra"].to_torch().nan_to_num(0, 0, 0) * lp).sum() for d, lp in zip(data, lps, strict=True)
    )
    return total(lps) + 0 * far, {}


Pair = namedtuple("Pair", "loss metrics")

GOOD: dict[str, Loss] = {
    "a named tuple": lambda d, lps: Pair(total(lps), {}),
    "double precision": lambda d, lps: (total(lps).double(), {}),
    "half precision": lambda d, lps: (total(lps).half(), {}),
    "times 0": lambda d, lps: (lps[0].sum() + 0 * total(lps), {}),
    "empties its lists": lambda d, lps: (total(lps), d.clear() or lps.clear() or {}),
    "an edit that changes no number": after(lambda d, lps: lps[0].data.add_(0.0)),
    "differentiates by itself": lambda d, lps: (
        total(lps) + torch.autograd.grad(total([lp**2 for lp in lps]), lps, create_graph=True)[0].sum() * 0,
        {},
    ),
    "metrics of many kinds": lambda d, lps: (
        total(lps),
        {
            "int": 1,
            "bool": True,
            "numpy": np.float32(2),
            "array": np.array([3.0]),
            "tensor": lps[0].sum(),
            "vector": torch.ones(1),
            "nan": float("nan"),
        },
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_all_users_accept_an_unusual_loss(name: str, client: TrainingClient, data: list[Datum]) -> None:
    fn = GOOD[name]
    report = check(fn, data, logprobs_of(client, data))
    assert "fail" not in {line.verdict for line in report.lines[:3]}, report
    value = token_gradients(client, data, fn).loss
    for loss in (fn, guarded(fn)):
        output = client.forward_backward_custom(data, loss).result()
        assert output.metrics["loss"] == value
    assert len(token_gradients(client, data, fn, cancel_requested=lambda: False).gradients) == len(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0])
def test_unusual_numbers_in_a_field_are_not_an_edit(value: float, client: TrainingClient) -> None:
    data = field_of(value)
    assert check(reads_extra, data, logprobs_of(client, DATA)).ok
    for loss in (reads_extra, guarded(reads_extra)):
        client.forward_backward_custom(data, loss).result()
    token_gradients(client, data, reads_extra)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -0.0])
def test_unusual_log_probabilities_are_not_an_edit(value: float) -> None:
    """They stand where the weight is 0, which a loss may leave out; all users gave a false alarm for nan."""

    def masked(data: Any, lps: Any) -> Any:
        return sum(lp[d.loss_fn_inputs["weights"].to_torch() != 0].sum() for d, lp in zip(data, lps, strict=True)), {}

    logprobs = [torch.full((d.model_input.length,), -1.0) for d in DATA]
    for lp in logprobs:
        lp[0] = value
    assert check(masked, DATA, logprobs).ok
    batch = read_batch(DATA, None, vocab_size=300, context=100)
    for loss in (masked, guarded(masked)):
        result, gradient, _ = Custom(loss)(batch, torch.cat(logprobs))
        assert (result, gradient.sum()) == (-11.0, 11.0)  # 3 + 7 + 1 positions with a weight
    outputs = [{"logprobs": TensorData.from_torch(lp)} for lp in logprobs]
    answer = SimpleNamespace(result=lambda: SimpleNamespace(loss_fn_outputs=outputs))
    stub: Any = SimpleNamespace(forward=lambda *_: answer)
    assert token_gradients(stub, DATA, masked).loss == -11.0


def test_nan_log_probabilities_that_are_edited_are_found() -> None:
    logprobs = [torch.tensor([float("nan"), -1.0]), torch.tensor([float("nan"), -2.0])]
    edit = after(lambda d, lps: lps[1].data.mul_(2))
    with pytest.raises(ResultError, match=r"logprobs_list\[1\] was changed in place"):
        evaluate_loss(edit, [datum([1, 2, 3])] * 2, [lp.requires_grad_() for lp in logprobs])


def test_empty_datums_have_an_empty_gradient() -> None:
    empty = Datum(model_input=DATA[0].model_input, loss_fn_inputs={"weights": TensorData.from_numpy(np.zeros(0, "f4"))})
    leaves = [torch.zeros(0, requires_grad=True), torch.tensor([-1.0, -2.0], requires_grad=True)]
    result = evaluate_loss(lambda d, lps: (3 * total(lps), {}), [empty, DATA[0]], leaves)
    assert [g.tolist() for g in result.gradient] == [[], [3.0, 3.0]]


def test_an_edit_is_undone_whatever_happens_next(data: list[Datum]) -> None:
    """A run uses its datums again: after the loss is corrected they have to be as before."""
    fields = fields_of(data)
    leaves = [lp.requires_grad_() for lp in (torch.zeros(5), torch.zeros(9), torch.zeros(3))]

    def edits_and_raises(d: Any, lps: Any) -> Any:
        d[0].loss_fn_inputs["weights"].to_numpy()[:] = 7
        del d[1].loss_fn_inputs["advantages"]
        raise ValueError("a planted bug")

    def edits_and_returns_nothing(d: Any, lps: Any) -> Any:
        d[0].loss_fn_inputs["weights"].to_numpy()[:] = 7

    with pytest.raises(ValueError, match="a planted bug"):
        evaluate_loss(edits_and_raises, data, leaves)
    assert fields_of(data) == fields
    with pytest.raises(ResultError, match="returned a NoneType"):
        evaluate_loss(edits_and_returns_nothing, data, leaves)
    assert fields_of(data) == fields


def test_a_sparse_field_is_read_and_not_restored(data: list[Datum]) -> None:
    """``to_torch`` of a sparse field makes a copy, so writing to it changes nothing."""
    sparse = TensorData.from_torch_sparse(torch.eye(9))
    assert sparse.sparse_crow_indices is not None
    data[1].loss_fn_inputs["targets"] = sparse
    leaves = [torch.zeros(d.model_input.length, requires_grad=True) for d in data]
    result = evaluate_loss(after(lambda d, lps: d[1].loss_fn_inputs["targets"].to_torch().mul_(2)), data, leaves)
    assert result.value == 0.0


def test_result_by_hand() -> None:
    """The sum of w * lp is 2 * -1 + 3 * -4 = -14; its gradient is w."""
    data = [datum([1, 2], [2.0]), datum([3, 4], [3.0])]
    leaves = [torch.tensor([-1.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)]

    def weighted(d: Any, lps: Any) -> Any:
        return sum((x.loss_fn_inputs["weights"].to_torch() * lp).sum() for x, lp in zip(d, lps, strict=True)), {
            "n": len(d)
        }

    passed: list[str] = []
    result = evaluate_loss(weighted, data, leaves, keep_graph=True, on_pass=lambda name, _: passed.append(name))
    assert (result.value, result.metrics) == (-14.0, {"n": 2.0})
    assert [g.tolist() for g in result.gradient] == [[2.0], [3.0]]
    assert passed == ["returns", "inputs", "loss", "metrics", "gradient"]
    result.loss.backward()  # as a hosted client's SDK does
    assert [leaf.grad.tolist() for leaf in leaves] == [[2.0], [3.0]]  # type: ignore[union-attr]


def test_an_evaluation_needs_no_gradient_and_is_checked_otherwise() -> None:
    with torch.no_grad():
        result = evaluate_loss(lambda d, lps: (total(lps), {"a": 1}), DATA[:1], [torch.tensor([-1.0])])
        assert (result.value, result.gradient) == (-1.0, [])
        with pytest.raises(NonfiniteLoss, match="the loss is inf; look for log"):
            evaluate_loss(lambda d, lps: (total(lps) / -0.0, {}), DATA[:1], [torch.tensor([-1.0])])


def test_what_the_function_raises_is_said_alike(client: TrainingClient, data: list[Datum]) -> None:
    """A client lets the function's own exception through; a run and preflight name the datum."""

    def fails(data: Any, lps: Any) -> Any:
        for x in data:
            if x.model_input.length == 9:
                raise ValueError("a planted bug")

    (line,) = check(fails, data, logprobs_of(client, data)).lines
    with pytest.raises(LossError) as caught:
        client.forward_backward_custom(data, guarded(fails)).result()
    assert str(caught.value) == line.message
    assert "ValueError: a planted bug (at datum 1, log-probabilities -" in line.message
    with pytest.raises(ValueError, match=r"^a planted bug$"):
        client.forward_backward_custom(data, fails).result()
    with pytest.raises(ValueError, match=r"^a planted bug$"):
        token_gradients(client, data, fails)


def test_first_few() -> None:
    assert [first_few(list(range(n))) for n in (1, 3, 4, 9)] == [
        "0",
        "0, 1, 2",
        "0, 1, 2 and 1 more",
        "0, 1, 2 and 6 more",
    ]
