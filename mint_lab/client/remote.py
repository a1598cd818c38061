"""Connect to a hosted service with the official SDK: MinT, Tinker, SkyRL.

The SDK's clients satisfy ``client/protocol.py`` as they are. This module adds one clear error for cases in which the
SDK would fail with a traceback through its transport. This project's tests do not run against a live server.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConfigError

__all__ = ["connect"]

# Environment variables in which the SDK looks for a key, or for a command that prints one.
_KEY_VARIABLES = ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD")


def connect(base_url: str, api_key: str | None = None) -> Any:
    """Return the SDK's ``ServiceClient`` for ``base_url``.

    Args:
        base_url: The server's URL.
        api_key: The key; None to take it from the environment, as the SDK documents (``TINKER_API_KEY``).

    Raises:
        ConfigError: If ``base_url`` is not a URL, or there is no key.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"base_url is {base_url!r}, expected http://... or https://...")
    if not api_key and not any(map(os.environ.get, _KEY_VARIABLES)):
        raise ConfigError(
            f"no key for {base_url}: set {_KEY_VARIABLES[0]} or pass api_key (some SDKs would ask for it much later)"
        )
    import tinker

    try:
        options: dict[str, Any] = {"api_key": api_key} if api_key else {}
        return tinker.ServiceClient(base_url=base_url, **options)
    except (tinker.TinkerError, ValueError) as error:
        raise ConfigError(f"cannot use {base_url}: {error}") from error
