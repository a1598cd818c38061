"""A client of the HTTP API without the SDK: it sends any bytes, in any order, and drops connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from mint_lab.server.app import create_app
from mint_lab.server.sessions import ServerSettings, TrainingServer

KEY = "tml-first-key"
OTHER_KEY = "tml-second-key"


def make_server(folder: Path, **settings: Any) -> TrainingServer:
    """Return a server with the bundled model and two keys."""
    server = TrainingServer(ServerSettings(folder, (KEY, OTHER_KEY), **settings))
    server.load()
    return server


def run(server: TrainingServer, program: Callable[[Api], Awaitable[Any]], key: str = KEY) -> Any:
    """Run a program against a server, without sockets."""

    async def main() -> Any:
        transport = httpx.ASGITransport(app=create_app(server), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await program(Api(client, key))

    return asyncio.run(main())


class Api:
    """Requests with one key."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self.client = client
        self.key = key

    def with_key(self, key: str) -> Api:
        return Api(self.client, key)

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key, **options.pop("headers", {})}
        return await self.client.request(method, f"/api/v1/{path}", headers=headers, **options)

    async def post(self, path: str, body: Any) -> Any:
        """Post JSON and return the answer, which must not be an error."""
        response = await self.request("POST", path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def fetch(self, submitted: dict[str, Any], **headers: str) -> Any:
        """Poll for a result; a protobuf one is returned as bytes."""
        while True:
            body = {"request_id": submitted["request_id"], "allow_metadata_only": True}
            response = await self.request("POST", "retrieve_future", json=body, headers=headers)
            assert response.status_code == 200, response.text
            if response.headers["content-type"] != "application/json":
                return response.content
            if response.json().get("type") != "try_again":
                return response.json()

    async def call(self, path: str, body: Any) -> Any:
        """Submit, and return the result."""
        return await self.fetch(await self.post(path, body))

    async def session(self) -> str:
        body = {"tags": [], "user_metadata": None, "sdk_version": "0.22.0", "type": "create_session"}
        return (await self.post("create_session", body))["session_id"]

    async def model(self, session: str | None = None, number: int = 0, seed: int = 0) -> str:
        body = create_model(session or await self.session(), number, seed)
        return (await self.call("create_model", body))["model_id"]


def create_model(session: str, number: int = 0, seed: int = 0) -> dict[str, Any]:
    lora = {"rank": 2, "seed": seed, "train_unembed": True, "train_mlp": True, "train_attn": True}
    return {"session_id": session, "model_seq_id": number, "base_model": "mint-tiny", "lora_config": lora}


def tensor(values: list[Any], dtype: str = "float32") -> dict[str, Any]:
    return {"data": values, "dtype": dtype, "shape": [len(values)]}


def datum(tokens: list[int], targets: list[int], weights: list[float]) -> dict[str, Any]:
    fields = {"target_tokens": tensor(targets, "int64"), "weights": tensor(weights)}
    return {"model_input": {"chunks": [{"type": "encoded_text", "tokens": tokens}]}, "loss_fn_inputs": fields}


DATA = [datum([5, 6, 7], [6, 7, 8], [0.0, 1.0, 1.0]), datum([9, 8], [8, 7], [0.5, 1.0])]


def batch(model: str, seq_id: Any, data: Any = None, loss_fn: Any = "cross_entropy", **more: Any) -> dict[str, Any]:
    batch = {"data": DATA if data is None else data, "loss_fn": loss_fn, **more}
    return {"forward_backward_input": batch, "model_id": model, "seq_id": seq_id}


def adam(model: str, seq_id: Any, **settings: Any) -> dict[str, Any]:
    return {"model_id": model, "seq_id": seq_id, "adam_params": {"learning_rate": 1e-2, **settings}}


def sample(sampler: str, seq_id: int = 0, **more: Any) -> dict[str, Any]:
    prompt = {"chunks": [{"type": "encoded_text", "tokens": [5, 6, 7]}]}
    params = {"max_tokens": 3, "seed": 1, "temperature": 1.0, "top_k": -1, "top_p": 1.0}
    fixed = {"sampling_session_id": sampler, "seq_id": seq_id, "num_samples": 2, "prompt": prompt}
    return {**fixed, "sampling_params": params, "prompt_logprobs": False, "topk_prompt_logprobs": 0, **more}


def as_bytes(body: Any) -> bytes:
    return json.dumps(body).encode()
