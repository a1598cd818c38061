"""``Workbench()``: pick a loss, press Start, watch the model learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import traitlets

from ..errors import RunError
from ..recipes.registry import recipe_of
from ..runs.run import Run
from .widget import RunWidget

__all__ = ["Workbench", "describe_data"]


class Workbench(RunWidget):
    """A training run with its controls and charts on one page.

    Args:
        recipe: Name of a recipe: ``"preference"``, ``"sft"``, ``"rl"``, ``"unpaired"``, or a registered one.
        loss: Name of a registered loss, or a function in the custom call form; None for the default of the recipe
            (``pairwise_preference`` of "preference", ``cross_entropy`` of "sft", ``ppo`` of "rl", ``kto`` of
            "unpaired").
        base_model: ``"mint-tiny"``, a local directory, or a hub name; or the folder of a LoRA adapter to continue.
        data: As the recipe takes it; None for the recipe's default data.
        seed: Of the adapter's initial weights and dropout, the order of the data, and the held-out split.
        run_options: Further arguments of :class:`~mint_lab.runs.run.Run`, for example ``steps``, ``batch_size`` or
            ``lora``, and options of the recipe, for example ``reward`` and ``group_size`` of "rl".

    Attributes:
        run: The :class:`~mint_lab.runs.run.Run`. "New run" on the page replaces it.

    Raises:
        ConfigError: If a name or a setting is unknown, or the data do not fit the loss.
    """

    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)
    _has_loss_picker = True

    def __init__(
        self,
        recipe: str = "preference",
        loss: Any = None,
        *,
        base_model: str = "mint-tiny",
        data: Any = None,
        seed: int = 0,
        **run_options: Any,
    ) -> None:
        self._options: dict[str, Any] = {
            **run_options,
            "recipe": recipe,
            "base_model": base_model,
            "data": data,
            "seed": seed,
        }
        self._run_count = 1
        run = Run(loss=loss, **self._options)
        self._first_loss = run.loss.name
        super().__init__(run, base_model=base_model, data=describe_data(data, recipe))

    def __repr__(self) -> str:
        options = self._options
        return (
            f"Workbench(recipe={options['recipe']!r}, loss={self._first_loss!r}, base_model={options['base_model']!r})"
        )

    def new_run(self) -> Run:
        """Start again from the base model with the current loss and settings; the old run stays in its folder.

        Raises:
            RunError: If the present run has not ended, or trains a client that was given, whose weights are changed.
        """
        old = self.run
        if old.status not in ("stopped", "finished"):
            raise RunError(f"the run is {old.status}; stop it before starting a new one")
        if self._options.get("client") is not None:
            raise RunError(
                "this workbench was given a training client, whose weights are trained already; "
                "make a new client, and with it a new Workbench"
            )
        self._run_count += 1
        options = dict(self._options)
        options |= old.plan.arguments()
        if options.get("folder") is not None:
            options["folder"] = Path(f"{options['folder']}-{self._run_count}")
        run = Run(loss=old.loss, **options)
        self.show(run)
        return run

    def _perform(self, request: Mapping[str, Any]) -> None:
        if request.get("type") == "new_run":
            self.new_run()
        else:
            super()._perform(request)


def describe_data(data: Any, recipe: str) -> str:
    """Return a few words about the data, for the page."""
    if data is None:
        return recipe_of(recipe).default_data
    if isinstance(data, str | Path):
        return Path(data).name
    return type(data).__name__ if not isinstance(data, list) else "your data"
