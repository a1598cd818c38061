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

    Raises:
        ModelError: If they cannot be found or loaded.
    """
    from ..engine.text_model import load_text_model

    return load_text_model(base_model)
