"""Options that a run does not have: which one is meant, and what it is called here.

The names that other trainers use are looked up first, then the settings of the loss, then the nearest name.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of

if TYPE_CHECKING:
    from .base import Recipe

__all__ = ["check_options", "check_whole", "checked_tags", "checked_text"]

# Names of TRL's, transformers' and others' trainers.
ELSEWHERE = {
    "adam_beta1": "betas",
    "adam_beta2": "betas",
    "adam_epsilon": "adam_eps",
    "alpha": "lora",
    "beta1": "betas",
    "beta2": "betas",
    "config": "loss_config",
    "dataset": "data",
    "epochs": "steps",
    "eps": "adam_eps",
    "eval_dataset": "held_out",
    "eval_steps": "eval_every",
    "gradient_accumulation_steps": "accumulate",
    "lora_alpha": "lora",
    "lora_config": "lora",
    "lora_dropout": "lora",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_target_modules": "lora",
    "loss_type": "loss",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "max_completion_length": "max_tokens",
    "max_grad_norm": "grad_clip_norm",
    "max_new_tokens": "max_tokens",
    "max_prompt_length": "max_length",
    "max_samples": "max_rows",
    "max_seq_length": "max_length",
    "max_steps": "steps",
    "model": "base_model",
    "model_name": "base_model",
    "model_name_or_path": "base_model",
    "num_generations": "group_size",
    "num_train_epochs": "steps",
    "output_dir": "folder",
    "peft_config": "lora",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
    "reward_fn": "reward",
    "reward_funcs": "reward",
    "run_name": "name",
    "scheduler": "schedule",
    "settings": "loss_config",
    "target_modules": "lora",
    "train_dataset": "data",
    "use_rslora": "lora",
    "warmup_ratio": "warmup_steps",
}


def check_whole(name: str, value: Any, least: int) -> None:
    """Check that ``value`` is a whole number; a numpy integer is one too.

    Raises:
        ConfigError: If it is not, or it is below ``least``.
    """
    try:
        whole = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        whole = False
    if not whole:
        raise ConfigError(f"{name} is {value!r}, expected a whole number from {least} up")


def checked_text(name: str, value: Any) -> str:
    """Return ``value`` if it is a text.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r}, expected a text")
    return value


def checked_tags(value: Any) -> tuple[str, ...]:
    """Return tags as a tuple, each once.

    Raises:
        ConfigError: If it is not a list of texts, or one is blank.
    """
    if isinstance(value, str) or not isinstance(value, Sequence | Set):
        raise ConfigError(f'tags is {value!r}, expected a list of texts, for example ["dpo", "baseline"]')
    for tag in value:
        if not isinstance(tag, str) or not tag.strip():
            raise ConfigError(f"a tag is {tag!r}, expected a text")
    return tuple(dict.fromkeys(value))


def check_options(
    given: Iterable[str],
    recipe: Recipe,
    others: Mapping[str, Sequence[str]],
    arguments: Sequence[str],
    loss: str | LossSpec | Callable[..., Any],
) -> None:
    """Check that every name of ``given`` is an option of the recipe.

    Args:
        given: Names of options.
        recipe: The recipe of the run.
        others: Options of the other recipes, by recipe name.
        arguments: Names that every run has as arguments.
        loss: The loss as given; its settings belong into ``loss_config``.

    Raises:
        ConfigError: If one is not; the message says what is probably meant.
    """
    known = recipe.option_names()
    for name in given:
        if name not in known:
            names = [*arguments, *known]
            meant = _meant(name, recipe.name, names, others, _settings(loss))
            raise ConfigError(f"unknown option {name!r}: {meant}")


def _meant(
    name: str, recipe: str, names: Sequence[str], others: Mapping[str, Sequence[str]], settings: Mapping[str, float]
) -> str:
    if name in settings:
        return f"it is a setting of the loss and belongs into loss_config={{{name!r}: {settings[name]:g}}}"
    here = f"the options of the {recipe} recipe are {', '.join(sorted(names))}"
    near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, [*settings, *names], n=1)
    if near and near[0] in settings:
        return f"did you mean loss_config={{{near[0]!r}: ...}}? {here}"
    if near and near[0] in names:
        return f"did you mean {near[0]}=? {here}"
    wanted = near[0] if near else name
    owner = next((other for other, options in others.items() if wanted in options), None)
    return here if owner is None else f"{wanted!r} is an option of the {owner} recipe, and this is {recipe}; {here}"


def _settings(loss: str | LossSpec | Callable[..., Any]) -> Mapping[str, float]:
    """Return the settings of the loss with their defaults; none if it is not a loss, which is reported later."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            return {}
        loss = LOSSES[loss]
    try:
        spec = loss if isinstance(loss, LossSpec) else spec_of(loss)
    except ConfigError:
        return {}
    return {param.name: param.default for param in spec.params}
