"""The bundled model's tokenizer: a small byte-level BPE in which every digit is one token.

Byte-level BPE encodes every text without loss. Digits are split off before merges are learned, so the model processes
numbers column by column. There is no beginning-of-text token; ``END`` ends a document and is also the padding token.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mint_lab.tiny.corpus import END

__all__ = ["CHAT_TEMPLATE", "VOCAB_SIZE", "train_tokenizer"]

VOCAB_SIZE = 768

# A user's turn has the format of the pretraining questions, so that a chat prompt and a plain prompt have the same
# tokens. The prompt is a prefix of the whole conversation.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ 'Answer: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, context: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with merges learned from ``texts``.

    Args:
        texts: The corpus.
        context: Maximum length of an input, tokens; stored in the tokenizer.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
