"""The Tinker/MinT-shaped face over the engine, and the same face over a hosted service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import ServiceClient

__all__ = ["connect"]


def connect(base_url: str | None = None) -> ServiceClient:
    """A service to train on: this machine, or a server of the API.

    Args:
        base_url: None for the local engine; a URL for MinT, Tinker or another server (its key comes from the
            environment, as that service documents).

    Raises:
        ConfigError: the SDK for a remote service is not usable as set up.
    """
    if base_url is None:
        from .service import ServiceClient as Local

        return Local()
    from .remote import connect as remote

    return remote(base_url)
