"""Where a base model comes from: the package itself, a directory, or the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from .. import tiny
from ..errors import ModelError

__all__ = ["BUNDLED", "find", "name_of", "read"]

BUNDLED = "mint-tiny"
# How long the hub may take to answer at all, seconds.
HUB_SECONDS = 5.0


def find(name: str) -> str:
    """What to load for ``name``: a directory's full path, or the hub name as it is.

    Raises:
        ModelError: it is no name, a directory that is missing or holds no model, or the bundled model is not installed.
    """
    if not isinstance(name, str) or not name:
        raise ModelError(f"base_model is {name!r}, expected {BUNDLED!r}, a directory, or a hub name")
    if name == BUNDLED:
        try:
            return str(tiny.path().resolve())
        except FileNotFoundError as error:
            raise ModelError(str(error)) from error
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} has no config.json; expected a model saved by save_pretrained")
        return str(folder.resolve())
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"no directory {name!r}; give a model directory, a hub name, or {BUNDLED!r}")
    return name


def name_of(source: str) -> str:
    """The name that checkpoints record: the same one, whether the bundled model was named or given as a directory."""
    return BUNDLED if source == str((Path(tiny.__file__).parent / tiny.NAME).resolve()) else source


def read(source: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and model, ready for inference on ``device``.

    Raises:
        ModelError: nothing can be loaded from there; the message says what to do.
    """
    try:
        tokenizer, model = _read(source, dtype)
        return tokenizer, model.to(device).eval().requires_grad_(False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            "the directory is not a complete causal language model"
            if Path(source).is_dir()
            else f"check the name and the network; on a machine without network, download the model elsewhere and "
            f"give its directory as base_model, or use {BUNDLED!r}, which needs no download"
        )
        raise ModelError(f"cannot load base model {source!r} ({reason}): {hint}") from error


def _read(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and model, from this machine where they are already there, otherwise from the hub."""

    def load(*, local: bool) -> tuple[Any, Any]:
        config = AutoConfig.from_pretrained(source, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a model without its files
            raise OSError("there is no tokenizer")
        with _no_progress_bar(source):
            model = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype, local_files_only=local)
        return tokenizer, model

    if Path(source).is_dir():
        return load(local=True)
    try:
        return load(local=True)
    except OSError:
        _reach_hub()
        return load(local=False)


def _reach_hub() -> None:
    """Raise :class:`OSError` where the hub does not answer: each file asked for would otherwise be retried for long."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # the kind depends on the transport that huggingface_hub uses
        raise OSError(f"no answer from {constants.ENDPOINT}: {error}") from error


@contextlib.contextmanager
def _no_progress_bar(source: str) -> Generator[None]:
    """A local model loads at once, and its progress bar would only end up in a notebook's output."""
    shown = hf_logging.is_progress_bar_enabled()
    if Path(source).is_dir():
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
