r"""Whether several losses move the same weights the same way: cosines between their gradients on one batch.

The gradient of a loss with respect to the trained weights (of the LoRA adapter) is one vector :math:`g`. For two
losses,

.. math:: \cos(g_a, g_b) = \frac{g_a \cdot g_b}{|g_a| |g_b|}

is 1 if a small step of plain gradient descent is the same for both up to its length, 0 if a step for one does not
change the other, and -1 if the steps are opposite. It does not depend on the scale of a loss. AdamW divides the
gradient of each weight by its running size, so the steps of a training run differ from these directions.
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
    """A loss with its settings, and the batch as the loss reads it (with reference log-probabilities, for example)."""

    loss: LossSpec
    config: Mapping[str, float]
    data: Sequence[Datum]


@dataclass(frozen=True)
class Cosines:
    """Cosines between gradients on one batch at the same weights.

    Attributes:
        labels: One per gradient.
        values: Rows of the square matrix of cosines; nan where a gradient is 0.
        norms: Norm of each gradient.
        at: Label of the run whose weights were used; None for the weights before training, which all runs start from.
        step: Optimizer steps that this run had completed.
        datums: Size of the batch.
    """

    labels: list[str]
    values: list[list[float]]
    norms: list[float]
    at: str | None
    step: int
    datums: int

    def to_frame(self) -> pd.DataFrame:
        """Return the cosines by label and label; ``attrs`` has ``at``, ``step``, ``datums``, and ``norms`` by label."""
        import pandas as pd

        frame = pd.DataFrame(self.values, index=self.labels, columns=self.labels)
        norms = dict(zip(self.labels, self.norms, strict=True))
        frame.attrs.update(at=self.at, step=self.step, datums=self.datums, norms=norms)
        return frame


def measure(
    client: Any, objectives: Mapping[str, Objective], cancel_requested: Callable[[], bool]
) -> dict[str, NDArray[Any]]:
    """Compute the gradient of each objective at the current weights of ``client``, which does not change.

    Args:
        client: A client that returns gradients. The caller makes sure that nobody trains it meanwhile.
        objectives: By label.
        cancel_requested: Polled while a loss runs; if True after 2 s, the call is cancelled, as in a run.

    Returns:
        Gradients by label, ``(parameters,)`` float32 each.

    Raises:
        ConfigError: If the client returns no gradients.
        LossError: If a loss fails on the batch.
        DataError: If the batch does not fit a loss.
    """
    if not isinstance(client, GradientClient):
        raise ConfigError(
            f"{type(client).__name__} returns no gradients of its weights; expected a training client of "
            "mint_lab.ServiceClient. ml.show_tokens(data, client, loss=...) shows dLoss/dlogprob with any client"
        )
    gradients: dict[str, NDArray[Any]] = {}
    for label, objective in objectives.items():
        spec, data = objective.loss, list(objective.data)
        if spec.builtin:
            future = client.weight_gradient(data, spec.name, dict(objective.config) or None)
        else:
            future = client.weight_gradient(data, GuardedLoss(spec, spec.bind(objective.config), cancel_requested))
        gradients[label] = future.result().to_numpy()
    return gradients


def cosines_of(
    gradients: Mapping[str, NDArray[Any]], *, at: str | None = None, step: int = 0, datums: int = 0
) -> Cosines:
    """Compute the cosines between ``gradients``, ``(parameters,)`` each, with sums in float64."""
    labels = list(gradients)
    vectors = [gradients[label].astype(np.float64) for label in labels]
    norms = [math.sqrt(float(vector @ vector)) for vector in vectors]
    values = [
        [_cosine(float(a @ b), norms[i] * norms[j]) for j, b in enumerate(vectors)] for i, a in enumerate(vectors)
    ]
    return Cosines(labels, values, norms, at, step, datums)


def _cosine(dot: float, norm_product: float) -> float:
    return min(max(dot / norm_product, -1.0), 1.0) if norm_product > 0 else math.nan
