"""Connecting to a server of the API: no server is asked anything here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import tinker

from mint_lab.client import connect
from mint_lab.errors import ConfigError
from mint_lab.lora_options import LoraOptions


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

    class Refusing:
        def __init__(self, **_: Any) -> None:
            raise tinker.TinkerError("boom")

    monkeypatch.setattr(tinker, "ServiceClient", Refusing)
    with pytest.raises(ConfigError, match=r"cannot use http://127.0.0.1:9: boom"):
        remote("http://127.0.0.1:9", api_key="tml-x")


class Hosted:
    """In the place of the SDK's client: keeps what it gets."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def create_lora_training_client(self, base_model: str, rank: int = 32, **options: Any) -> Any:
        return {"base_model": base_model, "rank": rank, **options}

    async def create_lora_training_client_async(self, base_model: str, rank: int = 32, **options: Any) -> Any:
        return self.create_lora_training_client(base_model, rank, **options)


def test_sdk_receives_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from mint_lab.client.remote import connect as remote

    monkeypatch.setattr(tinker, "ServiceClient", Hosted)
    monkeypatch.setenv("TINKER_API_KEY", "tml-from-the-environment")
    clients: list[Any] = [connect("https://mint.example"), remote("https://mint.example", api_key="tml-x")]
    assert all(isinstance(client, Hosted) for client in clients)
    assert [client.options for client in clients] == [
        {"base_url": "https://mint.example"},
        {"base_url": "https://mint.example", "api_key": "tml-x"},
    ]


def test_the_real_class_can_be_extended() -> None:
    from mint_lab.client.remote import connect as remote

    client = remote("http://127.0.0.1:9", api_key="tml-x")
    assert isinstance(client, tinker.ServiceClient)
    with pytest.raises(ConfigError, match="does not take alpha of lora"):
        client.create_lora_training_client("m", lora=LoraOptions(alpha=1))


def test_services_get_rank_and_kinds_and_refuse_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinker, "ServiceClient", Hosted)
    monkeypatch.setenv("TINKER_API_KEY", "tml-x")
    client: Any = connect("https://mint.example")
    assert client.create_lora_training_client("m", 8, seed=1) == {"base_model": "m", "rank": 8, "seed": 1}
    lora = LoraOptions(4, unembed=False)
    expected = {"base_model": "m", "rank": 4, "train_mlp": True, "train_attn": True, "train_unembed": False}
    assert client.create_lora_training_client("m", lora=lora) == expected
    assert asyncio.run(client.create_lora_training_client_async("m", lora=lora)) == expected
    for options, words in (
        ({"lora": LoraOptions(4, alpha=16, dropout=0.1)}, "does not take alpha and dropout of lora"),
        ({"lora": LoraOptions(4, target_modules=["q_proj"], rslora=True)}, "rslora and target_modules of lora"),
        ({"lora": lora, "rank": 8}, "rank is 8, but lora has rank 4"),
        ({"lora": lora, "train_mlp": False}, "train_mlp and lora are both given"),
        ({"lora": "r4"}, "lora is 'r4', expected mint_lab.LoraOptions"),
    ):
        with pytest.raises(ConfigError, match=words):
            client.create_lora_training_client("m", **options)
    with pytest.raises(ConfigError, match="rank and lora are both given"):
        client.create_lora_training_client("m", 4, lora=lora)
