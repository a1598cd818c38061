"""The routes of the API. Whatever a request contains, the answer is a result or a message that says what is wrong.

A batch that cannot be trained on is accepted, and its result is the error: the SDK counts a refused submit as made, and
every later call of that client would wait for it. What cannot be attributed to a model is refused with a status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from ..client.rest import RestClient
from ..engine.checkpoints import read_metadata
from ..errors import CheckpointError, DataError, MintLabError, RunError
from .bodies import (
    Body,
    CreateModel,
    CreateSamplingSession,
    FetchResult,
    LoadWeights,
    OfModel,
    OfSession,
    OptimStep,
    SampleBody,
    SaveForSampler,
    SaveWeights,
    WeightsInfo,
)
from .pending import PendingRequest
from .sessions import Account, TrainingServer, describe
from .wire import JSON, PROTOBUF, BatchRequest, PassBatch, encode, find_request, read_json_batch, read_protobuf_batch

__all__ = ["create_app"]

SWEEP_SECONDS = 10.0  # between two checks for sessions that have ended
DRAINED = 8  # a body up to this many times the limit is received to its end, so that the client reads the answer
INLINE_BYTES = 1 << 17  # a larger body is read on another thread, and other clients are answered meanwhile
EDGE_BYTES = 4096  # kept of each end of a body that is too large

_log = logging.getLogger(__name__)


def create_app(server: TrainingServer) -> FastAPI:
    """Return the application for a server whose models are loaded."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                for account in server.accounts:
                    account.end_expired()

        task = asyncio.ensure_future(sweep())
        yield
        task.cancel()

    # The pages that FastAPI adds describe the API to anybody who asks.
    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.server = server
    app.include_router(_open, prefix="/api/v1")
    app.include_router(_routes, prefix="/api/v1")
    app.add_exception_handler(StarletteHTTPException, _on_status)
    app.add_exception_handler(RequestValidationError, _on_argument)
    app.add_exception_handler(MintLabError, _on_error)
    app.add_exception_handler(asyncio.QueueFull, _on_full)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)
    return app


# -- answers -----------------------------------------------------------------------------------------------------------


def _answer(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value).encode(), status, media_type=JSON)


def _accepted(pending: PendingRequest) -> Response:
    return _answer({"request_id": pending.id, **pending.answer})


async def _on_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail: Any = error.detail
    if error.status_code in (404, 405) and detail in ("Not Found", "Method Not Allowed"):
        detail = f"this server has no {request.method} {request.url.path[:200]}"
    return _answer({"detail": detail}, error.status_code)


async def _on_argument(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return _answer({"detail": "; ".join(problems)}, 400)


async def _on_error(request: Request, error: Exception) -> Response:
    return _answer({"detail": str(error)}, 404 if isinstance(error, CheckpointError | RunError) else 400)


async def _on_full(request: Request, error: Exception) -> Response:
    return _answer({"detail": "too many requests are waiting; fetch results first"}, 429)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _on_bug(request: Request, error: Exception) -> Response:
    return _answer({"detail": describe(error)["error"]}, 500)


# -- reading requests --------------------------------------------------------------------------------------------------


async def _authorized(request: Request) -> Account:
    server: TrainingServer = request.app.state.server
    account = server.account(request.headers.get("x-api-key", ""))
    if account is None:
        raise HTTPException(
            401, "the key is missing or wrong: pass api_key, or set TINKER_API_KEY, to the server's key"
        )
    return account


Key = Annotated[Account, Depends(_authorized)]
_open = APIRouter()
_routes = APIRouter(dependencies=[Depends(_authorized)])


@dataclass(frozen=True)
class _TooLarge:
    """A body above the limit: its size, and its first and last bytes."""

    size: int
    head: bytes
    tail: bytes


async def _receive(request: Request) -> bytes | _TooLarge:
    """Return the body. Of one that is too large, only the ends are kept."""
    limit = request.app.state.server.settings.max_request_bytes
    size, chunks, head, tail = 0, list[bytes](), b"", b""
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
            continue
        if not head:
            head = b"".join(chunks)[:EDGE_BYTES] or chunk[:EDGE_BYTES]
            chunks.clear()
        tail = (tail + chunk)[-EDGE_BYTES:]
        if size > DRAINED * limit:
            break
    return b"".join(chunks) if size <= limit else _TooLarge(size, head, tail)


async def _body(request: Request, kind: type[Body]) -> Any:
    """Return the body of a request without a batch."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "the body is compressed; this server takes plain bodies")
    body = await _receive(request)
    if isinstance(body, _TooLarge):
        raise HTTPException(413, _too_large(request))
    return kind.read(body)


def _too_large(request: Request) -> str:
    limit = request.app.state.server.settings.max_request_bytes
    return (
        f"the request is larger than {limit / (1 << 20):g} MiB, the limit of this server; send smaller batches, or "
        "start it with a higher --max-request-mb"
    )


async def _pass(request: Request, account: Account, field: str, *, forward_only: bool) -> Response:
    """Queue a pass of a model: decode the batch now, in the order received, and run it in the order of the numbers."""
    kind = request.headers.get("content-type", JSON).split(";")[0].strip().lower()
    if kind not in (JSON, PROTOBUF) or request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, f"the body is {kind}, expected {JSON} or {PROTOBUF}, not compressed")
    body = await _receive(request)
    if isinstance(body, _TooLarge):
        found = find_request(body.head, body.tail, is_protobuf=kind == PROTOBUF)
        if found is None:
            raise HTTPException(413, _too_large(request))
        error = DataError(_too_large(request))
        return _accepted(account.submit(*found, lambda _: _failed(error)))
    if len(body) <= INLINE_BYTES:
        parsed, batch = _decode(body, kind, field, forward_only)
    else:
        parsed, batch = await asyncio.to_thread(_decode, body, kind, field, forward_only)

    def work(client: Any) -> Awaitable[Any]:
        if isinstance(batch, Exception):
            raise batch
        run = client.forward if parsed.forward_only else client.forward_backward
        return run(batch.data, batch.loss_fn, batch.loss_fn_config)

    return _accepted(account.submit(parsed.model_id, parsed.seq_id, work))


def _decode(body: bytes, kind: str, field: str, forward_only: bool) -> tuple[BatchRequest, PassBatch | Exception]:
    """Return a request and its batch, or what is wrong with the batch."""
    is_protobuf = kind == PROTOBUF
    parsed = read_protobuf_batch(body) if is_protobuf else read_json_batch(body, field, forward_only=forward_only)
    try:
        return parsed, parsed.read()
    except Exception as error:
        return parsed, error


async def _failed(error: Exception) -> None:
    raise error


# -- sessions ----------------------------------------------------------------------------------------------------------


@_open.get("/healthz")
async def healthz() -> Response:
    return _answer({"status": "ok"})


@_routes.post("/client/config")
async def client_config() -> Response:
    return _answer({})  # all settings keep the SDK's defaults


@_routes.post("/client/dynamic_config")
async def dynamic_config() -> Response:
    return _answer({})


@_routes.post("/create_session")
async def create_session(account: Key) -> Response:
    return _answer({"session_id": account.new_session().id, "type": "create_session"})


@_routes.post("/session_heartbeat")
async def session_heartbeat(request: Request, account: Key) -> Response:
    account.session((await _body(request, OfSession)).session_id)
    return _answer({"type": "session_heartbeat"})


@_routes.post("/sessions/{session_id}/finish")
async def finish_session(session_id: str, account: Key) -> Response:
    account.finish_session(session_id)
    return _answer({})


@_routes.get("/sessions")
async def list_sessions(account: Key) -> Response:
    return _answer({"sessions": list(account.sessions)})


@_routes.get("/sessions/{session_id}")
async def get_session(session_id: str, account: Key) -> Response:
    session = account.session(session_id)
    models = [model.id for model in session.models.values()]
    return _answer({"training_run_ids": models, "sampler_ids": list(session.samplers)})


@_routes.post("/telemetry")
async def telemetry() -> Response:
    # It has stack traces of the client, which are not read. Without an answer the SDK would repeat it without end.
    return _answer({"status": "accepted"})


@_routes.get("/get_server_capabilities")
async def capabilities(request: Request) -> Response:
    server: TrainingServer = request.app.state.server
    models = [
        {"model_name": name, "max_context_length": context, "trainable": True, "sampleable": True}
        for name, context in server.contexts.items()
    ]
    return _answer({"supported_models": models})


# -- training ----------------------------------------------------------------------------------------------------------


@_routes.post("/create_model")
async def create_model(request: Request, account: Key) -> Response:
    return _accepted(account.create_model(await _body(request, CreateModel)))


@_routes.post("/get_info")
async def get_info(request: Request, account: Key) -> Response:
    model = account.model((await _body(request, OfModel)).model_id)
    info = model.trained().get_info().model_dump(mode="json", exclude_none=True)
    return _answer({**info, "model_id": model.id})


@_routes.post("/forward")
async def forward(request: Request, account: Key) -> Response:
    return await _pass(request, account, "forward_input", forward_only=True)


@_routes.post("/forward_backward")
async def forward_backward(request: Request, account: Key) -> Response:
    return await _pass(request, account, "forward_backward_input", forward_only=False)


@_routes.post("/optim_step")
async def optim_step(request: Request, account: Key) -> Response:
    return _accepted(account.optim_step(await _body(request, OptimStep)))


@_routes.post("/save_weights")
async def save_weights(request: Request, account: Key) -> Response:
    return _accepted(account.save_weights(await _body(request, SaveWeights)))


@_routes.post("/load_weights")
async def load_weights(request: Request, account: Key) -> Response:
    return _accepted(account.load_model(await _body(request, LoadWeights)))


@_routes.post("/save_weights_for_sampler")
async def save_weights_for_sampler(request: Request, account: Key) -> Response:
    return _accepted(account.save_for_sampler(await _body(request, SaveForSampler)))


@_routes.post("/retrieve_future")
async def retrieve_future(request: Request, account: Key) -> Response:
    request_id = (await _body(request, FetchResult)).request_id
    try:
        is_there, result = await account.result(request_id)
        if not is_there:
            return _answer({"type": "try_again", "request_id": request_id, "queue_state": "active"})
        content, kind = encode(result, request.headers.get("accept", ""))
    except Exception as error:  # any other status would have the SDK ask again at once, without end
        if not isinstance(error, MintLabError):
            _log.error("a request has failed", exc_info=error)
        return _answer(describe(error))
    return Response(content, media_type=kind)


# -- sampling ----------------------------------------------------------------------------------------------------------


@_routes.post("/create_sampling_session")
async def create_sampling_session(request: Request, account: Key) -> Response:
    sampler = account.create_sampler(await _body(request, CreateSamplingSession))
    return _answer({"sampling_session_id": sampler.id, "type": "create_sampling_session"})


@_routes.get("/samplers/{sampler_id:path}")
async def get_sampler(sampler_id: str, account: Key) -> Response:
    sampler = account.sampler(sampler_id)
    path = {} if sampler.model_path is None else {"model_path": sampler.model_path}
    return _answer({"sampler_id": sampler.id, "base_model": sampler.base_model, **path})


@_routes.post("/asample")
async def asample(request: Request, account: Key) -> Response:
    return _accepted(account.sample(await _body(request, SampleBody)))


# -- checkpoints -------------------------------------------------------------------------------------------------------


async def _rest(account: Account, call: Callable[[RestClient], Any]) -> Response:
    """Return the answer of the local REST client, which reads files."""
    value = await asyncio.to_thread(lambda: call(account.service.create_rest_client()).result())
    return _answer({} if value is None else value.model_dump(mode="json"))


def _run_name(training_run_id: str) -> str:
    return training_run_id.replace(":", "-")  # a model's id is accepted too


@_routes.post("/weights_info")
async def weights_info(request: Request, account: Key) -> Response:
    path = (await _body(request, WeightsInfo)).tinker_path
    account.paths.parse(path)
    base_model, lora = await asyncio.to_thread(read_metadata, account.paths.folder(path))
    kinds = {f"train_{kind}": getattr(lora, kind) for kind in ("unembed", "mlp", "attn")}
    return _answer({"base_model": base_model, "is_lora": True, "lora_rank": lora.rank, **kinds})


@_routes.get("/training_runs")
async def training_runs(account: Key, limit: int = 20, offset: int = 0) -> Response:
    return await _rest(account, lambda rest: rest.list_training_runs(max(0, limit), max(0, offset)))


@_routes.get("/training_runs/{run_id}")
async def training_run(run_id: str, account: Key) -> Response:
    return await _rest(account, lambda rest: rest.get_training_run(_run_name(run_id)))


@_routes.get("/training_runs/{run_id}/checkpoints")
async def run_checkpoints(run_id: str, account: Key) -> Response:
    return await _rest(account, lambda rest: rest.list_checkpoints(_run_name(run_id)))


@_routes.delete("/training_runs/{run_id}/checkpoints/{checkpoint_id:path}")
async def delete_checkpoint(run_id: str, checkpoint_id: str, account: Key) -> Response:
    return await _rest(account, lambda rest: rest.delete_checkpoint(_run_name(run_id), checkpoint_id))
