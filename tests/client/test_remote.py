"""Connecting to a server of the API: no server is asked anything here."""

from __future__ import annotations

from typing import Any

import pytest
import tinker

from mint_lab.client import connect
from mint_lab.errors import ConfigError


@pytest.mark.parametrize("url", ["localhost:8000", "mint", "", "ftp://x"])
def test_invalid_urls_raise(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected http://\.\.\. or https://\.\.\."):
        connect(url)


def test_missing_key_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"no key for http://127.0.0.1:9: set TINKER_API_KEY or pass api_key"):
        connect("http://127.0.0.1:9")


def test_errors_of_the_sdk_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    from mint_lab.client.remote import connect as remote

    monkeypatch.setattr(tinker, "ServiceClient", refuse)
    with pytest.raises(ConfigError, match=r"cannot use http://127.0.0.1:9: boom"):
        remote("http://127.0.0.1:9", api_key="tml-x")


def refuse(**_: Any) -> None:
    raise tinker.TinkerError("boom")


def test_sdk_receives_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from mint_lab.client.remote import connect as remote

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(tinker, "ServiceClient", lambda **options: given.append(options) or "client")
    monkeypatch.setenv("TINKER_API_KEY", "tml-from-the-environment")
    assert connect("https://mint.example") == "client"
    assert remote("https://mint.example", api_key="tml-x") == "client"
    assert given == [{"base_url": "https://mint.example"}, {"base_url": "https://mint.example", "api_key": "tml-x"}]
