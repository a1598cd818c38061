"""Clients with the Tinker/MinT API: over the engine on this machine, and over a hosted service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import ServiceClientProtocol, TextSource

__all__ = ["connect", "text_source"]


def connect(base_url: str | None = None) -> ServiceClientProtocol:
    """Return a service to train on: this machine, or a server of the API.

    Args:
        base_url: None for the local engine; a URL for MinT, Tinker or another server. Its key is taken from the
            environment, as that service documents.

    Raises:
        ConfigError: If the remote service's SDK cannot be used as it is set up.
    """
    if base_url is None:
        from .service import ServiceClient as LocalServiceClient

        return LocalServiceClient()
    from .remote import connect as connect_remote

    return connect_remote(base_url)


def text_source(base_model: str) -> TextSource:
    """Return the tokenizer of a local base model, with its longest sequence and its end tokens, without its weights.

    Args:
        base_model: Name of a base model; or the folder of an adapter, for its base model.

    Raises:
        ModelError: If they cannot be found or loaded.
        CheckpointError: If the folder of an adapter is damaged, or has a feature that cannot be trained.
    """
    from ..engine.text_model import load_text_model
    from ..lora_options import adapter_folder

    folder = adapter_folder(base_model)
    if folder is None:
        return load_text_model(base_model)
    from ..engine.checkpoints import load_base_of, read_adapter

    return load_base_of(read_adapter(folder).base_model, folder, load_text_model)
