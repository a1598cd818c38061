"""Datums for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mint_lab.types import Datum, ModelInput, TensorData


def datum(
    tokens: Sequence[int],
    weights: Sequence[float] | None = None,
    *,
    logprobs: Sequence[float] | None = None,
    advantages: Sequence[float] | None = None,
) -> Datum:
    """Return tokens t0..tN as input t0..tN-1 and targets t1..tN, with other fields of length N."""
    fields = {"target_tokens": TensorData.from_numpy(np.array(tokens[1:], dtype=np.int64))}
    given = {"weights": weights, "logprobs": logprobs, "advantages": advantages}
    for name, values in given.items():
        if values is not None:
            fields[name] = TensorData.from_numpy(np.array(values, dtype=np.float32))
    return Datum(model_input=ModelInput.from_ints(list(tokens[:-1])), loss_fn_inputs=fields)


def sampled(seed: int, lengths: Sequence[int] = (5, 9, 3), vocab: int = 270, prefix: int = 0) -> list[Datum]:
    """Return random policy data with ``prefix`` shared tokens; weights are 0 at two tokens of each datum, then 1."""
    random = np.random.default_rng(seed)
    shared = random.integers(0, vocab, prefix).tolist()
    made = []
    for length in lengths:
        tokens = shared + random.integers(0, vocab, length + 1).tolist()
        n = len(tokens) - 1
        made.append(
            datum(
                tokens,
                [0.0] * min(2, n - 1) + [1.0] * (n - min(2, n - 1)),
                logprobs=random.normal(-5.0, 1.0, n),
                advantages=random.normal(0.0, 1.0, n),
            )
        )
    return made
