"""A rollout in hand as a snapshot keeps it: responses as JSON, log-probabilities of the base model as tensors.

Python writes a float to JSON with as many digits as it takes to read the same float again, so no bit is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .rollout import GradedResponse, SampledGroup, SampledResponse

if TYPE_CHECKING:
    import torch

__all__ = ["RolloutReader", "RolloutWriter"]


class RolloutWriter:
    """Writes responses as numbers of a group and of a response in it; each group is written once."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}  # by identity of the group

    def graded(self, responses: Sequence[GradedResponse]) -> list[dict[str, Any]]:
        """Return entries from which :meth:`RolloutReader.graded` makes the same responses."""
        return [
            {"response": self._place(r.group, r.sampled), "reward": r.reward, "advantage": r.advantage}
            for r in responses
        ]

    def references(
        self, responses: Sequence[GradedResponse], known: Mapping[int, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return what is known of these responses, by identity of the response, under names that do not change."""
        return {
            "reference.{}.{}".format(*self._place(r.group, r.sampled)): known[id(r.sampled)]
            for r in responses
            if id(r.sampled) in known
        }

    def _place(self, group: SampledGroup, response: SampledResponse) -> tuple[int, int]:
        if id(group) not in self._numbers:
            self._numbers[id(group)] = len(self.groups)
            self.groups.append(asdict(group))
        place = next(k for k, each in enumerate(group.responses) if each is response)
        return self._numbers[id(group)], place


class RolloutReader:
    """Makes responses of what a :class:`RolloutWriter` wrote; the same number is the same object."""

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self._groups = [
            SampledGroup(
                int(group["index"]),
                [int(token) for token in group["prompt"]],
                str(group["text"]),
                [SampledResponse(**response) for response in group["responses"]],
            )
            for group in groups
        ]

    def graded(self, entries: Sequence[Mapping[str, Any]]) -> list[GradedResponse]:
        """Return the responses that :meth:`RolloutWriter.graded` was given."""
        found: list[GradedResponse] = []
        for entry in entries:
            group, response = entry["response"]
            sampled = self._groups[group]
            found.append(
                GradedResponse(sampled, sampled.responses[response], float(entry["reward"]), float(entry["advantage"]))
            )
        return found

    def references(self, tensors: Mapping[str, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Return what :meth:`RolloutWriter.references` was given."""
        known: dict[int, torch.Tensor] = {}
        for name, row in tensors.items():
            if name.startswith("reference."):
                group, response = map(int, name.split(".")[1:])
                known[id(self._groups[group].responses[response])] = row
        return known
