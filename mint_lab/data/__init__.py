"""What becomes ``Datum`` objects: preference pairs, verifiable tasks, how text becomes tokens and weights, and the
reference log-probabilities that some losses want.

Cheap to import: pandas, pyarrow, torch and tinker are imported only by the functions that need them.
"""

from __future__ import annotations

from .pairs import Pair, arithmetic_pairs, load_pairs, pairs_to_data
from .reference import with_reference
from .render import encode, to_datum
from .tasks import TASKS, Problem, Task, addition_problems, mistake, reward

__all__ = [
    "TASKS",
    "Pair",
    "Problem",
    "Task",
    "addition_problems",
    "arithmetic_pairs",
    "encode",
    "load_pairs",
    "mistake",
    "pairs_to_data",
    "reward",
    "to_datum",
    "with_reference",
]
