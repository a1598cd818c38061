"""``Workbench()``: pick a loss, press Start, watch the model learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets

from ..errors import MintLabError, RunError
from ..losses import LOSSES
from ..runs.run import Run
from .catalogue import catalogue
from .protocol import Losses, Message, Reply
from .widget import RunWidget

__all__ = ["Workbench"]


class Workbench(RunWidget):
    """A training run with its controls and charts on one page.

    Args:
        base_model: ``"mint-tiny"``, a local directory or a hub name.
        recipe: ``"preference"`` or ``"sft"``.
        loss: name of a registered loss, or a function in the custom contract; None for the recipe's own, which is
            ``pairwise_preference`` for "preference" and ``cross_entropy`` for "sft".
        data: None for the arithmetic task, or whatever the recipe's data loader takes.
        seed: fixes data order and initial weights.
        run_options: further arguments of :class:`~mint_lab.runs.run.Run`, for example ``steps`` or ``batch_size``.

    Attributes:
        run: the :class:`~mint_lab.runs.run.Run`. "New run" on the page puts another one here.

    Raises:
        ConfigError: an unknown name or setting.
    """

    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)
    _forget_losses: Callable[[], None] | None = None  # also when the constructor raised half-way

    def __init__(
        self,
        base_model: str = "mint-tiny",
        recipe: str = "preference",
        loss: Any = None,
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
        super().__init__(run, base_model=base_model, data=_describe(data))
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
            RunError: the present run has not ended.
        """
        old = self.run
        if old.status not in ("stopped", "finished"):
            raise RunError(f"the run is {old.status}; stop it before starting a new one")
        self._runs += 1
        options = dict(self._options)
        options["learning_rate"] = old.settings["learning_rate"]
        options["loss_config"] = dict(old.loss_config)
        if options.get("folder") is not None:
            options["folder"] = Path(f"{options['folder']}-{self._runs}")
        run = Run(loss=old.loss, **options)
        self.show(run)
        return run

    def _answer(self, request: dict[str, Any]) -> Message:
        if request.get("type") != "new_run":
            return super()._answer(request)
        reply = Reply(type="reply", request=request.get("request", 0), error="")
        try:
            self.new_run()
        except MintLabError as error:
            reply["error"] = str(error)
        return reply

    def _on_losses(self) -> None:
        """A cell registered a loss: the picker learns of it, whatever the run does."""
        self._send_message(Losses(type="losses", losses=catalogue(self.run.recipe)), [])


def _describe(data: Any) -> str:
    """One line about the data, for the page."""
    if data is None:
        return "arithmetic pairs"
    if isinstance(data, str | Path):
        return Path(data).name
    return type(data).__name__ if not isinstance(data, list) else "your data"
