"""``Workbench()``: pick a loss, press Start, watch the model learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import traitlets

from ..errors import RunError
from ..losses import LOSSES
from ..recipes.registry import recipe_of
from ..runs.run import Run
from .loss_catalogue import loss_catalogue
from .protocol import Losses
from .widget import RunWidget

__all__ = ["Workbench", "describe_data"]


class Workbench(RunWidget):
    """A training run with its controls and charts on one page.

    Args:
        recipe: ``"preference"``, ``"sft"`` or ``"rl"``.
        loss: name of a registered loss, or a function in the custom contract; None for the recipe's own, which is
            ``pairwise_preference`` for "preference", ``cross_entropy`` for "sft" and ``ppo`` for "rl".
        base_model: ``"mint-tiny"``, a local directory or a hub name.
        data: None for the arithmetic task, or whatever the recipe's data loader takes.
        seed: fixes data order and initial weights.
        run_options: further arguments of :class:`~mint_lab.runs.run.Run`, for example ``steps`` or ``batch_size``, and
            the recipe's own, for example ``reward`` and ``group_size`` of "rl".

    Attributes:
        run: the :class:`~mint_lab.runs.run.Run`. "New run" on the page puts another one here.

    Raises:
        ConfigError: an unknown name or setting.
    """

    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)
    _forget_losses: Callable[[], None] | None = None  # also when the constructor raised half-way

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
        self._runs = 1
        run = Run(loss=loss, **self._options)
        self._first_loss = run.loss.name
        super().__init__(run, base_model=base_model, data=describe_data(data, recipe))
        self._forget_losses = LOSSES.subscribe(lambda _: self._on_losses())

    def close(self) -> None:
        if self._forget_losses is not None:
            self._forget_losses()
        super().close()

    def __repr__(self) -> str:
        options = self._options
        return (
            f"Workbench(recipe={options['recipe']!r}, loss={self._first_loss!r}, base_model={options['base_model']!r})"
        )

    def new_run(self) -> Run:
        """Start over from the base model with the loss and settings in use now; the old run stays in its folder.

        Raises:
            RunError: the present run has not ended, or it trains a client that was given: there is no other one.
        """
        old = self.run
        if old.status not in ("stopped", "finished"):
            raise RunError(f"the run is {old.status}; stop it before starting a new one")
        if self._options.get("client") is not None:
            raise RunError(
                "this workbench was given a training client, whose weights are trained by now; "
                "make a new client, and with it a new Workbench"
            )
        self._runs += 1
        options = dict(self._options)
        kept = ("learning_rate", "warmup_steps", "grad_clip_norm")
        options |= {name: old.settings[name] for name in kept if name in old.settings}
        options["batch_size"] = int(old.settings["batch_size"])
        options["steps"] = old.steps_total
        options["loss_config"] = dict(old.loss_config)
        if options.get("folder") is not None:
            options["folder"] = Path(f"{options['folder']}-{self._runs}")
        run = Run(loss=old.loss, **options)
        self.show(run)
        return run

    def _perform(self, request: Mapping[str, Any]) -> None:
        if request.get("type") == "new_run":
            self.new_run()
        else:
            super()._perform(request)

    def _on_losses(self) -> None:
        """A cell registered a loss: the picker learns of it, whatever the run does."""
        self._send_message(Losses(type="losses", losses=loss_catalogue(self.run.data_kind)), [])


def describe_data(data: Any, recipe: str) -> str:
    """One line about the data, for the page."""
    if data is None:
        return recipe_of(recipe).default_data
    if isinstance(data, str | Path):
        return Path(data).name
    return type(data).__name__ if not isinstance(data, list) else "your data"
