"""Trackers of experiments that a run reports to: what one is, and those of TensorBoard, Weights & Biases and Trackio.

A tracker of your own is any object with the methods of :class:`Reporter`. They are called on a separate thread, one
after the other, so a slow tracker delays no step.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..errors import ConfigError, one_of

__all__ = [
    "REPORTERS",
    "ReportTo",
    "Reporter",
    "TensorBoardReporter",
    "TrackioReporter",
    "WandbReporter",
    "reporters_of",
]


@runtime_checkable
class Reporter(Protocol):
    """Receives what a run records. An exception of any method ends the reports to this object, not the run."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin, or continue a run that was opened again or has finished before.

        Args:
            config: All settings, as ``run.config``, and the ``folder`` of the run.
        """
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the numbers of a step.

        Args:
            step: The step, from 1; 0 for the evaluation before training. After a rewind, steps come again.
            metrics: ``seconds`` since the start, ``step_time``, ``tokens``, training metrics, held-out metrics as
                ``held_out/NAME`` and settings as ``settings/NAME``.
        """
        ...

    def edit(self, step: int, text: str) -> None:
        """Take a change that takes effect at ``step``, for example ``learning_rate 0.001``."""
        ...

    def finish(self, status: str) -> None:
        """End, with the status of the run: "finished" or "stopped". A finished run may be continued."""
        ...


ReportTo: TypeAlias = str | Reporter | Sequence[str | Reporter] | None


class TensorBoardReporter:
    """Writes event files of TensorBoard: scalars, edits as texts, and the settings as a text.

    Args:
        folder: Where; None for ``tensorboard`` in the run's folder.
    """

    package = "tensorboard"

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder
        self._writer: Any = None

    def start(self, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder or Path(config["folder"]) / "tensorboard"))
        rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
        self._writer.add_text("config", f"| setting | value |\n|---|---|\n{rows}", 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def edit(self, step: int, text: str) -> None:
        self._writer.add_text("edits", text, step)

    def finish(self, status: str) -> None:
        self._writer.add_text("status", status, 0)
        self._writer.close()


class WandbReporter:
    """Logs to Weights & Biases. Edits are the list ``edits`` of the run's config.

    Args:
        project: Name of the project.
        options: Further arguments of ``wandb.init``, for example ``mode="offline"``.
    """

    package = "wandb"

    def __init__(self, project: str = "mint_lab", **options: Any) -> None:
        self._project, self._options = project, options
        self._run: Any = None
        self._edits: list[str] = []

    def start(self, config: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        given = {
            "name": config["name"],
            "id": _id(config),
            "resume": "allow",
            "dir": config["folder"],
            "tags": list(config["tags"]),
            "notes": config["description"] or None,
            "reinit": "create_new",
        }
        self._run = wandb.init(project=self._project, config=_plain(config), **(given | self._options))
        # With a metric as the axis, the steps after a rewind are shown too; W&B's own step can only rise.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def edit(self, step: int, text: str) -> None:
        self._edits.append(f"step {step}: {text}")
        self._run.config.update({"edits": list(self._edits)}, allow_val_change=True)

    def finish(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish()


class TrackioReporter:
    """Logs to Trackio, on this machine unless ``options`` name a server. Edits are logged as the text ``edit``.

    Args:
        project: Name of the project.
        options: Further arguments of ``trackio.init``, for example ``space_id``.
    """

    package = "trackio"

    def __init__(self, project: str = "mint_lab", **options: Any) -> None:
        self._project, self._options = project, options
        self._run: Any = None

    def start(self, config: Mapping[str, Any]) -> None:
        trackio: Any = importlib.import_module("trackio")
        name = f"{config['name']}-{_id(config)}"
        given = {"name": name, "resume": "allow", "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        self._run = trackio.init(project=self._project, config=_plain(config), **(given | self._options))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def edit(self, step: int, text: str) -> None:
        self._run.log({"edit": text}, step=step)

    def finish(self, status: str) -> None:
        self._run.log({"status": status})
        self._run.finish()


REPORTERS: Mapping[str, type[TensorBoardReporter | WandbReporter | TrackioReporter]] = {
    "tensorboard": TensorBoardReporter,
    "trackio": TrackioReporter,
    "wandb": WandbReporter,
}
"""The trackers that ``report_to`` knows by name."""


def reporters_of(report_to: ReportTo) -> list[Reporter]:
    """Return the reporters that a person named or gave.

    Raises:
        ConfigError: If a name is unknown, its package is not installed, or an object lacks a method.
    """
    given = [] if report_to is None else list(report_to) if isinstance(report_to, list | tuple) else [report_to]
    return [_reporter(each) for each in given]


def _reporter(given: Any) -> Reporter:
    if isinstance(given, str):
        if given not in REPORTERS:
            raise ConfigError(f"report_to is {given!r}; {one_of(list(REPORTERS), given)}")
        given = REPORTERS[given]()
    package = getattr(given, "package", None)
    if isinstance(package, str) and importlib.util.find_spec(package) is None:
        raise ConfigError(f"report_to={package!r} needs the package {package}: pip install 'mint_lab[{package}]'")
    if isinstance(given, type) or not isinstance(given, Reporter):
        raise ConfigError(
            f"report_to is {given!r}, expected a name ({', '.join(REPORTERS)}) or an object with the methods start, "
            "log, edit and finish"
        )
    return given


def _id(config: Mapping[str, Any]) -> str:
    """Return an id that a run keeps when it is opened again: it follows from the folder."""
    return hashlib.sha256(str(config["folder"]).encode()).hexdigest()[:12]


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}
