"""Bytes of both SDK generations: the SDK's own converters are the reference."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
from tinker.proto import tinker_public_pb2 as schema
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import deserialize_proto_response
from tinker.types.forward_backward_input import ForwardBackwardInput
from tinker.types.forward_backward_request import ForwardBackwardRequest

from mint_lab.errors import ConfigError, DataError
from mint_lab.server import wire
from mint_lab.server.wire import PROTOBUF, encode, find_request, read_json_batch, read_prompt, read_protobuf_batch
from mint_lab.types import Datum, ForwardBackwardOutput, ModelInput, SampledSequence, SampleResponse, TensorData

from .api import as_bytes, batch, datum


def sdk_request(data: list[Datum], **config: float) -> schema.ForwardBackwardRequest:
    passed = ForwardBackwardInput(data=data, loss_fn="ppo", loss_fn_config=config or None)
    return forward_backward_request_to_proto(
        ForwardBackwardRequest(forward_backward_input=passed, model_id="s:train:0", seq_id=300)
    )


def two_datums() -> list[Datum]:
    fields = {"target_tokens": np.array([6, 7]), "weights": np.array([0.25, -1.5], np.float32)}
    empty = {"target_tokens": np.array([1]), "weights": np.array([np.nan], np.float32)}
    return [Datum(ModelInput.from_ints([5, 6]), fields), Datum(ModelInput.from_ints([9]), empty)]


def test_protobuf_batch_is_the_one_that_was_sent() -> None:
    sent = two_datums()
    request = read_protobuf_batch(sdk_request(sent, clip_low_threshold=0.5).SerializeToString())
    assert (request.model_id, request.seq_id, request.forward_only) == ("s:train:0", 300, False)
    read = request.read()
    assert (read.loss_fn, read.loss_fn_config) == ("ppo", {"clip_low_threshold": 0.5})
    assert [d.model_input.to_ints() for d in read.data] == [[5, 6], [9]]
    for got, given in zip(read.data, sent, strict=True):
        for name, value in given.loss_fn_inputs.items():
            np.testing.assert_array_equal(got.loss_fn_inputs[name].to_numpy(), value.to_numpy())
            assert got.loss_fn_inputs[name].dtype == value.dtype


def test_flag_without_gradient_and_settings_in_text() -> None:
    message = sdk_request(two_datums())
    message.forward_only = True
    message.loss_fn_config_v2["mode"].text = "fast"
    request = read_protobuf_batch(message.SerializeToString())
    assert request.forward_only
    assert request.read().loss_fn_config == {"mode": "fast"}


def test_schema_without_the_flag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a pass without gradient for one with it."""

    class Old:
        def __init__(self) -> None:
            self.model_id, self.seq_id = "m", 1
            self.DESCRIPTOR = type("Descriptor", (), {"fields_by_name": {}})

        def ParseFromString(self, _: bytes) -> None: ...

    monkeypatch.setattr(wire.schema, "ForwardBackwardRequest", Old)
    with pytest.raises(ConfigError, match="the server's tinker package is older"):
        read_protobuf_batch(b"").read()


def test_sparse_tensor_becomes_dense() -> None:
    """Rows [0, 3] and [4, 0] in compressed rows: values 3, 4 in columns 1, 0."""
    message = sdk_request(two_datums())
    field = message.data[0].loss_fn_inputs["weights"]
    field.ClearField("dense")
    field.sparse_csr.values = np.array([3, 4], np.float32).tobytes()
    field.sparse_csr.crow_indices = np.array([0, 1, 2]).tobytes()
    field.sparse_csr.col_indices = np.array([1, 0]).tobytes()
    field.shape[:] = [2, 2]
    value = read_protobuf_batch(message.SerializeToString()).read().data[0].loss_fn_inputs["weights"]
    assert value.to_numpy().tolist() == [[0, 3], [4, 0]]
    field.sparse_csr.col_indices = np.array([1, 7]).tobytes()
    with pytest.raises(DataError, match=r"datum 0, field 'weights': 2 values do not fit shape \[2, 2\]"):
        read_protobuf_batch(message.SerializeToString()).read()
    field.shape[:] = [1 << 20, 1 << 20]
    with pytest.raises(DataError, match="expected at most 67108864 elements"):
        read_protobuf_batch(message.SerializeToString()).read()


def test_protobuf_that_does_not_fit_raises() -> None:
    with pytest.raises(ConfigError, match="not a protobuf ForwardBackwardRequest"):
        read_protobuf_batch(b"\xff\xff")
    with pytest.raises(ConfigError, match="model_id is empty"):
        read_protobuf_batch(b"")
    message = sdk_request(two_datums())
    message.data[1].model_input[0].encoded_text.tokens = b"abc"
    with pytest.raises(DataError, match=r"datum 1, field 'model_input': has 3 bytes, expected a multiple of 4"):
        read_protobuf_batch(message.SerializeToString()).read()
    message = sdk_request(two_datums())
    message.data[0].loss_fn_inputs["weights"].dtype = schema.DTYPE_BFLOAT16
    with pytest.raises(DataError, match=r"datum 0, field 'weights': has dtype \d+, expected float32"):
        read_protobuf_batch(message.SerializeToString()).read()
    message = sdk_request(two_datums())
    message.data[0].model_input.add().image.data = b"png"
    with pytest.raises(DataError, match="datum 0, field 'model_input': has a chunk 'image', expected text tokens"):
        read_protobuf_batch(message.SerializeToString()).read()


def test_json_batch_is_the_one_that_was_sent() -> None:
    body = batch("m", 3, [datum([5, 6], [6, 7], [0.5, 1])], "ppo", loss_fn_config={"clip_low_threshold": 0.5})
    request = read_json_batch(as_bytes(body), "forward_backward_input", forward_only=True)
    assert (request.model_id, request.seq_id, request.forward_only) == ("m", 3, True)
    read = request.read()
    assert (read.loss_fn, read.loss_fn_config) == ("ppo", {"clip_low_threshold": 0.5})
    fields = read.data[0].loss_fn_inputs
    assert read.data[0].model_input.to_ints() == [5, 6]
    assert (fields["weights"].dtype, fields["weights"].to_numpy().tolist()) == ("float32", [0.5, 1.0])
    assert (fields["target_tokens"].dtype, fields["target_tokens"].to_numpy().tolist()) == ("int64", [6, 7])


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return a batch of one datum in which one place has another value."""
    whole = {"datum": datum([5, 6], [6, 7], [0.5, 1.0])}
    *outer, last = ["datum", *path.split(".")] if path else ["datum"]
    place: Any = whole
    for key in outer:
        place = place[int(key)] if key.isdecimal() else place[key]
    place[int(last) if last.isdecimal() else last] = value
    return batch("m", 1, [whole["datum"]])


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("", 5, "datum 0: is 5, expected an object"),
        ("model_input", None, "field 'model_input': is None, expected an object with chunks"),
        ("model_input.chunks", {}, "field 'model_input': is {'chunks': {}}"),
        ("model_input.chunks.0", {"type": "image", "data": "x"}, "has a chunk 'image', expected text tokens"),
        ("model_input.chunks.0.tokens", [5, "6"], "field 'model_input': has '6', expected token ids"),
        ("model_input.chunks.0.tokens", [5, 6.0], "has 6.0, expected token ids"),
        ("model_input.chunks.0.tokens", [5, True], "has True, expected token ids"),
        ("model_input.chunks.0.tokens", [5, 1 << 40], "expected token ids"),
        ("loss_fn_inputs", [], r"field 'loss_fn_inputs': is \[\], expected an object of tensors"),
        ("loss_fn_inputs.weights", [1, 2], r"field 'weights': is \[1, 2\], expected a tensor"),
        ("loss_fn_inputs.weights.data", "12", "field 'weights': is .*, expected a tensor"),
        ("loss_fn_inputs.weights.dtype", "float16", "has dtype 'float16', expected float32 or int64"),
        ("loss_fn_inputs.weights.dtype", None, "has dtype None, expected float32 or int64"),
        ("loss_fn_inputs.weights.data", ["a", 1], "field 'weights': data are not float32 numbers"),
        ("loss_fn_inputs.weights.data", [[1], [1, 2]], "data are not float32 numbers"),
        ("loss_fn_inputs.target_tokens.data", [1.5, 2], "field 'target_tokens': data are not int64 numbers"),
        ("loss_fn_inputs.target_tokens.data", [1 << 70, 2], "data are not int64 numbers"),
        ("loss_fn_inputs.weights.shape", [3], r"2 values do not fit shape \[3\]"),
        ("loss_fn_inputs.weights.shape", [-1], r"has shape \[-1\], expected whole numbers"),
        ("loss_fn_inputs.weights.shape", "2", "has shape '2', expected whole numbers"),
        ("loss_fn_inputs.weights.shape", [1 << 40], "expected at most 67108864 elements"),
        ("loss_fn_inputs.weights.sparse_crow_indices", [0, 1], "field 'weights': 2 values do not fit shape"),
    ],
)
def test_json_batch_that_does_not_fit_raises(path: str, value: Any, words: str) -> None:
    request = read_json_batch(as_bytes(changed(path, value)), "forward_backward_input", forward_only=False)
    with pytest.raises(DataError, match=words):
        request.read()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (batch("m", "1"), "seq_id is '1', expected a whole number"),
        (batch("m", -1), "seq_id is -1"),
        (batch("m", True), "seq_id is True"),
        ({**batch("m", 1), "model_id": None}, "model_id is None"),
    ],
)
def test_request_without_a_place_raises(body: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_json_batch(as_bytes(body), "forward_backward_input", forward_only=False)


@pytest.mark.parametrize(
    ("batch_field", "words"),
    [
        (None, "field 'forward_backward_input': is None"),
        ({"data": 5}, "field 'data': is 5, expected a list"),
        ({"data": [], "loss_fn": "ppo", "loss_fn_config": [1]}, r"loss_fn_config is \[1\], expected an object"),
    ],
)
def test_batch_of_another_form_raises(batch_field: Any, words: str) -> None:
    body = {"model_id": "m", "seq_id": 1, "forward_backward_input": batch_field}
    request = read_json_batch(as_bytes(body), "forward_backward_input", forward_only=False)
    with pytest.raises((DataError, ConfigError), match=words):
        request.read()


def test_large_request_is_found_from_its_ends() -> None:
    message = sdk_request(two_datums() * 100).SerializeToString()
    assert find_request(message[:100], message[-100:], is_protobuf=True) == ("s:train:0", 300)
    body = as_bytes(batch("s:train:1", 17, [datum([5], [6], [1.0])] * 100))
    assert find_request(body[:100], body[-100:], is_protobuf=False) == ("s:train:1", 17)
    for is_protobuf in (True, False):
        assert find_request(b"nothing", b"here", is_protobuf=is_protobuf) is None
    assert find_request(b"\x0a\x05model", b"", is_protobuf=True) is None


def test_prompt() -> None:
    assert read_prompt({"chunks": [{"tokens": [1, 2]}, {"tokens": [3]}]}).to_ints() == [1, 2, 3]
    with pytest.raises(DataError, match="field 'prompt': is 'text', expected an object with chunks"):
        read_prompt("text")


# -- results -----------------------------------------------------------------------------------------------------------


def output() -> ForwardBackwardOutput:
    rows = [np.array([-1.5, -2.25], np.float32), np.array([], np.float32), np.array([-0.1], np.float32)]
    outputs = [{"logprobs": TensorData.from_numpy(row)} for row in rows]
    return ForwardBackwardOutput("ArrayRecord", outputs, {"loss:sum": 3.25, "passes:max": 1.0})


def test_sdk_reads_a_protobuf_output() -> None:
    raw, kind = encode(output(), f"{PROTOBUF}, application/json")
    assert kind == PROTOBUF
    read: Any = deserialize_proto_response(raw, ForwardBackwardOutput)
    assert read.metrics == output().metrics
    assert read.loss_fn_output_type == "ArrayRecord"
    for got, given in zip(read.loss_fn_outputs, output().loss_fn_outputs, strict=True):
        np.testing.assert_array_equal(got["logprobs"].to_numpy(), given["logprobs"].to_numpy())


def test_json_output_has_the_same_numbers() -> None:
    raw, kind = encode(output(), "application/json")
    value = json.loads(raw)
    assert kind == "application/json"
    assert value["metrics"] == output().metrics
    assert [row["logprobs"]["data"] for row in value["loss_fn_outputs"]] == [[-1.5, -2.25], [], [np.float32(-0.1)]]
    assert value["loss_fn_outputs"][1]["logprobs"] == {"data": [], "dtype": "float32", "shape": [0]}


def samples() -> SampleResponse:
    values: dict[str, Any] = {"tokens_np": np.array([4, 5], np.int32), "logprobs_np": np.array([-1, -2.5], np.float32)}
    if "sequence_id" in inspect.signature(SampledSequence).parameters:
        values["sequence_id"] = "x"
    sequences = [SampledSequence(stop_reason=reason, **values) for reason in ("stop", "length")]
    topk: Any = type("Topk", (), {})()
    topk.token_ids, topk.logprobs = np.array([[0, 0], [7, 8]]), np.array([[-99999, -99999], [-1, -2]], np.float32)
    prompt = np.array([np.nan, -0.5], np.float32)
    return SampleResponse(sequences=sequences, prompt_logprobs_np=prompt, topk_prompt_logprobs_np=topk)


def test_sdk_reads_protobuf_samples() -> None:
    raw, kind = encode(samples(), PROTOBUF)
    read: Any = deserialize_proto_response(raw, SampleResponse)
    assert kind == PROTOBUF
    assert [s.stop_reason for s in read.sequences] == ["stop", "length"]
    assert [(list(s.tokens), list(s.logprobs)) for s in read.sequences] == [([4, 5], [-1.0, -2.5])] * 2
    assert read.prompt_logprobs == [None, -0.5]
    assert read.topk_prompt_logprobs == [None, [(7, -1.0), (8, -2.0)]]


def test_json_samples_have_the_same_numbers() -> None:
    value = json.loads(encode(samples(), "application/json")[0])
    assert value["sequences"][1] == {"stop_reason": "length", "tokens": [4, 5], "logprobs": [-1.0, -2.5]}
    assert value["prompt_logprobs"] == [None, -0.5]
    assert value["topk_prompt_logprobs"] == [None, [[7, -1.0], [8, -2.0]]]


def test_other_results_are_json() -> None:
    assert encode({"path": "tinker://a"}, PROTOBUF) == (b'{"path":"tinker://a"}', "application/json")
