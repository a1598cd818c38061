"""A rollout goes through JSON unchanged, and what was one object is one object again."""

from __future__ import annotations

import json

import pytest
import torch

from mint_lab.recipes.rl.rollout import GradedResponse, SampledGroup, SampledResponse
from mint_lab.recipes.rl.rollout_state import RolloutReader, RolloutWriter

GROUPS = [
    SampledGroup(
        k, [1, 2, k], f"prompt {k}", [SampledResponse([3, r], [-0.1 - r, -1 / 3], "é\n", r > 1) for r in range(3)]
    )
    for k in range(2)
]
RESPONSES = [GradedResponse(group, response, 0.1 + 0.2, -1 / 7) for group in GROUPS for response in group.responses]


def through_json(
    writer: RolloutWriter, *lists: list[GradedResponse]
) -> tuple[RolloutReader, list[list[GradedResponse]]]:
    entries = json.loads(json.dumps([writer.graded(each) for each in lists]))
    reader = RolloutReader(json.loads(json.dumps(writer.groups)))
    return reader, [reader.graded(each) for each in entries]


def test_responses_come_back_in_order_with_every_bit() -> None:
    given = [RESPONSES[4], RESPONSES[0], RESPONSES[5]]
    _, (found, nothing) = through_json(RolloutWriter(), given, [])
    assert (found, nothing) == (given, [])
    assert found[0].sampled.logprobs[1].hex() == (-1 / 3).hex()


def test_a_response_of_two_lists_is_one_object() -> None:
    writer = RolloutWriter()
    _, (first, second) = through_json(writer, RESPONSES[:4], RESPONSES[2:])
    assert first[2].sampled is second[0].sampled
    assert first[3].group is second[1].group
    assert len(writer.groups) == 2, "each group is written once"


def test_equal_responses_of_one_group_stay_apart() -> None:
    twins = SampledGroup(0, [1], "x", [SampledResponse([2], [-1.0], "b", False) for _ in range(2)])
    given = [GradedResponse(twins, response, reward, 0.0) for response, reward in zip(twins.responses, (1.0, 2.0))]  # noqa: B905
    _, (found,) = through_json(RolloutWriter(), given[::-1])
    assert [r.reward for r in found] == [2.0, 1.0]
    assert found[0].sampled is found[0].group.responses[1]


def test_references_follow_their_responses() -> None:
    writer = RolloutWriter()
    known = {id(RESPONSES[1].sampled): torch.tensor([-1.0]), id(RESPONSES[3].sampled): torch.tensor([-2.0, -0.0])}
    tensors = writer.references(RESPONSES, known)
    assert sorted(tensors) == ["reference.0.1", "reference.1.0"]
    reader, (found,) = through_json(writer, RESPONSES)
    again = reader.references(tensors | {"sampler.3.weight": torch.zeros(2)})
    assert set(again) == {id(found[1].sampled), id(found[3].sampled)}
    assert again[id(found[3].sampled)].tolist() == [-2.0, -0.0]


def test_a_response_that_is_not_there_is_refused() -> None:
    writer = RolloutWriter()
    entries = writer.graded(RESPONSES[:1])
    with pytest.raises(IndexError):
        RolloutReader([]).graded(entries)
