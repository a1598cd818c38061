"""The protocol beside the SDK: repeated and reordered requests, lost connections, and sixty bad requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
from tinker.proto import tinker_public_pb2 as schema
from tinker.proto.response_conv import deserialize_proto_response

from mint_lab.client.service import ServiceClient
from mint_lab.server.sessions import TrainingServer
from mint_lab.types import AdamParams, Datum, ForwardBackwardOutput, ModelInput

from .api import (
    DATA,
    KEY,
    OTHER_KEY,
    Api,
    adam,
    as_bytes,
    batch,
    create_model,
    datum,
    make_server,
    run,
    sample,
    tensor,
)

PROTOBUF = "application/x-protobuf"


def local_data() -> list[Datum]:
    """What ``DATA`` is in JSON."""
    return [
        Datum(ModelInput.from_ints([5, 6, 7]), {"target_tokens": np.array([6, 7, 8]), "weights": weights([0, 1, 1])}),
        Datum(ModelInput.from_ints([9, 8]), {"target_tokens": np.array([8, 7]), "weights": weights([0.5, 1])}),
    ]


def weights(values: list[float]) -> Any:
    return np.array(values, np.float32)


def protobuf(model: str, seq_id: int, *, forward_only: bool = False) -> bytes:
    message = schema.ForwardBackwardRequest(model_id=model, seq_id=seq_id, loss_fn="cross_entropy")
    message.forward_only = forward_only
    for given in local_data():
        added = message.data.add()
        added.model_input.add().encoded_text.tokens = np.array(given.model_input.to_ints(), np.int32).tobytes()
        for name, value in given.loss_fn_inputs.items():
            field = added.loss_fn_inputs[name]
            field.dense, field.shape[:] = value.to_numpy().tobytes(), value.to_numpy().shape
            field.dtype = schema.DTYPE_INT64 if value.dtype == "int64" else schema.DTYPE_FLOAT32
    return message.SerializeToString()


def test_both_forms_give_the_numbers_of_the_local_client(server: TrainingServer) -> None:
    local = ServiceClient().create_lora_training_client("mint-tiny", rank=2, seed=0)
    expected = [local.forward_backward(local_data(), "cross_entropy").result()]
    norm = local.optim_step(AdamParams(learning_rate=1e-2)).result().metrics
    expected.append(local.forward(local_data(), "cross_entropy").result())

    async def program(api: Api) -> None:
        session = await api.session()
        plain, binary = await api.model(session, 0), await api.model(session, 1)
        first = await api.call("forward_backward", batch(plain, 1))
        assert (await api.call("optim_step", adam(plain, 2)))["metrics"] == norm
        body = {"forward_input": {"data": DATA, "loss_fn": "cross_entropy"}, "model_id": plain, "seq_id": 3}
        second = await api.call("forward", body)
        for found, wanted in zip((first, second), expected, strict=True):
            assert found["metrics"]["loss:sum"] == wanted.metrics["loss:sum"]
            for row, output in zip(found["loss_fn_outputs"], wanted.loss_fn_outputs, strict=True):
                assert row["logprobs"]["data"] == output["logprobs"].data
        for seq_id, forward_only, wanted in ((1, False, expected[0]), (3, True, expected[1])):
            content = protobuf(binary, seq_id, forward_only=forward_only)
            answer = await api.request("POST", "forward_backward", content=content, headers={"Content-Type": PROTOBUF})
            raw = await api.fetch(answer.json(), Accept=PROTOBUF)
            output = deserialize_proto_response(raw, ForwardBackwardOutput)
            assert output.metrics["loss:sum"] == wanted.metrics["loss:sum"]
            if seq_id == 1:
                assert (await api.call("optim_step", adam(binary, 2)))["metrics"] == norm

    run(server, program)


def test_repeated_submits_run_once(server: TrainingServer) -> None:
    """The answer to a submit may be lost; the SDK repeats it, some calls with a new idempotency key."""

    async def program(api: Api) -> None:
        session = await api.session()
        model = await api.model(session)
        bodies = [
            ("forward_backward", batch(model, 1)),
            ("optim_step", adam(model, 2)),
            ("save_weights", {"model_id": model, "seq_id": 3, "path": "a"}),
            ("save_weights_for_sampler", {"model_id": model, "seq_id": 4, "sampling_session_seq_id": 0}),
        ]
        for path, body in bodies:
            first, again = await api.post(path, body), await api.post(path, body)
            assert first["request_id"] == again["request_id"]
            assert "error" not in await api.fetch(first), path
        sampler = f"{session}:sample:0"
        first, again = [await api.post("asample", sample(sampler)) for _ in range(2)]
        assert first == again
        assert len(first["sample_sequence_ids"]) == 2
        # One step: a second one would have failed, because the gradient was used.
        once = await api.call("forward_backward", batch(model, 5))
        other = await api.model(session, 1)
        await api.call("forward_backward", batch(other, 1))
        await api.call("optim_step", adam(other, 2))
        assert (
            once["metrics"]["loss:sum"] == (await api.call("forward_backward", batch(other, 3)))["metrics"]["loss:sum"]
        )

    run(server, program)


def test_requests_run_in_the_order_of_their_numbers(server: TrainingServer) -> None:
    """Chunks of one batch arrive as 2, 3, 1, and the step is submitted before any result."""

    async def program(api: Api) -> None:
        session = await api.session()
        chunked, whole = await api.model(session, 0), await api.model(session, 1)
        step = await api.post("optim_step", adam(chunked, 4))
        chunks = [await api.post("forward_backward", batch(chunked, n, [DATA[n % 2]])) for n in (2, 3, 1)]
        await api.post("forward_backward", batch(whole, 1, [DATA[0], DATA[1], DATA[1]]))
        expected = await api.call("optim_step", adam(whole, 2))
        assert (await api.fetch(step))["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert ["metrics" in await api.fetch(chunk) for chunk in chunks] == [True] * 3

    run(server, program)


def test_bad_chunk_fails_by_its_result(server: TrainingServer) -> None:
    async def program(api: Api) -> None:
        model = await api.model()
        bad = datum([5, 99_999], [6, 7], [1.0, 1.0])
        sent = [
            await api.post("forward_backward", batch(model, n, [d])) for n, d in enumerate((DATA[0], bad, DATA[1]), 1)
        ]
        results = [await api.fetch(pending) for pending in sent]
        assert [set(result) & {"error"} for result in results] == [set(), {"error"}, set()]
        assert results[1]["category"] == "user"
        assert "datum 0, field 'model_input': token id 99999 at position 1" in results[1]["error"]
        assert (await api.call("optim_step", adam(model, 4)))["metrics"]["grad_norm"] > 0

    run(server, program)


def test_oversized_batch_fails_by_its_result(tmp_path: Any) -> None:
    server = make_server(tmp_path, max_request_bytes=4096)

    async def program(api: Api) -> None:
        model = await api.model()
        large = batch(model, 1, [datum([5] * 1000, [6] * 1000, [1.0] * 1000)])
        result = await api.call("forward_backward", large)
        assert result["category"] == "user"
        assert "larger than 0.00390625 MiB, the limit of this server; send smaller batches" in result["error"]
        content = protobuf(model, 2) + b"\x22" * 9000
        answer = await api.request("POST", "forward_backward", content=content, headers={"Content-Type": PROTOBUF})
        assert "larger than" in (await api.fetch(answer.json()))["error"]
        assert "metrics" in await api.call("forward_backward", batch(model, 3))
        for path in ("optim_step", "forward_backward"):
            answer = await api.request("POST", path, content=b"x" * 5000)
            assert answer.status_code == 413
            assert "--max-request-mb" in answer.json()["detail"]

    run(server, program)


def test_result_survives_a_lost_connection(server: TrainingServer) -> None:
    """A poll is dropped while it is held, and the result is fetched twice afterwards."""

    async def program(api: Api) -> None:
        model = await api.model()
        pending = await api.post("optim_step", adam(model, 2))  # waits for request 1
        body = {"request_id": pending["request_id"]}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await api.request("POST", "retrieve_future", json=body)
        await api.post("forward_backward", batch(model, 1))
        first, again = await api.fetch(pending), await api.fetch(pending)
        assert first == again
        assert first["metrics"]["grad_norm"] > 0

    run(server, program)


def test_poll_is_answered_before_the_client_hangs_up(tmp_path: Any) -> None:
    server = make_server(tmp_path, hold_seconds=0.01)

    async def program(api: Api) -> None:
        model = await api.model()
        pending = await api.post("optim_step", adam(model, 2))
        answer = await api.post("retrieve_future", {"request_id": pending["request_id"]})
        assert answer == {"type": "try_again", "request_id": pending["request_id"], "queue_state": "active"}

    run(server, program)


def test_keys_do_not_see_each_other(server: TrainingServer) -> None:
    async def program(api: Api) -> None:
        other = api.with_key(OTHER_KEY)
        session = await api.session()
        model = await api.model(session)
        saved = await api.call("save_weights", {"model_id": model, "seq_id": 1, "path": "a"})
        await api.call("save_weights_for_sampler", {"model_id": model, "seq_id": 2, "sampling_session_seq_id": 0})
        assert "the server has no model" in (await other.call("forward_backward", batch(model, 3)))["error"]
        assert "the server has no sampler" in (await other.call("asample", sample(f"{session}:sample:0")))["error"]
        pending = await api.post("forward_backward", batch(model, 3))
        assert "the server has no request" in (await other.fetch(pending))["error"]
        assert "metrics" in await api.fetch(pending)
        refused = {
            "get_info": {"model_id": model},
            "session_heartbeat": {"session_id": session},
            "create_model": create_model(session),
            "weights_info": {"tinker_path": saved["path"]},
        }
        for path, body in refused.items():
            assert (await other.request("POST", path, json=body)).status_code == 404, path
        assert (await other.request("GET", "training_runs")).json()["training_runs"] == []
        assert (await api.request("GET", "training_runs")).json()["cursor"]["total_count"] == 1

    run(server, program)


def test_restart_is_named_and_the_session_goes_on(server: TrainingServer) -> None:
    """Nothing hangs: every request of the lost model has a result that says what to do."""

    async def before(api: Api) -> tuple[str, str, Any, Any]:
        session = await api.session()
        model = await api.model(session)
        await api.call("forward_backward", batch(model, 1))
        await api.call("optim_step", adam(model, 2))
        saved = await api.call("save_weights", {"model_id": model, "seq_id": 3, "path": "a"})
        after = await api.call("forward_backward", batch(model, 4))
        return session, saved["path"], after, await api.post("optim_step", adam(model, 6))

    session, path, expected, waiting = run(server, before)
    again = TrainingServer(server.settings)
    again.load()

    async def after(api: Api) -> None:
        assert "the server has no request" in (await api.fetch(waiting))["error"]
        lost = await api.call("forward_backward", batch(f"{session}:train:0", 5))
        assert "it was restarted" in lost["error"]
        assert "create_training_client_from_state_with_optimizer(path)" in lost["error"]
        body = {"session_id": session, "model_seq_id": 1, "path": path, "optimizer": True}
        model = (await api.call("load_weights", body))["model_id"]
        found = await api.call("forward_backward", batch(model, 1))
        assert found["metrics"]["loss:sum"] == expected["metrics"]["loss:sum"]

    run(again, after)


def test_checkpoints_are_listed_and_deleted(server: TrainingServer) -> None:
    async def program(api: Api) -> None:
        model = await api.model()
        path = (await api.call("save_weights", {"model_id": model, "seq_id": 1, "path": "a"}))["path"]
        await api.call("save_weights_for_sampler", {"model_id": model, "seq_id": 2, "path": "b"})
        info = await api.post("weights_info", {"tinker_path": path})
        kinds = {"train_unembed": True, "train_mlp": True, "train_attn": True}
        assert info == {"base_model": "mint-tiny", "is_lora": True, "lora_rank": 2, **kinds}
        listed = (await api.request("GET", f"training_runs/{model}/checkpoints")).json()["checkpoints"]
        assert sorted(c["checkpoint_id"] for c in listed) == ["sampler_weights/b", "weights/a"]
        assert (await api.request("GET", f"training_runs/{model}")).json()["base_model"] == "mint-tiny"
        assert (await api.request("DELETE", f"training_runs/{model}/checkpoints/weights/a")).json() == {}
        listed = (await api.request("GET", f"training_runs/{model}/checkpoints")).json()["checkpoints"]
        assert [c["checkpoint_id"] for c in listed] == ["sampler_weights/b"]

    run(server, program)


def test_sessions_show_what_they_hold(server: TrainingServer) -> None:
    async def program(api: Api) -> None:
        session = await api.session()
        model = await api.model(session)
        made = await api.post(
            "create_sampling_session", {"session_id": session, "sampling_session_seq_id": 0, "base_model": "mint-tiny"}
        )
        sampler = made["sampling_session_id"]
        assert (await api.request("GET", f"samplers/{sampler}")).json() == {
            "sampler_id": sampler,
            "base_model": "mint-tiny",
        }
        assert (await api.request("GET", "sessions")).json() == {"sessions": [session]}
        held = {"training_run_ids": [model], "sampler_ids": [sampler]}
        assert (await api.request("GET", f"sessions/{session}")).json() == held
        assert await api.post("session_heartbeat", {"session_id": session, "type": "session_heartbeat"})
        assert await api.post(f"sessions/{session}/finish", {"reason": {"type": "success"}}) == {}
        assert await api.post("telemetry", {"events": []}) == {"status": "accepted"}
        assert await api.post("client/dynamic_config", {}) == {}
        assert (await api.request("GET", "healthz")).json() == {"status": "ok"}

    run(server, program)


# -- bad requests ------------------------------------------------------------------------------------------------------

# What is sent (SESSION, MODEL and SAMPLER stand for real ones), the status of the answer, and words of its message.
MODEL, SESSION, SAMPLER = "MODEL", "SESSION", "SAMPLER"
FB = "forward_backward"


def asked(**change: Any) -> dict[str, Any]:
    return sample(SAMPLER, **change)


def params(**change: Any) -> dict[str, Any]:
    return sample(SAMPLER, sampling_params={**sample(SAMPLER)["sampling_params"], **change})


def with_field(name: str, value: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(DATA[0]))
    changed["loss_fn_inputs"][name] = value
    return batch(MODEL, 1, [changed])


REFUSED_AT_ONCE: list[tuple[str, Any, int, str]] = [
    ("create_model", b"", 400, "the body is not JSON"),
    ("create_model", b"\x00\x01", 400, "the body is not JSON"),
    ("create_model", [], 400, "a JSON list, expected an object"),
    ("create_model", {}, 400, "session_id: missing; model_seq_id: missing; base_model: missing"),
    ("create_model", {**create_model(SESSION), "model_seq_id": -1}, 400, "model_seq_id: Input should be greater"),
    ("create_model", {**create_model(SESSION), "lora_config": 5}, 400, "lora_config: Input should be"),
    ("create_model", create_model("stranger"), 404, "there is no session 'stranger' of this key"),
    ("create_sampling_session", {"session_id": SESSION}, 400, "sampling_session_seq_id: missing"),
    (
        "create_sampling_session",
        {"session_id": SESSION, "sampling_session_seq_id": 9, "model_path": "tinker://a/weights/b"},
        404,
        "no checkpoint at",
    ),
    (
        "create_sampling_session",
        {"session_id": SESSION, "sampling_session_seq_id": 9, "model_path": "/etc/passwd"},
        404,
        "'/etc/passwd' is not a checkpoint path",
    ),
    (
        "create_sampling_session",
        {"session_id": SESSION, "sampling_session_seq_id": 9, "base_model": "../x"},
        400,
        "base model '../x' is not served here",
    ),
    (FB, b"{", 400, "the body is not JSON"),
    (FB, {**batch(MODEL, 1), "model_id": 1}, 400, "model_id is 1, expected the id of a model"),
    (FB, batch(MODEL, "1"), 400, "seq_id is '1', expected a whole number"),
    ("optim_step", {"adam_params": {}}, 400, "model_id: missing"),
    ("optim_step", adam(MODEL, 1.5), 400, "seq_id: Input should be a valid integer"),
    ("optim_step", {"model_id": MODEL, "seq_id": 1, "adam_params": 1}, 400, "adam_params: Input should be"),
    ("save_weights", {"model_id": MODEL, "seq_id": 1, "path": 5}, 400, "path: Input should be a valid string"),
    ("load_weights", {"optimizer": True}, 400, "path: missing"),
    ("load_weights", {"path": "tinker://a/weights/b", "optimizer": False}, 400, "expected model_id and seq_id"),
    ("get_info", {"model_id": "nothing"}, 404, "the server has no model 'nothing'"),
    ("get_info", {"model_id": "stranger:train:0"}, 404, "the server has no model"),
    ("get_info", {}, 400, "model_id: missing"),
    ("weights_info", {"tinker_path": "tinker://../weights/a"}, 404, "is not a checkpoint path"),
    ("weights_info", {"tinker_path": "/etc"}, 404, "is not a checkpoint path"),
    ("weights_info", {"tinker_path": "tinker://a/weights/b"}, 404, "no checkpoint at"),
    ("session_heartbeat", {"session_id": "stranger"}, 404, "there is no session"),
    ("retrieve_future", {}, 400, "request_id: missing"),
    ("asample", {"seq_id": 0}, 400, "sampling_session_id: missing"),
    ("asample", asked(num_samples="many"), 400, "num_samples: Input should be a valid integer"),
    ("asample", asked(sampling_params=None), 400, "sampling_params: Input should be"),
    ("asample", asked(num_samples=10**9), 400, "num_samples: Input should be less than or equal to 4096"),
    ("no_such_call", {}, 404, "this server has no POST /api/v1/no_such_call"),
]

FAILED_LATER: list[tuple[str, Any, str]] = [
    ("retrieve_future", {"request_id": "nothing"}, "the server has no request 'nothing'"),
    (FB, batch("nothing", 1), "the server has no model 'nothing'"),
    (FB, {"model_id": MODEL, "seq_id": 1}, "field 'forward_backward_input': is None"),
    (FB, batch(MODEL, 1, []), "the batch is empty"),
    (FB, batch(MODEL, 1, "data"), "field 'data': is 'data', expected a list"),
    (FB, batch(MODEL, 1, [1]), "datum 0: is 1, expected an object"),
    (FB, batch(MODEL, 1, loss_fn="nothing"), "nothing"),
    (FB, batch(MODEL, 1, loss_fn=None), "loss_fn is None, expected a name"),
    (FB, batch(MODEL, 1, loss_fn="dpo"), "'dpo' is a custom loss"),
    (FB, batch(MODEL, 1, loss_fn_config={"x": 1}), "x"),
    (FB, batch(MODEL, 1, loss_fn="ppo"), "missing; fields present: target_tokens, weights"),
    (FB, with_field("weights", tensor([1.0])), "field 'weights': length 1, expected 3"),
    (FB, with_field("weights", {**tensor([1.0] * 3), "shape": [4]}), "3 values do not fit shape [4]"),
    (FB, with_field("weights", tensor([float("nan")] * 3)), "expected a finite number"),
    (FB, with_field("target_tokens", tensor([1.0] * 3)), "has type float32, expected integer token ids"),
    (FB, with_field("target_tokens", tensor([6, 7, 5000], "int64")), "token id 5000 at position 2"),
    (FB, with_field("mask", tensor([1.0] * 3)), "not a field of the built-in losses"),
    (FB, batch(MODEL, 1, [datum([], [], [])]), "is empty, expected at least one token"),
    (FB, batch(MODEL, 1, [datum([5] * 2000, [5] * 2000, [1.0] * 2000)]), "2000 tokens, but the model's context is"),
    ("optim_step", adam(MODEL, 1), "optim_step has no gradient to apply"),
    ("optim_step", adam(MODEL, 1, learning_rate="fast"), "AdamParams: learning_rate: Input should be a valid number"),
    ("optim_step", adam(MODEL, 1, momentum=1), "AdamParams: momentum: Extra inputs are not permitted"),
    ("optim_step", {"model_id": MODEL, "seq_id": 1}, "adam_params is missing"),
    ("optim_step", {"model_id": MODEL, "seq_id": 1, "optimizer_params": {"type": "dimuon"}}, "optimizer 'dimuon'"),
    ("save_weights", {"model_id": MODEL, "seq_id": 1, "path": "../a"}, "checkpoint name '../a': expected letters"),
    ("save_weights", {"model_id": MODEL, "seq_id": 1, "path": "a/b"}, "checkpoint name 'a/b'"),
    ("save_weights", {"model_id": MODEL, "seq_id": 1, "path": "a\x00"}, "checkpoint name"),
    ("save_weights_for_sampler", {"model_id": MODEL, "seq_id": 1, "path": ".."}, "checkpoint name '..'"),
    ("save_weights_for_sampler", {"model_id": MODEL, "seq_id": 1, "kind": "inflight"}, "kind is 'inflight'"),
    ("load_weights", {"model_id": MODEL, "seq_id": 1, "path": "/etc", "optimizer": True}, "not a checkpoint path"),
    (
        "load_weights",
        {"model_id": MODEL, "seq_id": 1, "path": "tinker://a/weights/b", "optimizer": True},
        "no checkpoint",
    ),
    ("create_model", {**create_model(SESSION, 5), "base_model": "/etc"}, "base model '/etc' is not served here"),
    ("asample", sample("nothing"), "the server has no sampler 'nothing'"),
    ("asample", asked(prompt="text"), "field 'prompt': is 'text'"),
    ("asample", asked(prompt={"chunks": []}), "is empty"),
    ("asample", asked(num_samples=0), "num_samples is 0"),
    ("asample", asked(topk_prompt_logprobs=-1), "topk_prompt_logprobs is -1"),
    ("asample", asked(topk_sample_logprobs=3), "topk_sample_logprobs is not available"),
    ("asample", params(max_tokens=-1), "max_tokens is -1"),
    ("asample", params(temperature=-1), "temperature is -1"),
    ("asample", params(temperature="hot"), "SamplingParams: temperature: Input should be a valid number"),
    ("asample", params(top_p=0), "top_p is 0"),
]


def test_there_are_sixty() -> None:
    assert len(REFUSED_AT_ONCE) + len(FAILED_LATER) >= 60


async def prepared(api: Api, body: Any) -> tuple[str, bytes]:
    """Create a session with a model and a sampler; return the model and the body with their ids."""
    session = await api.session()
    model = await api.model(session)
    await api.post(
        "create_sampling_session", {"session_id": session, "sampling_session_seq_id": 0, "base_model": "mint-tiny"}
    )
    text = body if isinstance(body, bytes) else as_bytes(body)
    for name, value in ((MODEL, model), (SESSION, session), (SAMPLER, f"{session}:sample:0")):
        text = text.replace(f'"{name}"'.encode(), f'"{value}"'.encode())
    return model, text


@pytest.mark.parametrize(("path", "body", "status", "words"), REFUSED_AT_ONCE)
def test_bad_request_is_refused(shared_server: TrainingServer, path: str, body: Any, status: int, words: str) -> None:
    async def program(api: Api) -> None:
        model, content = await prepared(api, body)
        answer = await api.request("POST", path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]
        assert "metrics" in await api.call(FB, batch(model, 1)), "the model goes on"

    run(shared_server, program)


@pytest.mark.parametrize(("path", "body", "words"), FAILED_LATER)
def test_bad_request_fails_by_its_result(shared_server: TrainingServer, path: str, body: Any, words: str) -> None:
    async def program(api: Api) -> None:
        model, content = await prepared(api, body)
        answer = await api.request("POST", path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        result = answer.json() if path == "retrieve_future" else await api.fetch(answer.json())
        assert words in result["error"]
        assert result["category"] == "user"
        number = 2 if json.loads(content).get("model_id") == model else 1
        assert "metrics" in await api.call(FB, batch(model, number)), "the model goes on"

    run(shared_server, program)


@pytest.mark.parametrize("key", ["", "tml-wrong", KEY[:-1], KEY + "x", "\u00e9"])
def test_wrong_key_is_refused(shared_server: TrainingServer, key: str) -> None:
    async def program(api: Api) -> None:
        stranger = api.with_key(key)
        for method, path in (("POST", "client/config"), ("POST", FB), ("GET", "sessions"), ("GET", "training_runs")):
            header = {"X-API-Key": key.encode("latin-1")}
            answer = await stranger.client.request(method, f"/api/v1/{path}", headers=header, content=b"{}")
            assert answer.status_code == 401
            assert "the key is missing or wrong" in answer.json()["detail"]

    run(shared_server, program)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "words"),
    [
        ("GET", FB, {}, 405, "this server has no GET /api/v1/forward_backward"),
        ("PUT", "training_runs/a/checkpoints/weights/a/ttl", {}, 405, "this server has no PUT"),
        ("POST", FB, {"Content-Type": "text/plain"}, 415, "the body is text/plain, expected application/json"),
        ("POST", FB, {"Content-Encoding": "zstd"}, 415, "not compressed"),
        ("POST", "optim_step", {"Content-Encoding": "gzip"}, 415, "the body is compressed"),
        ("POST", FB, {"Content-Type": PROTOBUF}, 400, "not a protobuf ForwardBackwardRequest"),
        ("DELETE", "training_runs/a/checkpoints/weights/%2e%2e/%2e%2e/b", {}, 404, "is not a checkpoint path"),
        ("DELETE", "training_runs/a/checkpoints/weights/b", {}, 404, "no checkpoint at"),
        ("GET", "training_runs/..", {}, 404, ""),
        ("GET", "training_runs/%2e%2e", {}, 404, ""),
        ("GET", "training_runs/a%2fb/checkpoints", {}, 404, ""),
        ("GET", "training_runs?limit=many", {}, 400, "query.limit: Input should be a valid integer"),
        ("GET", "samplers/nothing", {}, 404, "the server has no sampler 'nothing'"),
        ("GET", "sessions/nothing", {}, 404, "there is no session"),
        ("POST", "sessions/nothing/finish", {}, 404, "there is no session"),
        ("GET", "openapi.json", {}, 404, ""),
    ],
)
def test_other_bad_requests(  # noqa: PLR0917, one argument a column
    shared_server: TrainingServer, method: str, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    async def program(api: Api) -> None:
        answer = await api.request(method, path, headers=headers, content=b"" if method == "GET" else b"{}")
        assert answer.status_code == status, answer.text
        assert words in str(answer.json()["detail"])

    run(shared_server, program)


def test_too_many_requests_are_told_to_wait(server: TrainingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint_lab.server.pending.MAX_UNFINISHED", 2)

    async def program(api: Api) -> None:
        model = await api.model()
        for number in (2, 3):
            await api.post("optim_step", adam(model, number))
        answer = await api.request("POST", "optim_step", json=adam(model, 4))
        assert (answer.status_code, answer.json()["detail"]) == (
            429,
            "too many requests are waiting; fetch results first",
        )

    run(server, program)


def test_error_of_the_server_is_no_silence(server: TrainingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of this package reaches the client as an error, and the log with its traceback."""

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("mistake")

    async def program(api: Api) -> None:
        model = await api.model()
        monkeypatch.setattr("mint_lab.client.training.TrainingClient.optim_step", fail)
        result = await api.call("optim_step", adam(model, 1))
        assert result == {"error": "internal error of the server: KeyError: 'mistake'", "category": "server"}
        monkeypatch.setattr("mint_lab.server.app.encode", fail)
        result = await api.call("forward_backward", batch(model, 2))
        assert result == {"error": "internal error of the server: KeyError: 'mistake'", "category": "server"}
        monkeypatch.setattr("mint_lab.client.training.TrainingClient.get_info", fail)
        answer: httpx.Response = await api.request("POST", "get_info", json={"model_id": model})
        assert (answer.status_code, answer.json()["detail"]) == (
            500,
            "internal error of the server: KeyError: 'mistake'",
        )

    run(server, program)
