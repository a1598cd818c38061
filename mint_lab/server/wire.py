"""What the SDK sends and expects, in bytes: batches and prompts in, results out, as JSON or protobuf.

SDK 0.22 sends batches as JSON and takes results in either form; from 0.25 on, batches and their results are protobuf
(package ``tinker_public``, whose schema comes with the ``tinker`` package). The header ``Content-Type`` of a request
says which form it has, ``Accept`` which form the answer must have. Everything else is JSON in all versions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError
from tinker.proto import tinker_public_pb2 as schema

from ..errors import ConfigError, DataError
from ..types import Datum, ForwardBackwardOutput, ModelInput, SampleResponse, TensorData

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "JSON",
    "PROTOBUF",
    "BatchRequest",
    "PassBatch",
    "encode",
    "find_request",
    "read_json",
    "read_json_batch",
    "read_prompt",
    "read_protobuf_batch",
]

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
MAX_ELEMENTS = 1 << 26
"""Largest number of elements of one tensor, 256 MiB in float32: a sparse tensor can be larger than its bytes."""

_JSON_TYPES = {"float32": np.dtype(np.float32), "int64": np.dtype(np.int64)}
_PROTOBUF_TYPES = {
    schema.DTYPE_FLOAT32: np.dtype(np.float32),
    schema.DTYPE_INT64: np.dtype(np.int64),
    schema.DTYPE_INT32: np.dtype(np.int32),
}


@dataclass(frozen=True)
class PassBatch:
    """What ``forward`` and ``forward_backward`` of a training client take."""

    data: list[Datum]
    loss_fn: Any
    loss_fn_config: dict[str, Any] | None


@dataclass(frozen=True)
class BatchRequest:
    """A request with a batch.

    Attributes:
        model_id: The model.
        seq_id: Its place among the model's requests; None for a request outside of the order.
        forward_only: Whether no gradient is requested.
        read: Returns the batch. It raises DataError or ConfigError, which must reach the client as the result of the
            request: the SDK never continues after a request that is refused at once.
    """

    model_id: str
    seq_id: int | None
    forward_only: bool
    read: Callable[[], PassBatch]


# -- requests ----------------------------------------------------------------------------------------------------------


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object in a JSON body.

    Raises:
        ConfigError: If the body is not a JSON object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"the body is a JSON {type(value).__name__}, expected an object")
    return value


def read_json_batch(body: bytes, field: str, *, forward_only: bool) -> BatchRequest:
    """Read a JSON request with a batch.

    Args:
        body: The body.
        field: Name of the field with the batch, ``forward_input`` or ``forward_backward_input``.
        forward_only: Whether no gradient is requested.

    Raises:
        ConfigError: If the body is not JSON, or names no model and no place in the order.
    """
    value = read_json(body)

    def read() -> PassBatch:
        batch = value.get(field)
        if not isinstance(batch, dict):
            raise DataError(f"is {_short(batch)}, expected an object with data and loss_fn", field=field)
        data = batch.get("data")
        if not isinstance(data, list):
            raise DataError(f"is {_short(data)}, expected a list of datums", field="data")
        config = batch.get("loss_fn_config")
        if config is not None and not isinstance(config, dict):
            raise ConfigError(f"loss_fn_config is {_short(config)}, expected an object")
        return PassBatch([_json_datum(datum, i) for i, datum in enumerate(data)], batch.get("loss_fn"), config or None)

    model_id, seq_id = value.get("model_id"), value.get("seq_id")
    if not isinstance(model_id, str):
        raise ConfigError(f"model_id is {_short(model_id)}, expected the id of a model")
    if seq_id is not None and (isinstance(seq_id, bool) or not isinstance(seq_id, int) or seq_id < 0):
        raise ConfigError(f"seq_id is {_short(seq_id)}, expected a whole number from 0 up, or null")
    return BatchRequest(model_id, seq_id, forward_only, read)


def read_protobuf_batch(body: bytes) -> BatchRequest:
    """Read a protobuf ``ForwardBackwardRequest``.

    Raises:
        ConfigError: If the body is no such message.
    """
    message = schema.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise ConfigError(f"the body is not a protobuf ForwardBackwardRequest: {error}") from None
    if not message.model_id:
        raise ConfigError("model_id is empty, expected the id of a model")
    has_flag = "forward_only" in message.DESCRIPTOR.fields_by_name

    def read() -> PassBatch:
        if not has_flag:  # the field would be ignored, and a pass without gradient would become one with it
            raise ConfigError(
                "the server's tinker package is older than the protobuf format of this SDK; upgrade it there"
            )
        config: dict[str, Any] = dict(message.loss_fn_config)
        for name, setting in message.loss_fn_config_v2.items():
            kind = setting.WhichOneof("value")
            config[name] = None if kind is None else getattr(setting, kind)
        data = [_protobuf_datum(datum, i) for i, datum in enumerate(message.data)]
        return PassBatch(data, message.loss_fn, config or None)

    forward_only = bool(has_flag and message.forward_only)
    return BatchRequest(message.model_id, message.seq_id or None, forward_only, read)


def find_request(head: bytes, tail: bytes, *, is_protobuf: bool) -> tuple[str, int] | None:
    """Return model and number of a request that is too large to be read, so that its result can say so.

    Args:
        head: The first bytes of the body. In protobuf, the SDK writes the two fields first.
        tail: The last bytes. In JSON, it writes them last.
        is_protobuf: The form of the body.

    Returns:
        None if they are not there.
    """
    if is_protobuf:
        found = re.match(rb"\x0a([\x01-\x7f])", head)  # field 1, a text of up to 127 bytes
        end = 2 + found[1][0] if found else 0
        number = re.match(rb"\x10([\x80-\xff]*[\x00-\x7f])", head[end:])  # field 2, in groups of 7 bits, lowest first
        if not found or not number:
            return None
        seq_id = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(number[1]))
        return head[2:end].decode(errors="replace"), seq_id
    models = re.findall(rb'"model_id"\s*:\s*"([^"\\]{1,200})"', head + tail)
    numbers = re.findall(rb'"seq_id"\s*:\s*(\d{1,18})\b', head + tail)
    return (models[-1].decode(errors="replace"), int(numbers[-1])) if models and numbers else None


def read_prompt(value: Any) -> ModelInput:
    """Return the prompt of a JSON request for samples.

    Raises:
        DataError: If it is not text in tokens.
    """
    return ModelInput.from_ints(_json_tokens(value, None, "prompt"))


def _json_datum(value: Any, index: int) -> Datum:
    if not isinstance(value, dict):
        raise DataError(f"is {_short(value)}, expected an object with model_input and loss_fn_inputs", index=index)
    fields = value.get("loss_fn_inputs")
    if not isinstance(fields, dict):
        raise DataError(f"is {_short(fields)}, expected an object of tensors", index=index, field="loss_fn_inputs")
    tokens = _json_tokens(value.get("model_input"), index, "model_input")
    tensors = {name: _json_tensor(tensor, index, name) for name, tensor in fields.items()}
    return Datum(model_input=ModelInput.from_ints(tokens), loss_fn_inputs=tensors)


def _json_tokens(value: Any, index: int | None, field: str) -> list[int]:
    chunks = value.get("chunks") if isinstance(value, dict) else None
    if not isinstance(chunks, list):
        raise DataError(f"is {_short(value)}, expected an object with chunks", index=index, field=field)
    tokens: list[int] = []
    for chunk in chunks:
        part = chunk.get("tokens") if isinstance(chunk, dict) else None
        if not isinstance(part, list):
            kind = chunk.get("type") if isinstance(chunk, dict) else chunk
            raise DataError(f"has a chunk {_short(kind)}, expected text tokens", index=index, field=field)
        if not all(type(token) is int and abs(token) < 1 << 31 for token in part):
            wrong = next(token for token in part if type(token) is not int or abs(token) >= 1 << 31)
            raise DataError(f"has {_short(wrong)}, expected token ids", index=index, field=field)
        tokens.extend(part)
    return tokens


def _json_tensor(value: Any, index: int, field: str) -> TensorData:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise DataError(
            f"is {_short(value)}, expected a tensor: an object with data, dtype and shape", index=index, field=field
        )
    dtype = _JSON_TYPES.get(str(value.get("dtype")))
    if dtype is None:
        raise DataError(f"has dtype {_short(value.get('dtype'))}, expected float32 or int64", index=index, field=field)
    try:
        given = np.asarray(value["data"], dtype=np.float64 if dtype.kind == "f" else None)
        given = given.astype(dtype, casting="same_kind") if given.size else np.empty(0, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"data are not {dtype} numbers: {error}", index=index, field=field) from None
    sparse = tuple(value.get(f"sparse_{name}_indices") for name in ("crow", "col"))
    return _tensor(given, value.get("shape"), sparse if any(i is not None for i in sparse) else None, index, field)


def _protobuf_datum(message: schema.Datum, index: int) -> Datum:
    tokens: list[int] = []
    for chunk in message.model_input:
        if chunk.WhichOneof("chunk") != "encoded_text":
            raise DataError(
                f"has a chunk {chunk.WhichOneof('chunk')!r}, expected text tokens", index=index, field="model_input"
            )
        tokens.extend(_from_bytes(chunk.encoded_text.tokens, np.dtype(np.int32), index, "model_input").tolist())
    tensors = {name: _protobuf_tensor(tensor, index, name) for name, tensor in message.loss_fn_inputs.items()}
    return Datum(model_input=ModelInput.from_ints(tokens), loss_fn_inputs=tensors)


def _protobuf_tensor(message: schema.Tensor, index: int, field: str) -> TensorData:
    dtype = _PROTOBUF_TYPES.get(message.dtype)
    if dtype is None:
        raise DataError(f"has dtype {message.dtype}, expected float32 or int64", index=index, field=field)
    sparse = None
    if message.HasField("sparse_csr"):
        csr, indices = message.sparse_csr, np.dtype(np.int64)
        values = _from_bytes(csr.values, dtype, index, field)
        sparse = tuple(_from_bytes(raw, indices, index, field).tolist() for raw in (csr.crow_indices, csr.col_indices))
    else:
        values = _from_bytes(message.dense, dtype, index, field)
    if dtype.itemsize == 4 and dtype.kind == "i":
        values = values.astype(np.int64)
    return _tensor(values, list(message.shape) or None, sparse, index, field)


def _from_bytes(raw: bytes, dtype: np.dtype[Any], index: int, field: str) -> NDArray[Any]:
    if len(raw) % dtype.itemsize:
        raise DataError(
            f"has {len(raw)} bytes, expected a multiple of {dtype.itemsize}, the size of {dtype}",
            index=index,
            field=field,
        )
    return np.frombuffer(raw, dtype).copy()  # a tensor that torch can write to


def _tensor(values: NDArray[Any], shape: Any, sparse: Sequence[Any] | None, index: int, field: str) -> TensorData:
    """Return a tensor from its values, dense or in compressed sparse rows."""
    if shape is not None:
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise DataError(f"has shape {_short(shape)}, expected whole numbers", index=index, field=field)
        if math.prod(shape) > MAX_ELEMENTS:
            raise DataError(f"has shape {shape}, expected at most {MAX_ELEMENTS} elements", index=index, field=field)
    try:
        if sparse is None:
            return TensorData.from_numpy(values if shape is None else values.reshape(shape))
        compressed = TensorData(
            data=values,
            dtype="float32" if values.dtype.kind == "f" else "int64",
            shape=shape,
            sparse_crow_indices=sparse[0],
            sparse_col_indices=sparse[1],
        )
        return TensorData.from_numpy(compressed.to_numpy())
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise DataError(f"{values.size} values do not fit shape {shape}: {error}", index=index, field=field) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- results -----------------------------------------------------------------------------------------------------------


def encode(result: Any, accept: str) -> tuple[bytes, str]:
    """Return the bytes of a result and their content type.

    Args:
        result: A ``ForwardBackwardOutput``, a ``SampleResponse``, or a JSON object.
        accept: The header ``Accept`` of the request.
    """
    is_protobuf = PROTOBUF in accept
    if isinstance(result, ForwardBackwardOutput):
        if is_protobuf:
            return _protobuf_output(result).SerializeToString(), PROTOBUF
        result = _json_output(result)
    elif isinstance(result, SampleResponse):
        if is_protobuf:
            return _protobuf_samples(result).SerializeToString(), PROTOBUF
        result = _json_samples(result)
    return json.dumps(result, separators=(",", ":")).encode(), JSON


def _json_output(output: ForwardBackwardOutput) -> dict[str, Any]:
    def tensor(value: TensorData) -> dict[str, Any]:
        return {"data": value.data, "dtype": value.dtype, "shape": value.shape}

    return {
        "loss_fn_output_type": output.loss_fn_output_type,
        "loss_fn_outputs": [{name: tensor(t) for name, t in row.items()} for row in output.loss_fn_outputs],
        "metrics": dict(output.metrics),
    }


def _protobuf_output(output: ForwardBackwardOutput) -> schema.ForwardBackwardOutput:
    """Return the message of an output whose tensors all have shape ``(N_i,)``: one record, rows end to end."""
    message = schema.ForwardBackwardOutput(loss_fn_output_type=output.loss_fn_output_type)
    message.metrics.update(_floats(output.metrics))
    rows = output.loss_fn_outputs
    record = message.loss_fn_outputs.add(type_tag=output.loss_fn_output_type, num_datums=len(rows))
    for name in rows[0] if rows else ():
        values = [np.asarray(row[name].to_numpy(), np.float32) for row in rows]
        offsets = np.cumsum([0, *(value.nbytes for value in values)], dtype=np.int64)
        field = record.fields[name]
        field.data, field.offsets = b"".join(value.tobytes() for value in values), offsets.tobytes()
        field.dtype = schema.DTYPE_FLOAT32
    return message


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _json_samples(response: SampleResponse) -> dict[str, Any]:
    sequences = [
        {"stop_reason": s.stop_reason, "tokens": list(s.tokens), "logprobs": None if s.logprobs is None else s.logprobs}
        for s in response.sequences
    ]
    return {
        "type": "sample",
        "sequences": sequences,
        "prompt_logprobs": response.prompt_logprobs,
        "topk_prompt_logprobs": response.topk_prompt_logprobs,
    }


def _protobuf_samples(response: SampleResponse) -> schema.SampleResponse:
    message = schema.SampleResponse()
    reasons = {"stop": schema.STOP_REASON_STOP, "length": schema.STOP_REASON_LENGTH}
    for sequence in response.sequences:
        message.sequences.add(
            stop_reason=reasons[sequence.stop_reason],
            tokens=np.asarray(sequence.tokens_np, np.int32).tobytes(),
            logprobs=np.asarray(sequence.logprobs_np, np.float32).tobytes(),
        )
    if response.prompt_logprobs_np is not None:  # nan where there is none
        message.prompt_logprobs = np.asarray(response.prompt_logprobs_np, np.float32).tobytes()
    if (topk := response.topk_prompt_logprobs_np) is not None:
        rows, message.topk_prompt_logprobs.k = topk.token_ids.shape
        fields = message.topk_prompt_logprobs.DESCRIPTOR.fields_by_name
        setattr(message.topk_prompt_logprobs, "length" if "length" in fields else "prompt_length", rows)  # SDK 0.22
        message.topk_prompt_logprobs.token_ids = np.asarray(topk.token_ids, np.int32).tobytes()
        message.topk_prompt_logprobs.logprobs = np.asarray(topk.logprobs, np.float32).tobytes()
    return message
