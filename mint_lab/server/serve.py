"""Run the server: which address, which key, and until when."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from ..client.checkpoint_paths import default_home
from ..errors import ConfigError
from .sessions import ServerSettings, TrainingServer

__all__ = ["check_keys", "default_folder", "serve", "server_key"]

KEY_FILE = "key"
STOP_SECONDS = 2  # that requests which are answered may take when the server stops; held polls are cut off
_KEY = re.compile(r"tml-[\x21-\x7e]{8,200}")


def serve(
    settings: ServerSettings, host: str = "127.0.0.1", port: int = 0, say: Callable[[str], object] = print
) -> None:
    """Load the models, and answer requests until the process is interrupted.

    Args:
        settings: The settings; without keys, the key in the folder of the state is used, and created at first.
        host: Address to listen on. Anything but a loopback address requires keys in the settings.
        port: Port to listen on; 0 for a free one.
        say: Called with the lines that say how to connect.

    Raises:
        ConfigError: If a package is missing, the address cannot be used, or a key is not acceptable.
        ModelError: If a model cannot be loaded.
    """
    try:
        import uvicorn

        from .app import create_app
    except ImportError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"{error.name} is not installed; install it with: pip install 'mint_lab[serve]'") from None
    is_local = _is_loopback(host)
    if not settings.keys and not is_local:
        raise ConfigError(f"--host {host} can be reached by others; give a key of your choice with --key tml-...")
    settings = replace(settings, keys=check_keys(settings.keys) or [server_key(settings.folder)])
    listening = _listen(host, port)
    with listening:
        server = TrainingServer(settings)
        server.load()
        config = uvicorn.Config(
            create_app(server),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        # uvicorn hands the signal that ended it to the handler that was set before: exit normally, so that checkpoints
        # which are being written are completed.
        signal.signal(signal.SIGTERM, _exit)
        for line in _connection(settings, host, listening.getsockname()[1], is_local):
            say(line)
        uvicorn.Server(config).run(sockets=[listening])


def server_key(folder: Path) -> str:
    """Return the key in ``folder``, and create it at first: a server that is started again has the same key.

    Raises:
        ConfigError: If the file cannot be read or written, or has no key.
    """
    file = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return check_keys([file.read_text(encoding="ascii").strip()])[0]
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            key = f"tml-{secrets.token_urlsafe(24)}"
            opened.write(key + "\n")
        return key
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot use {file} for the server's key: {error}") from error


def check_keys(keys: Sequence[str]) -> list[str]:
    """Return the keys without repetitions.

    Raises:
        ConfigError: If the SDK would not accept a key, or it is short.
    """
    for key in keys:
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"the key {key[:6]}... is not acceptable: expected tml- and 8 to 200 further characters, without spaces"
            )
    return list(dict.fromkeys(keys))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error}; choose another --port or --host") from error


def _exit(_signal: int, _frame: FrameType | None) -> Any:
    sys.exit(0)


def _connection(settings: ServerSettings, host: str, port: int, is_local: bool) -> list[str]:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"serving {', '.join(settings.models)} on {url}, state in {settings.folder}",
        *(f"key: {key}" for key in settings.keys),
        f"connect: tinker.ServiceClient(base_url={url!r}, api_key=...)",
    ]
    if not is_local:
        lines.append("requests are not encrypted: use a network that you trust, an SSH tunnel, or a proxy with TLS")
    return lines


def default_folder() -> Path:
    """Return the folder of the state if none is given: ``server`` in ``$MINT_LAB_HOME``."""
    return default_home() / "server"
