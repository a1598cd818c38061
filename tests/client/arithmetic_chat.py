"""Sums as the cookbook's chats: the bundled model's format as a renderer, pairs as comparisons, a file of chats.

Importing this needs the cookbook; ``test_cookbook.py`` sees to it first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chz
import datasets
from tinker_cookbook.preference.preference_datasets import ComparisonDatasetBuilder
from tinker_cookbook.preference.types import Comparison, LabeledComparison
from tinker_cookbook.renderers.base import (
    Message,
    ParseTermination,
    RenderContext,
    RenderedMessage,
    Renderer,
    ensure_text,
    parse_response_for_stop_token,
)

from mint_lab.data import addition_problems, arithmetic_pairs
from mint_lab.types import EncodedTextChunk

__all__ = ["Pairs", "SumRenderer", "write_conversations"]


class SumRenderer(Renderer):
    """``Question: ...``, a new line, ``Answer:``, a space, the answer and the end-of-text token."""

    @property
    def has_extension_property(self) -> bool:
        return True

    def get_stop_sequences(self) -> list[int]:
        return [self.tokenizer.eos_token_id]

    def render_message(self, message: Message, ctx: RenderContext) -> RenderedMessage:
        content = f" {ensure_text(message['content'])}"
        if message["role"] == "user":
            return RenderedMessage(header=self._chunk("Question:"), output=[self._chunk(f"{content}\n")])
        end = EncodedTextChunk(tokens=[self.tokenizer.eos_token_id])
        return RenderedMessage(header=self._chunk("Answer:"), output=[self._chunk(content), end])

    def parse_response(self, response: list[int]) -> tuple[Message, ParseTermination]:
        return parse_response_for_stop_token(response, self.tokenizer, self.tokenizer.eos_token_id)

    def _chunk(self, text: str) -> EncodedTextChunk:
        return EncodedTextChunk(tokens=self.tokenizer.encode(text, add_special_tokens=False))


@chz.chz
class Pairs(ComparisonDatasetBuilder):
    """The right sum and a slip of the teacher's, half of them labelled the other way round."""

    n: int

    def get_train_and_test_datasets(self) -> tuple[datasets.Dataset, datasets.Dataset | None]:
        rows = [
            {"question": question(pair.prompt), "chosen": pair.chosen.strip(), "rejected": pair.rejected.strip()}
            for pair in arithmetic_pairs(self.n)
        ]
        return datasets.Dataset.from_list(rows), None

    def example_to_labeled_comparison(self, example: dict[str, Any]) -> LabeledComparison:
        chosen, rejected = ([Message(role="assistant", content=example[side])] for side in ("chosen", "rejected"))
        prompt = [Message(role="user", content=example["question"])]
        comparison = LabeledComparison(Comparison(prompt, chosen, rejected), "A")
        return comparison.swap() if len(example["question"]) % 2 else comparison


def write_conversations(path: Path, n: int) -> Path:
    """``n`` sums with their answers, one conversation a line."""
    with path.open("w", encoding="utf-8") as file:
        for problem in addition_problems(n):
            asked = {"role": "user", "content": question(problem.prompt)}
            answered = {"role": "assistant", "content": problem.answer.strip()}
            file.write(json.dumps({"messages": [asked, answered]}) + "\n")
    return path


def question(prompt: Any) -> str:
    """What is asked, without the marks around it."""
    return prompt.removeprefix("Question: ").partition("\n")[0]
