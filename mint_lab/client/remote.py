"""The same protocol over the official SDK: MinT, Tinker, SkyRL.

The SDK's clients satisfy ``client/protocol.py`` as they are; what is added here is one clear error where the SDK would
fail with a trace through its transport. Not exercised against a live server by this project's tests.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import ConfigError

__all__ = ["connect"]

# Where the SDK looks for a key, or for a command that prints one.
_KEYS = ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD")


def connect(base_url: str, api_key: str | None = None) -> Any:
    """The SDK's ``ServiceClient`` on ``base_url``.

    Args:
        api_key: None takes it from the environment, as the SDK documents (``TINKER_API_KEY``).

    Raises:
        ConfigError: the URL is not one, or there is no key.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"base_url is {base_url!r}, expected http://... or https://...")
    if not api_key and not any(map(os.environ.get, _KEYS)):
        raise ConfigError(
            f"no key for {base_url}: set {_KEYS[0]} or pass api_key (some SDKs would ask for it much later)"
        )
    import tinker

    try:
        options: dict[str, Any] = {"api_key": api_key} if api_key else {}
        return tinker.ServiceClient(base_url=base_url, **options)
    except (tinker.TinkerError, ValueError) as error:
        raise ConfigError(f"cannot use {base_url}: {error}") from error
