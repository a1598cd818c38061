"""Load a pretrained base model and its tokenizer: the bundled one, one from a directory, or one from the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as hf_logging

from .. import tiny
from ..errors import ModelError

__all__ = ["BUNDLED_MODEL", "canonical_name", "load_pretrained", "load_tokenizer", "resolve_source"]

T = TypeVar("T")

BUNDLED_MODEL = "mint-tiny"
BUNDLED_ALIAS = f"mint-lab/{BUNDLED_MODEL}"  # for programs that split a name into organization and model
HUB_TIMEOUT_SECONDS = 5.0


def resolve_source(name: str) -> str:
    """Return what to load for ``name``: the full path of a directory, or the hub name unchanged.

    Raises:
        ModelError: If ``name`` is not a name, is a directory that is missing or has no model, or if the bundled model
            is not installed.
    """
    if not isinstance(name, str) or not name:
        raise ModelError(f"base_model is {name!r}, expected {BUNDLED_MODEL!r}, a directory, or a hub name")
    if name in {BUNDLED_MODEL, BUNDLED_ALIAS}:
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
        raise ModelError(f"no directory {name!r}; give a model directory, a hub name, or {BUNDLED_MODEL!r}")
    return name


def canonical_name(source: str) -> str:
    """Return the name that checkpoints record: "mint-tiny" if ``source`` is the bundled model's directory."""
    return BUNDLED_MODEL if source == str((Path(tiny.__file__).parent / tiny.NAME).resolve()) else source


def load_pretrained(
    source: str, device: torch.device, dtype: torch.dtype, *, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Load a tokenizer and a model, frozen and in inference mode.

    Args:
        source: What :func:`resolve_source` returned.
        device: The device to move the model to.
        dtype: The type of its weights.
        trust_remote_code: Whether to run Python code that comes with the model, if it needs any.

    Raises:
        ModelError: If nothing can be loaded from ``source``, its weights are not safetensors or lack a tensor, or it
            needs code of its own; the message says what to do.
    """
    _check_safetensors(source)
    with _unloadable(source):
        tokenizer, model, missing = _load(source, dtype, trust_remote_code)
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"the weights of base model {source!r} lack the tensor {missing[0]}{others}, which would begin with random "
            "values; download or save the model again, or check that its config.json is of the same model"
        )
    return tokenizer, model.to(device).eval().requires_grad_(False)


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> tuple[Any, Any, Any]:
    """Load a tokenizer, the configuration of its model, and the generation configuration, but no weights.

    Args:
        source: What :func:`resolve_source` returned.
        trust_remote_code: As in :func:`load_pretrained`.

    Raises:
        ModelError: If they cannot be loaded; the message says what to do.
    """

    def load(options: dict[str, Any]) -> tuple[Any, Any, Any]:
        config, tokenizer = _text_files(source, options)
        try:
            generation_config = GenerationConfig.from_pretrained(source, **options)
        except OSError:  # as transformers does for a model without the file
            generation_config = GenerationConfig.from_model_config(config)
        return tokenizer, config, generation_config

    with _unloadable(source):
        return _local_first(source, load, trust_remote_code)


@contextlib.contextmanager
def _unloadable(source: str) -> Generator[None]:
    """Within this context, whatever transformers raises about a model becomes a :class:`ModelError`."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"base model {source!r} needs Python code that comes with it, which is not run unless you ask for it: "
                "read the code, and then use ServiceClient(trust_remote_code=True)"
            ) from error
        hint = (
            "the directory is not a complete causal language model"
            if Path(source).is_dir()
            else f"check the name and the network; on a machine without network, download the model elsewhere and "
            f"give its directory as base_model, or use {BUNDLED_MODEL!r}, which needs no download"
        )
        raise ModelError(f"cannot load base model {source!r} ({reason}): {hint}") from error


def _check_safetensors(source: str) -> None:
    """Raise :class:`ModelError` if a folder has weights that only pickle can read."""
    folder = Path(source)
    pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin")) if folder.is_dir() else []
    if pickled and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"the weights of base model {source!r} are in {pickled[0]}, a pickle file, which can run any code when it "
            "is loaded; expected safetensors: if you trust the file, load the model once with transformers and call "
            "its save_pretrained(folder)"
        )


def _load(source: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Any, list[str]]:
    """Load tokenizer and model, and the names of the tensors that the weights lack."""

    def load(options: dict[str, Any]) -> tuple[Any, Any, list[str]]:
        config, tokenizer = _text_files(source, options)
        with _no_progress_bar(source):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
        model, info = loaded
        return tokenizer, model, sorted(info["missing_keys"])

    return _local_first(source, load, trust_remote_code)


def _text_files(source: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer."""
    config = AutoConfig.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    # If the tokenizer's files are missing, transformers creates one that knows special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise OSError("there is no tokenizer")
    return config, tokenizer


def _local_first(source: str, load: Callable[[dict[str, Any]], T], trust_remote_code: bool) -> T:
    """Load from this machine if the files are there, otherwise from the hub."""
    # Given as False, transformers does not ask on stdin.
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if Path(source).is_dir():
        return load(local)
    try:
        return load(local)
    except OSError:
        _check_hub()
        return load({**local, "local_files_only": False})


def _check_hub() -> None:
    """Raise OSError at once if the hub does not answer; otherwise each file would be retried for a long time."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_SECONDS)
    except Exception as error:  # the kind depends on the transport that huggingface_hub uses
        raise OSError(f"no answer from {constants.ENDPOINT}: {error}") from error


@contextlib.contextmanager
def _no_progress_bar(source: str) -> Generator[None]:
    """Within this context, loading from a directory, which is quick, leaves no progress bar in a notebook."""
    was_enabled = hf_logging.is_progress_bar_enabled()
    if Path(source).is_dir():
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            hf_logging.enable_progress_bar()
