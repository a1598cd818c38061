"""Sampled groups: what is requested, how long a snapshot is kept, and the datums made of graded responses."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.data import ExampleTask
from mint_lab.errors import DataError
from mint_lab.recipes.rl.rl_job import Prompts
from mint_lab.recipes.rl.rollout import (
    SampledGroup,
    SampledResponse,
    SamplerSettings,
    Snapshots,
    datum_of,
    responses_of,
    rollout_metrics,
    sample_groups,
    with_advantages,
)

from ...runs.bigram import BigramClient, CharTokenizer

PROMPT = [97, 58]  # "a:"


def response(text: str, *, truncated: bool = False) -> SampledResponse:
    return SampledResponse([ord(c) for c in text], [-1.0 - k for k in range(len(text))], text, truncated)


def group(*texts: str, index: int = 0) -> SampledGroup:
    return SampledGroup(index, PROMPT, "a:", [response(text, truncated=len(text) > 2) for text in texts])


def prompts(*texts: Any) -> Prompts:
    task = ExampleTask("mine", list(texts), prompt_of=lambda x: x, reward_of=lambda text, x: 0.0)
    return Prompts(task, list(texts), CharTokenizer(), "training")


class Recording:
    """A sampling client that keeps its requests; each sample repeats the seed as its only token."""

    def __init__(self, stop_reason: str = "stop") -> None:
        self.requests: list[tuple[str, int, Any]] = []
        self.stop_reason = stop_reason
        self.awaited = 0

    def sample(self, prompt: Any, num_samples: int, params: Any) -> Any:
        self.requests.append(("".join(map(chr, prompt.to_ints())), num_samples, params))
        sequence = SimpleNamespace(tokens=[params.seed, 0], logprobs=[-0.5, -0.25], stop_reason=self.stop_reason)
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(sequences=[sequence] * num_samples))

        def result() -> Any:
            self.awaited = self.awaited or len(self.requests)
            return future.result()

        return SimpleNamespace(result=result)


def test_sample_groups_sends_every_request_before_it_waits() -> None:
    client = Recording()
    settings = SamplerSettings(2, 5, temperature=0.5, top_p=0.9, top_k=7, stop=("\n",))
    groups = sample_groups(client, prompts("a:", "b:", "c:"), [2, 0], settings, [66, 67])  # type: ignore[arg-type]
    assert client.awaited == 2
    assert [(text, count) for text, count, _ in client.requests] == [("c:", 2), ("a:", 2)]
    assert [request[2].seed for request in client.requests] == [66, 67]
    params = client.requests[0][2]
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (5, 0.5, 0.9, 7)
    assert params.stop == ["\n"]
    assert [(g.index, g.prompt, g.text) for g in groups] == [(2, [99, 58], "c:"), (0, [97, 58], "a:")]
    assert groups[0].responses == [SampledResponse([66, 0], [-0.5, -0.25], "B", False)] * 2  # 0 is not text


def test_response_that_the_limit_ended_is_truncated() -> None:
    groups = sample_groups(Recording("length"), prompts("a:"), [0], SamplerSettings(1, 2), [5])  # type: ignore[arg-type]
    assert groups[0].responses[0].truncated


def test_prompt_that_cannot_be_tokenized_is_refused_before_any_request() -> None:
    client, chat = Recording(), [{"role": "user", "content": "x"}]  # the tokenizer has no chat template
    with pytest.raises(DataError, match=r"training example: .*no chat template") as caught:
        sample_groups(client, prompts("a:", chat), [0, 1], SamplerSettings(1, 2), [5, 6])  # type: ignore[arg-type]
    assert caught.value.index == 1
    assert client.requests == []


def test_snapshot_is_taken_once_per_version_and_kept_for_the_delay() -> None:
    client = BigramClient()
    snapshots = Snapshots(client, delay=2)
    first, version = snapshots.delayed(0)
    assert version == 0
    assert snapshots.current(0) is first
    for updates in (1, 2):
        snapshots.keep(updates)
        assert snapshots.delayed(updates) == (first, 0), "not yet two updates behind"
    assert snapshots.delayed(3)[1] == 1
    assert client.calls == ["snapshot"] * 4


def test_without_a_delay_no_snapshot_is_taken_in_advance() -> None:
    client = BigramClient()
    snapshots = Snapshots(client)
    snapshots.keep(1)
    assert client.calls == []
    assert snapshots.delayed(1)[1] == 1


def test_advantages_are_centred_within_each_group() -> None:
    """Rewards 1 and 0 have mean 1/2; equal rewards give zeros and no spread."""
    first, second = with_advantages([group("x", "y"), group("u", "v")], [[1.0, 0.0], [3.0, 3.0]], "centred")
    assert (first.advantages, first.has_spread) == ([0.5, -0.5], True)
    assert (second.advantages, second.has_spread) == ([0.0, 0.0], False)


def test_rollout_metrics_by_hand() -> None:
    """Lengths 1, 3, 2, 2; one of four responses is truncated; one of two groups has equal rewards."""
    metrics = rollout_metrics([group("x", "xyz"), group("uv", "uv")], [[1.0, 0.0], [0.5, 0.5]])
    assert metrics["reward"] == 0.5
    assert metrics["frac_reward_zero_std"] == 0.5
    assert metrics["completion_length"] == 2.0
    assert metrics["truncated_frac"] == 0.25


def test_response_without_tokens_is_left_out() -> None:
    graded = with_advantages([group("x", "", "y")], [[1.0, 0.5, 0.0]], "centred")
    assert [(r.sampled.text, r.reward, r.advantage) for r in responses_of(graded)] == [
        ("x", 1.0, 0.5),
        ("y", 0.0, -0.5),
    ]


@pytest.mark.parametrize("weights", [True, False])
def test_datum_of_a_response_by_hand(weights: bool) -> None:
    """Prompt "a:" and response "xy": inputs a : x, targets : x y; position 0 is still the prompt."""
    (graded, _) = responses_of(with_advantages([group("xy", "z")], [[1.0, 0.0]], "centred"))
    datum = datum_of(graded, weights=weights)
    assert datum.model_input.to_ints() == [ord(c) for c in "a:x"]
    fields = {name: value.tolist() for name, value in datum.loss_fn_inputs.items()}
    assert fields.pop("weights", None) == ([0.0, 1.0, 1.0] if weights else None)
    assert fields == {
        "target_tokens": [ord(c) for c in ":xy"],
        "logprobs": [0.0, -1.0, -2.0],
        "advantages": [0.0, 0.5, 0.5],
    }
