r"""Where several losses want to move the same weights: the cosines between their gradients on one batch.

The gradient of a loss by the trained weights (the LoRA adapter's) is one vector :math:`g`. Of two losses,

.. math:: \cos(g_a, g_b) = \frac{g_a \cdot g_b}{|g_a| |g_b|}

is 1 where a small step of plain gradient descent is the same for both up to its length, 0 where one does nothing for
the other, and -1 where they undo each other. It does not depend on the scale of a loss. Training divides each weight's
gradient by its running size (AdamW), so the steps that are made differ from these directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...client.protocol import GradientClient
from ...errors import ConfigError
from ...usercode.guarded_loss import GuardedLoss

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ...losses import LossSpec
    from ...types import Datum

__all__ = ["Cosines", "Objective", "cosines_of", "measure"]


@dataclass(frozen=True)
class Objective:
    """A loss with its settings, and the batch as it takes it (with reference log-probabilities, for example)."""

    loss: LossSpec
    config: Mapping[str, float]
    data: Sequence[Datum]


@dataclass(frozen=True)
class Cosines:
    """Cosines between gradients of one batch at one set of weights.

    Attributes:
        labels: one a gradient.
        values: the square of cosines, row by row; nan where a gradient is 0.
        norms: length of each gradient.
        at: the run whose weights they were; None for the weights before training, which all runs start from.
        step: optimizer steps which that run had made.
        datums: size of the batch.
    """

    labels: list[str]
    values: list[list[float]]
    norms: list[float]
    at: str | None
    step: int
    datums: int

    def to_frame(self) -> pd.DataFrame:
        """Cosines by label and label; ``attrs`` has ``at``, ``step``, ``datums`` and the ``norms`` by label."""
        import pandas as pd

        frame = pd.DataFrame(self.values, index=self.labels, columns=self.labels)
        norms = dict(zip(self.labels, self.norms, strict=True))
        frame.attrs.update(at=self.at, step=self.step, datums=self.datums, norms=norms)
        return frame


def measure(client: Any, objectives: Mapping[str, Objective], cancel_requested: Callable[[], bool]) -> dict[str, NDArray[Any]]:
    """The gradient of each objective at the present weights of ``client``, ``(parameters,)`` float32, by label.

    Nothing of the client is changed. Whoever calls sees to it that nobody trains it meanwhile.

    Args:
        cancel_requested: Polled while a loss runs; if True after 2 s, the call is cancelled, as in a run.

    Raises:
        ConfigError: the client gives no gradients.
        LossError, DataError: a loss cannot take the batch.
    """
    if not isinstance(client, GradientClient):
        raise ConfigError(
            f"{type(client).__name__} gives no gradients by its weights; expected a training client of "
            "mint_lab.ServiceClient. ml.show_tokens(data, client, loss=...) shows dLoss/dlogprob with any client"
        )
    found: dict[str, NDArray[Any]] = {}
    for label, objective in objectives.items():
        spec, data = objective.loss, list(objective.data)
        if spec.builtin:
            future = client.weight_gradient(data, spec.name, dict(objective.config) or None)
        else:
            future = client.weight_gradient(data, GuardedLoss(spec, spec.bind(objective.config), cancel_requested))
        found[label] = future.result().to_numpy()
    return found


def cosines_of(
    gradients: Mapping[str, NDArray[Any]], *, at: str | None = None, step: int = 0, datums: int = 0
) -> Cosines:
    """Cosines between ``gradients``, each ``(parameters,)``, summed in double precision."""
    labels = list(gradients)
    vectors = [gradients[label].astype(np.float64) for label in labels]
    norms = [math.sqrt(float(vector @ vector)) for vector in vectors]
    values = [
        [_cosine(float(one @ other), norms[i] * norms[j]) for j, other in enumerate(vectors)]
        for i, one in enumerate(vectors)
    ]
    return Cosines(labels, values, norms, at, step, datums)


def _cosine(product: float, lengths: float) -> float:
    return min(max(product / lengths, -1.0), 1.0) if lengths > 0 else math.nan
