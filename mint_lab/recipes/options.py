"""Options that a run does not have: which one is meant, under the name that it has here.

What trainers elsewhere call the same thing is looked up first, then the settings of the loss, then the nearest name.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of

__all__ = ["check_options", "check_whole"]

# Names of TRL's, transformers' and others' trainers.
ELSEWHERE = {
    "config": "loss_config",
    "dataset": "data",
    "epochs": "steps",
    "eval_dataset": "held_out",
    "eval_steps": "eval_every",
    "loss_type": "loss",
    "lora_rank": "rank",
    "lr": "learning_rate",
    "max_completion_length": "max_tokens",
    "max_grad_norm": "grad_clip_norm",
    "max_new_tokens": "max_tokens",
    "max_steps": "steps",
    "model": "base_model",
    "model_name": "base_model",
    "model_name_or_path": "base_model",
    "num_generations": "group_size",
    "num_train_epochs": "steps",
    "output_dir": "folder",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
    "reward_fn": "reward",
    "reward_funcs": "reward",
    "run_name": "name",
    "settings": "loss_config",
    "train_dataset": "data",
}
CUT = {"max_length", "max_seq_length", "max_prompt_length"}


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise :class:`ConfigError` where ``value`` is no whole number of ``least`` or more; a numpy number is one too."""
    try:
        whole = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        whole = False
    if not whole:
        raise ConfigError(f"{name} is {value!r}, expected a whole number from {least} up")


def check_options(
    given: Iterable[str],
    recipe: str,
    known: Sequence[str],
    own: Sequence[str],
    loss: str | LossSpec | Callable[..., Any],
) -> None:
    """Raise :class:`ConfigError` for the first name of ``given`` that is no option of the recipe.

    Args:
        known: options of the recipe; ``own``: arguments of every run.
        loss: as given; settings of the loss belong into ``loss_config``.
    """
    for name in given:
        if name not in known:
            names = [*own, *known]
            raise ConfigError(f"unknown option {name!r}: {_meant(name, recipe, names, _settings(loss))}")


def _meant(name: str, recipe: str, names: Sequence[str], settings: Mapping[str, float]) -> str:
    if name in settings:
        return f"it is a setting of the loss and belongs into loss_config={{{name!r}: {settings[name]:g}}}"
    if name in CUT:
        return "there is none; sequences are cut to what the model's context holds, prompts first"
    there = f"the options of the {recipe} recipe are {', '.join(sorted(names))}"
    near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, names, n=1)
    if not near:
        inside = difflib.get_close_matches(name, list(settings), n=1)
        return f"did you mean loss_config={{{inside[0]!r}: ...}}? {there}" if inside else there
    if near[0] not in names:
        return f"{near[0]!r} is an option of the rl recipe, and this is {recipe}; {there}"
    return f"did you mean {near[0]}=? {there}"


def _settings(loss: str | LossSpec | Callable[..., Any]) -> Mapping[str, float]:
    """Settings of the loss with their defaults; none where it is no loss, which is told later."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            return {}
        loss = LOSSES[loss]
    try:
        spec = loss if isinstance(loss, LossSpec) else spec_of(loss)
    except ConfigError:
        return {}
    return {param.name: param.default for param in spec.params}
