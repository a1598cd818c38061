"""The gallery's values and gradients are those of TRL's own trainers, on the bundled model and the same tokens.

Relative tolerance 1e-4: log-probabilities come from two routes (TRL's fused head over padded rows, here one sequence at
a time), the reference's from this package's own engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab import ServiceClient
from mint_lab.data import with_reference
from mint_lab.data.pairs import arithmetic_pairs, pairs_to_data
from mint_lab.data.render import to_datum
from mint_lab.losses import LOSSES
from mint_lab.types import Datum, TensorData

from .trl import Opinion, Peers, prompt_length

# TRL's own calls of names that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

REL = 1e-4


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    return Peers(tmp_path_factory.mktemp("trl"))


@pytest.fixture(scope="module")
def data(peers: Peers) -> list[Datum]:
    """Seven pairs of sums, with the bundled model's log-probabilities as reference."""
    client = ServiceClient().create_lora_training_client("mint-tiny", rank=4, seed=0)
    return with_reference(pairs_to_data(arithmetic_pairs(7), peers.tokenizer), client, cache=False)


@pytest.fixture(scope="module")
def one_token_prompts(peers: Peers) -> list[Datum]:
    """Five pairs of random tokens whose prompt is a single one."""
    rng = np.random.default_rng(0)
    vocabulary = peers.policy.config.vocab_size
    return [to_datum(rng.integers(vocabulary, size=rng.integers(3, 9)).tolist(), 1) for _ in range(10)]


def close(ours: torch.Tensor, theirs: torch.Tensor, whole: torch.Tensor) -> None:
    """Relative to the batch's largest entry: one in which two terms nearly cancel has no precision of its own."""
    scale = float(whole.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=REL, atol=REL * scale)


def row_of(index: int, data: list[Datum]) -> int:
    """Where datum ``index`` stands in TRL's batch: all chosen, then all rejected."""
    return index // 2 + (index % 2) * len(data) // 2


def agree_on_logprobs(
    name: str,
    config: dict[str, float],
    data: list[Datum],
    logprobs: list[torch.Tensor],
    theirs: Opinion,
    *,
    rows: Sequence[int] | None = None,
) -> None:
    """``rows[i]`` is the row of datum ``i`` in TRL's batch; by default that of pairs."""
    lists = [row.clone().requires_grad_() for row in logprobs]
    loss, _ = LOSSES[name].bind(config)(data, lists)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(theirs.loss, rel=REL)
    for i, (datum, own) in enumerate(zip(data, lists, strict=True)):
        start = prompt_length(datum) - 1
        row = theirs.gradient[row_of(i, data) if rows is None else rows[i], start : len(own)]
        assert own.grad is not None
        assert not own.grad[:start].any()
        close(own.grad[start:], row, theirs.gradient)


def agree_on_logits(name: str, config: dict[str, float], data: list[Datum], peers: Peers, theirs: Opinion) -> None:
    leaves = [logits.clone().requires_grad_() for logits in peers.logits(peers.policy, data)]
    lists = [
        leaf.log_softmax(-1).gather(1, d.loss_fn_inputs["target_tokens"].to_torch()[:, None])[:, 0]
        for leaf, d in zip(leaves, data, strict=True)
    ]
    loss, _ = LOSSES[name].bind(config)(data, lists)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(theirs.loss, rel=REL)
    for i, leaf in enumerate(leaves):
        close(leaf.grad, theirs.gradient[row_of(i, data), : len(leaf)], theirs.gradient)


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize(
    ("name", "loss_type"),
    [
        ("dpo", "sigmoid"),
        ("robust_dpo", "robust"),
        ("dpo_hinge", "hinge"),
        ("ipo", "ipo"),
        ("apo_zero", "apo_zero"),
        ("apo_down", "apo_down"),
        ("nca_pair", "nca_pair"),
    ],
)
def test_with_a_reference(name: str, loss_type: str, beta: float, data: list[Datum], peers: Peers) -> None:
    smoothing = {"label_smoothing": 0.2} if name == "robust_dpo" else {}
    theirs = peers.dpo(data, loss_type, beta, **smoothing)
    config = {"beta": beta} | smoothing
    agree_on_logprobs(name, config, data, peers.logprobs(peers.policy, data), theirs)


@pytest.mark.parametrize("swapped", [False, True])
def test_kto_is_trls_with_the_batch_itself_to_estimate_the_kl_on(
    swapped: bool, data: list[Datum], peers: Peers
) -> None:
    """The noisy policy gives the batch more than the reference does; the other way round z is 0."""
    theirs = peers.kto(data, 0.3, 1.5, 0.5, swapped=swapped)
    trained = peers.policy
    if swapped:
        trained = peers.reference
        reference = [TensorData.from_torch(row) for row in peers.logprobs(peers.policy, data)]
        data = [
            Datum(model_input=d.model_input, loss_fn_inputs={**d.loss_fn_inputs, "reference_logprobs": row})
            for d, row in zip(data, reference, strict=True)
        ]
    config = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    lists = peers.logprobs(trained, data)
    assert (LOSSES["kto"].bind(config)(data, lists)[1]["kl/reference"] == 0) == swapped
    agree_on_logprobs("kto", config, data, lists, theirs)


def labelled(data: list[Datum], labels: list[int]) -> list[Datum]:
    return [
        Datum(
            model_input=d.model_input,
            loss_fn_inputs={**d.loss_fn_inputs, "label": TensorData.from_numpy(np.array([label]))},
        )
        for d, label in zip(data, labels, strict=True)
    ]


@pytest.mark.parametrize("labels", [[1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1], [1] * 14, [0] * 14])
def test_kto_on_labels_is_trls(labels: list[int], data: list[Datum], peers: Peers) -> None:
    """Four undesirable completions of 14, or one label only."""
    judged = labelled(data, labels)
    theirs = peers.kto(judged, 0.3, 1.5, 0.5, swapped=False)
    config = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    agree_on_logprobs("kto", config, judged, peers.logprobs(peers.policy, data), theirs, rows=range(len(data)))


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_bco_without_its_shift_is_trls_bco_pair(beta: float, data: list[Datum], peers: Peers) -> None:
    """TRL's ``bco_pair`` does not shift, and neither does a batch of one label: the two sides add up to it."""
    theirs = peers.dpo(data, "bco_pair", beta)
    values, lists = peers.logprobs(peers.policy, data), []
    total = torch.tensor(0.0)
    for side, label in ((0, 1), (1, 0)):
        judged = labelled(data[side::2], [label] * 7)
        rows = [row.clone().requires_grad_() for row in values[side::2]]
        total = total + LOSSES["bco"].bind(beta=beta)(judged, rows)[0]
        lists += rows
    total.backward()
    assert float(total.detach()) == pytest.approx(theirs.loss, rel=REL)
    for own, gradient, datum in zip(lists, theirs.gradient, [*data[0::2], *data[1::2]], strict=True):
        start = prompt_length(datum) - 1
        assert own.grad is not None
        close(own.grad[start:], gradient[start : len(own)], theirs.gradient)


@pytest.mark.parametrize(
    ("name", "loss_type", "config"),
    [
        ("cpo", "sigmoid", {"beta": 0.1, "alpha": 1.0}),
        ("cpo", "sigmoid", {"beta": 0.4, "alpha": 0.3}),
        ("pairwise_preference", "sigmoid", {"beta": 0.5}),
        ("hinge", "hinge", {"beta": 0.2}),
        ("simpo", "simpo", {"beta": 2.0, "gamma": 1.0}),
        ("simpo", "simpo", {"beta": 1.0, "gamma": 0.3}),
    ],
)
def test_without_a_reference(
    name: str, loss_type: str, config: dict[str, float], data: list[Datum], peers: Peers
) -> None:
    theirs = peers.cpo(data, loss_type, config["beta"], config.get("alpha", 0.0), config.get("gamma", 0.0))
    agree_on_logits(name, config, data, peers, theirs)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo_where_no_prompt_token_is_predicted(beta: float, one_token_prompts: list[Datum], peers: Peers) -> None:
    """TRL's supervised term counts the prompt's tokens, ours masks them: with a prompt of one there are none."""
    agree_on_logits("orpo", {"beta": beta}, one_token_prompts, peers, peers.orpo(one_token_prompts, beta))


@pytest.fixture(scope="module")
def samples() -> tuple[list[Datum], list[torch.Tensor]]:
    """Six samples with ratios from about 0.5 to 2 on both sides of the clip, and their log-probabilities."""
    rng = np.random.default_rng(1)
    data, lists = [], []
    for _ in range(6):
        prompt, length = 3, int(rng.integers(6, 11))
        sampled = -rng.gamma(1.5, 1.0, length - 1)
        data.append(
            to_datum(
                rng.integers(50, size=length).tolist(),
                prompt,
                logprobs=sampled.astype(np.float32),
                reference_logprobs=(sampled + rng.normal(0, 0.4, length - 1)).astype(np.float32),
                advantages=np.full(length - 1, rng.normal(), dtype=np.float32),
            )
        )
        lists.append(torch.tensor(sampled + rng.normal(0, 0.3, length - 1), dtype=torch.float32))
    return data, lists


@pytest.mark.parametrize(
    ("name", "config", "settings"),
    [
        ("grpo", {"beta": 0.04}, {"loss_type": "grpo", "beta": 0.04}),
        ("grpo", {"beta": 0.0}, {"loss_type": "grpo", "beta": 0.0}),
        ("dr_grpo", {"max_tokens": 64}, {"loss_type": "dr_grpo", "beta": 0.0, "max_completion_length": 64}),
        (
            "gspo",
            {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1},
            {"loss_type": "grpo", "beta": 0.0, "importance_sampling_level": "sequence"},
        ),
    ],
)
def test_on_samples(
    name: str,
    config: dict[str, float],
    settings: dict[str, Any],
    samples: tuple[list[Datum], list[torch.Tensor]],
    peers: Peers,
) -> None:
    data, values = samples
    epsilon = 0.1 if name == "gspo" else 0.2
    defaults = {"importance_sampling_level": "token", "epsilon_low": epsilon, "epsilon_high": epsilon}
    theirs = peers.grpo(data, values, **(defaults | settings))
    lists = [value.clone().requires_grad_() for value in values]
    loss, _ = LOSSES[name].bind(config)(data, lists)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(theirs.loss, rel=REL)
    for k, (datum, own) in enumerate(zip(data, lists, strict=True)):
        start = prompt_length(datum) - 1
        assert own.grad is not None
        assert not own.grad[:start].any()
        close(own.grad[start:], theirs.gradient[k, : len(own) - start], theirs.gradient)
