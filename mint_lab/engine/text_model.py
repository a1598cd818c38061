"""What of a base model decides how data are prepared: its tokenizer, longest sequence and end tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from .pretrained import canonical_name, load_tokenizer, resolve_source

__all__ = ["TextModel", "context_of", "end_tokens_of", "load_text_model"]


@dataclass(frozen=True)
class TextModel:
    """A base model of which only the small files were read.

    Attributes:
        name: "mint-tiny", the full path of a directory, or a hub name.
        tokenizer: Its transformers tokenizer.
        context: Longest sequence in tokens.
        end_tokens: The tokens that end a sample; see :class:`~mint_lab.engine.models.BaseModel`.
    """

    name: str
    tokenizer: Any
    context: int
    end_tokens: frozenset[int]

    def get_tokenizer(self) -> Any:
        """Return the tokenizer, as a client does."""
        return self.tokenizer


def load_text_model(name: str, *, trust_remote_code: bool = False) -> TextModel:
    """Load what decides how data are prepared. Arguments and errors are those of :func:`.models.load_base`."""
    source = resolve_source(name)
    tokenizer, config, generation_config = load_tokenizer(source, trust_remote_code=trust_remote_code)
    return TextModel(
        canonical_name(source),
        tokenizer,
        context_of(config.get_text_config()),
        end_tokens_of(generation_config, tokenizer),
    )


def context_of(config: Any) -> int:
    """Return the longest sequence in tokens.

    A LongRoPE model (arXiv:2402.13753) changes the positions of a whole batch once one of its sequences is longer than
    the model's original context, so that is the limit here: no sequence changes another.

    Args:
        config: The configuration of a text model.
    """
    limits = [getattr(config, "max_position_embeddings", None)]
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == "longrope":
        limits += [
            rope.get("original_max_position_embeddings"),
            getattr(config, "original_max_position_embeddings", None),
        ]
    return min((int(limit) for limit in limits if limit), default=1_000_000)


def end_tokens_of(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Return ``eos_token_id`` of the generation configuration, which may be a list, and that of the tokenizer.

    Raises:
        ModelError: If the generation configuration has something else there than token ids.
    """
    given = getattr(generation_config, "eos_token_id", None)
    ends = [end for end in (given if isinstance(given, list | tuple) else [given]) if end is not None]
    if not all(isinstance(end, int) and not isinstance(end, bool) for end in ends):
        raise ModelError(
            f"the model's generation_config.json has eos_token_id={given!r}, expected a token id, a list of them, or "
            "null"
        )
    return frozenset(int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None)
