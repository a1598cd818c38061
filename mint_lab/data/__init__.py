"""Data: pairs, labelled completions, completions, tasks with rewards, how text becomes datums, reference logprobs.

Importing this package is cheap: pandas, pyarrow, torch and tinker are imported only by the functions that need them.
"""

from __future__ import annotations

from .advantages import group_advantages
from .chats import Chat
from .completions import load_completions
from .pairs import Pair, arithmetic_pairs, load_pairs, pairs_to_data
from .problems import Problem, addition_problems, mistake, reward
from .reference_logprobs import with_reference
from .render import encode, to_datum
from .rewards import REWARDS, Reward, exact_match, format_reward, gsm8k_reward
from .sources import Rows
from .tasks import TASKS, ExampleTask, PromptTask, Task, load_gsm8k, task_of
from .unpaired import unpaired_to_data

__all__ = [
    "REWARDS",
    "TASKS",
    "Chat",
    "ExampleTask",
    "Pair",
    "Problem",
    "PromptTask",
    "Reward",
    "Rows",
    "Task",
    "addition_problems",
    "arithmetic_pairs",
    "encode",
    "exact_match",
    "format_reward",
    "group_advantages",
    "gsm8k_reward",
    "load_completions",
    "load_gsm8k",
    "load_pairs",
    "mistake",
    "pairs_to_data",
    "reward",
    "task_of",
    "to_datum",
    "unpaired_to_data",
    "with_reference",
]
