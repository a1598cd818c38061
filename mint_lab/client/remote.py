"""Connect to a hosted service with the official SDK: MinT, Tinker, SkyRL.

The SDK's clients satisfy ``client/protocol.py``. This module adds ``lora=``, as far as a service has its options, and
clear errors where the SDK would fail with a traceback. This project's tests do not run against a live server.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from ..lora_options import LoraOptions, merge_rank, refuse_hosted

__all__ = ["connect"]

# Environment variables in which the SDK looks for a key, or for a command that prints one.
_KEY_VARIABLES = ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD")


def connect(base_url: str, api_key: str | None = None) -> Any:
    """Return the SDK's ``ServiceClient`` for ``base_url``; its ``create_lora_training_client`` also takes ``lora=``.

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

    class HostedServiceClient(tinker.ServiceClient):
        """The SDK's client, with the option ``lora``."""

        def create_lora_training_client(self, *args: Any, lora: LoraOptions | None = None, **options: Any) -> Any:
            return super().create_lora_training_client(*args, **_with_lora(args, options, lora))

        async def create_lora_training_client_async(
            self, *args: Any, lora: LoraOptions | None = None, **options: Any
        ) -> Any:
            made = super().create_lora_training_client_async  # pyright: ignore[reportDeprecated]  # in newer SDKs
            return await made(*args, **_with_lora(args, options, lora))

    try:
        options: dict[str, Any] = {"api_key": api_key} if api_key else {}
        return HostedServiceClient(base_url=base_url, **options)
    except (tinker.TinkerError, ValueError) as error:
        raise ConfigError(f"cannot use {base_url}: {error}") from error


def _with_lora(args: Sequence[Any], options: dict[str, Any], lora: LoraOptions | None) -> dict[str, Any]:
    """Return the SDK's arguments for ``lora``.

    Raises:
        ConfigError: If ``lora`` has what the service does not offer, or other arguments say the same.
    """
    if lora is None:
        return options
    merge_rank(options.get("rank"), lora, default=32)
    refuse_hosted(lora)
    kinds = {f"train_{kind}": getattr(lora, kind) for kind in ("mlp", "attn", "unembed")}
    twice = [name for name, value in kinds.items() if options.get(name, value) != value]
    if twice or len(args) > 1:
        raise ConfigError(f"{twice[0] if twice else 'rank'} and lora are both given; say it in lora only")
    return {**options, **kinds, "rank": lora.rank}
