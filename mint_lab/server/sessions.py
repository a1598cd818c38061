"""What the server holds for its clients: keys, sessions, models that train, and samplers.

A key has its own checkpoints and sees no other key's sessions. A session belongs to one ``ServiceClient`` of the SDK;
its id is signed with the key, so that a server that was restarted still knows it: the client can create models from
checkpoints again without being restarted. Models and samplers are in memory and end with the session. All methods run
on the event loop; what takes long is awaited.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..client import text_source
from ..client.checkpoint_paths import CheckpointPaths
from ..client.sampling import SamplingClient
from ..client.service import ServiceClient
from ..client.training import TrainingClient
from ..engine.checkpoints import read_metadata
from ..errors import ConfigError, MintLabError, RunError, one_of
from ..types import AdamParams, SamplingParams
from .bodies import (
    CreateModel,
    CreateSamplingSession,
    LoadWeights,
    OptimStep,
    SampleBody,
    SaveForSampler,
    SaveWeights,
)
from .pending import OrderedRequests, PendingRequest, Requests
from .wire import read_prompt

__all__ = ["Account", "Model", "Sampler", "ServerSettings", "Session", "TrainingServer", "describe"]

KEPT_SAMPLERS = 32  # samplers of a session whose weights stay in memory
ONLY_LOCAL = ("topk_sample_logprobs", "target_prompt_logprobs", "prompt_alt_tokens_k", "prompt_logprobs_last_n")
FINISHED_SECONDS = 60.0  # that a session stays after its client has said that it ends


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes:
        folder: Its state: checkpoints, and nothing outside of it is read or written for a request.
        keys: Keys of clients; each begins with ``tml-``, which the SDK requires.
        models: Base models that clients may use: "mint-tiny", directories, hub names.
        device, dtype, max_batch_tokens: As in :class:`mint_lab.client.service.ServiceClient`.
        max_request_bytes: Largest body of a request.
        idle_seconds: After how long without a sign of life a session ends. The SDK gives one every 10 s.
        hold_seconds: How long a poll for a result is held open; the SDK closes it after 45 s.
    """

    folder: Path
    keys: Sequence[str]
    models: Sequence[str] = ("mint-tiny",)
    device: str | None = None
    dtype: str | None = None
    max_batch_tokens: int | None = None
    max_request_bytes: int = 64 << 20
    idle_seconds: float = 3600.0
    hold_seconds: float = 20.0


@dataclass(eq=False)
class Model:
    """A model that trains.

    Attributes:
        id: ``SESSION:train:NUMBER``, the name that newer SDKs expect.
        requests: What the client requested of it.
        created: Creates the client; its result is stored in ``client``.
        client: None until then.
    """

    id: str
    requests: OrderedRequests
    created: PendingRequest | None = None
    client: TrainingClient | None = None

    def trained(self) -> TrainingClient:
        """Return the client.

        Raises:
            RunError: If it was not created.
        """
        if self.client is None:
            raise RunError(f"model {self.id} was not created; the request to create it has failed or not ended")
        return self.client


@dataclass(eq=False)
class Sampler:
    """A snapshot to sample from.

    Attributes:
        id: Its id.
        base_model: Name of the base model.
        model_path: Path of a checkpoint; None for the base model or for a snapshot in memory.
        requests: What the client requested of it.
        load: Loads the weights again if they were dropped; None for a snapshot in memory.
        client: The client, or what loads it; None if it was dropped.
    """

    id: str
    base_model: str
    model_path: str | None
    requests: Requests
    load: Callable[[], Awaitable[SamplingClient]] | None
    client: asyncio.Future[SamplingClient] | None = None

    async def loaded(self) -> SamplingClient:
        """Return the client, loaded again if it was dropped.

        Raises:
            RunError: If it was dropped and is nowhere else. Loading raises what the local service raises.
        """
        if self.client is not None and self.client.done() and self.client.exception() is not None:
            self.client = None
        if self.client is None:
            if self.load is None:
                raise RunError(
                    f"the weights of sampler {self.id} are no longer in memory: the server keeps the last "
                    f"{KEPT_SAMPLERS} of a session; save those that must stay with save_weights_for_sampler(name)"
                )
            self.client = asyncio.ensure_future(self.load())
        return await asyncio.shield(self.client)


class Session:
    """Models and samplers of one ``ServiceClient``.

    Attributes:
        id: Signed with the key.
        models: By their numbers within the session.
        samplers: By their ids, the one that was used last at the end.
        expires: When it ends, on the clock of ``time.monotonic``.
    """

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.models: dict[int, Model] = {}
        self.samplers: dict[str, Sampler] = {}
        self.expires = 0.0

    def add_sampler(self, sampler: Sampler) -> None:
        """Add a sampler, and drop the weights of those that were not used for longest if there are too many."""
        self.samplers[sampler.id] = sampler
        loaded = [s for s in self.samplers.values() if s.client is not None]
        for old in loaded[: max(0, len(loaded) - KEPT_SAMPLERS)]:
            old.client = None

    def sampler(self, sampler_id: str) -> Sampler:
        """Return a sampler, and note its use.

        Raises:
            KeyError: If there is none of that id.
        """
        sampler = self.samplers[sampler_id] = self.samplers.pop(sampler_id)
        return sampler

    def close(self) -> None:
        """Forget everything; what runs is completed."""
        for owner in (*self.models.values(), *self.samplers.values()):
            owner.requests.close()
        self.models.clear()
        self.samplers.clear()


class Account:
    """One key: its sessions, its requests and its checkpoints.

    Attributes:
        key: The key.
        paths: Its checkpoints.
        service: Creates clients.
        sessions: By their ids.
        pending: All requests whose results can be fetched, by their ids.
    """

    def __init__(self, key: str, settings: ServerSettings, served: Sequence[str]) -> None:
        self.key = key
        self._settings = settings
        self._served = served
        home = settings.folder / "accounts" / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.paths = CheckpointPaths(home)
        self.service = ServiceClient(
            home, device=settings.device, dtype=settings.dtype, max_batch_tokens=settings.max_batch_tokens
        )
        self.sessions: dict[str, Session] = {}
        self.pending: dict[str, PendingRequest] = {}
        self._unnumbered = Requests(self.pending)

    # -- sessions ------------------------------------------------------------------------------------------------------

    def new_session(self) -> Session:
        """Create a session."""
        name = secrets.token_hex(8)
        return self.session(f"{name}-{self._signature(name)}")

    def session(self, session_id: str) -> Session:
        """Return a session of this key, and note the sign of life; one of an earlier server is empty.

        Raises:
            RunError: If the id was not given to this key.
        """
        session = self.sessions.get(session_id)
        if session is None:
            name, _, signature = session_id.partition("-")
            if not hmac.compare_digest(signature.encode(), self._signature(name).encode()):
                raise RunError(f"there is no session {session_id!r} of this key; create a new ServiceClient")
            session = self.sessions[session_id] = Session(session_id)
        session.expires = time.monotonic() + self._settings.idle_seconds
        return session

    def finish_session(self, session_id: str) -> None:
        """Let a session end soon; a request that comes until then keeps it."""
        self.session(session_id).expires = time.monotonic() + FINISHED_SECONDS

    def end_expired(self) -> None:
        """End the sessions that gave no sign of life for too long."""
        for session in [s for s in self.sessions.values() if s.expires < time.monotonic()]:
            del self.sessions[session.id]
            session.close()

    def _signature(self, name: str) -> str:
        return hmac.new(self.key.encode(), name.encode(), "sha256").hexdigest()[:16]

    # -- requests ------------------------------------------------------------------------------------------------------

    def submit(
        self, model_id: str, seq_id: int | None, work: Callable[[TrainingClient], Awaitable[Any]]
    ) -> PendingRequest:
        """Queue a request of a model. If there is no such model, the result of the request says so.

        The request is never refused at once: the SDK would not continue after that.
        """
        try:
            model = self.model(model_id)
        except RunError as error:
            return self.refuse(error)
        return model.requests.submit(seq_id, lambda: work(model.trained()))

    def refuse(self, error: Exception) -> PendingRequest:
        """Return a request that has failed."""

        async def fail() -> None:
            raise error

        return self._unnumbered.submit(None, fail)

    async def result(self, request_id: str) -> tuple[bool, Any]:
        """Wait for a result.

        Returns:
            Whether it is there, and the result. It is not after ``hold_seconds``.

        Raises:
            RunError: If there is no such request. The request's own error propagates.
        """
        pending = self.pending.get(request_id)
        if pending is None:
            raise RunError(
                f"the server has no request {request_id!r}: it was restarted, or the session ended. Create the client "
                "again from the last checkpoint: create_training_client_from_state_with_optimizer(path)"
            )
        await asyncio.wait({pending.task}, timeout=self._settings.hold_seconds)
        if not pending.task.done():
            return False, None
        pending.is_fetched = True
        return True, pending.task.result()

    # -- models --------------------------------------------------------------------------------------------------------

    def model(self, model_id: str) -> Model:
        """Return a model.

        Raises:
            RunError: If there is none of that id.
        """
        session_id, _, number = model_id.rpartition(":train:")
        session = self.sessions.get(session_id)
        if session is None or not number.isdecimal() or int(number) not in session.models:
            raise RunError(
                f"the server has no model {model_id!r}: it was restarted, or the model's session gave no sign of life "
                f"for {self._settings.idle_seconds:g} s. Create the client again from the last checkpoint: "
                "create_training_client_from_state_with_optimizer(path)"
            )
        self.session(session_id)
        return session.models[int(number)]

    def create_model(self, body: CreateModel) -> PendingRequest:
        """Create a model with a new adapter; the result is its id."""
        lora = body.lora_config

        def create() -> TrainingClient:
            self._check_served(body.base_model)
            _check_optimizer(None if body.optimizer_config is None else body.optimizer_config.type)
            if lora is None:
                return self.service.create_lora_training_client(body.base_model)
            return self.service.create_lora_training_client(
                body.base_model, lora.rank, lora.seed, lora.train_mlp, lora.train_attn, lora.train_unembed
            )

        def answer(model: Model) -> dict[str, Any]:
            return {"model_id": model.id, "type": "create_model"}

        return self._new_model(body.session_id, body.model_seq_id, create, answer)

    def load_model(self, body: LoadWeights) -> PendingRequest:
        """Create a model from a checkpoint, or load a checkpoint into a model."""
        if body.model_id is not None:
            return self.submit(body.model_id, body.seq_id, lambda client: self._load(client, body))
        if body.session_id is None or body.model_seq_id is None:
            raise ConfigError("expected model_id and seq_id, or session_id and model_seq_id")

        def create() -> TrainingClient:
            self._check_checkpoint(body.path)
            if body.base_model is not None:
                self._check_served(body.base_model)
            _check_optimizer(None if body.optimizer_config is None else body.optimizer_config.type)
            with_optimizer = self.service.create_training_client_from_state_with_optimizer
            make = with_optimizer if body.optimizer else self.service.create_training_client_from_state
            return make(body.path, body.base_model)

        def answer(model: Model) -> dict[str, Any]:
            return {"path": body.path, "model_id": model.id, "type": "load_weights"}

        return self._new_model(body.session_id, body.model_seq_id, create, answer)

    def _new_model(
        self,
        session_id: str,
        number: int,
        create: Callable[[], TrainingClient],
        answer: Callable[[Model], dict[str, Any]],
    ) -> PendingRequest:
        session = self.session(session_id)
        model = session.models.get(number)
        if model is not None and model.created is not None:  # a submit whose answer was lost
            return model.created
        model = Model(f"{session.id}:train:{number}", OrderedRequests(self.pending))

        async def run() -> dict[str, Any]:
            client = await asyncio.to_thread(create)
            client.model_id = model.id.replace(":", "-")  # the folder of its checkpoints
            model.client = client
            return answer(model)

        model.created = self._unnumbered.submit(None, run)
        session.models[number] = model
        return model.created

    def _load(self, client: TrainingClient, body: LoadWeights) -> Awaitable[Any]:
        self._check_checkpoint(body.path)
        loaded = client.load_state_with_optimizer(body.path) if body.optimizer else client.load_state(body.path)
        return _then(loaded, lambda _: {"path": body.path, "model_id": body.model_id, "type": "load_weights"})

    def optim_step(self, body: OptimStep) -> PendingRequest:
        """Apply the accumulated gradient."""

        def work(client: TrainingClient) -> Awaitable[Any]:
            if body.adam_params is None:
                _check_optimizer((body.optimizer_params or {}).get("type"))
                raise ConfigError("adam_params is missing, expected the settings of AdamW")
            step = client.optim_step(_checked(AdamParams, body.adam_params))
            return _then(step, lambda response: {"metrics": response.metrics})

        return self.submit(body.model_id, body.seq_id, work)

    def save_weights(self, body: SaveWeights) -> PendingRequest:
        """Save weights and optimizer."""

        def work(client: TrainingClient) -> Awaitable[Any]:
            name = f"checkpoint-{body.seq_id}" if body.path is None else body.path
            saved = client.save_state(name, overwrite=body.overwrite)
            return _then(saved, lambda response: {"path": response.path, "type": "save_weights"})

        return self.submit(body.model_id, body.seq_id, work)

    def save_for_sampler(self, body: SaveForSampler) -> PendingRequest:
        """Save the weights under a name, or keep a snapshot in memory."""

        def work(client: TrainingClient) -> Awaitable[Any]:
            if body.kind != "snapshot":
                raise ConfigError(f"kind is {body.kind!r}; only 'snapshot' is available on this server")
            if body.path is not None:
                saved = client.save_weights_for_sampler(body.path)
                return _then(saved, lambda response: {"path": response.path, "type": "save_weights_for_sampler"})
            session = self.session(body.model_id.rpartition(":train:")[0])
            number = body.seq_id if body.sampling_session_seq_id is None else body.sampling_session_seq_id
            sampler = self._new_sampler(session, number, client.get_info().model_name or "", None, None)
            sampler.client = asyncio.get_running_loop().create_future()
            sampler.client.set_result(client.save_weights_and_get_sampling_client())
            session.add_sampler(sampler)
            return _then(_done(), lambda _: {"sampling_session_id": sampler.id, "type": "save_weights_for_sampler"})

        return self.submit(body.model_id, body.seq_id, work)

    # -- samplers ------------------------------------------------------------------------------------------------------

    def create_sampler(self, body: CreateSamplingSession) -> Sampler:
        """Create a sampler of a base model or of saved weights; the weights are loaded in the background.

        Raises:
            ConfigError: If neither is named, or the base model is not served.
            CheckpointError: If there is no such checkpoint.
            RunError: If the session is unknown.
        """
        session = self.session(body.session_id)
        if body.model_path is not None:
            base_model = self._check_checkpoint(body.model_path)
        elif body.base_model is not None:
            base_model = self._check_served(body.base_model)
        else:
            raise ConfigError("expected base_model or model_path")

        def load() -> Awaitable[SamplingClient]:
            return asyncio.to_thread(self.service.create_sampling_client, body.model_path, body.base_model)

        sampler = self._new_sampler(session, body.sampling_session_seq_id, base_model, body.model_path, load)
        if sampler.id in session.samplers:
            return session.samplers[sampler.id]
        sampler.client = asyncio.ensure_future(load())
        sampler.client.add_done_callback(lambda done: done.cancelled() or done.exception())  # a sample raises it
        session.add_sampler(sampler)
        return sampler

    def _new_sampler(
        self,
        session: Session,
        number: int | None,
        base_model: str,
        model_path: str | None,
        load: Callable[[], Awaitable[SamplingClient]] | None,
    ) -> Sampler:
        return Sampler(f"{session.id}:sample:{number}", base_model, model_path, Requests(self.pending), load)

    def sampler(self, sampler_id: str) -> Sampler:
        """Return a sampler.

        Raises:
            RunError: If there is none of that id.
        """
        session_id = sampler_id.rpartition(":sample:")[0]
        session = self.sessions.get(session_id)
        if session is None or sampler_id not in session.samplers:
            raise RunError(
                f"the server has no sampler {sampler_id!r}: it was restarted, or the session ended; create the "
                "sampling client again"
            )
        self.session(session_id)
        return session.sampler(sampler_id)

    def sample(self, body: SampleBody) -> PendingRequest:
        """Generate samples, or compute the log-probabilities of a prompt."""
        try:
            sampler = self.sampler(body.sampling_session_id)
        except RunError as error:
            return self.refuse(error)

        async def work() -> Any:
            for name in ONLY_LOCAL:
                if getattr(body, name) not in (None, 0):
                    raise ConfigError(f"{name} is not available over HTTP; the local client has it")
            prompt, params = read_prompt(body.prompt), _checked(SamplingParams, body.sampling_params)
            client = await sampler.loaded()
            return await client.sample(
                prompt,
                body.num_samples,
                params,
                include_prompt_logprobs=bool(body.prompt_logprobs),
                topk_prompt_logprobs=body.topk_prompt_logprobs,
            )

        ids = [f"{sampler.id}:{body.seq_id}:{number}" for number in range(body.num_samples)]
        return sampler.requests.submit(body.seq_id, work, {"sample_sequence_ids": ids})

    # -- checks --------------------------------------------------------------------------------------------------------

    def _check_served(self, base_model: str) -> str:
        if base_model not in self._served:
            raise ConfigError(
                f"base model {base_model!r} is not served here; {one_of(self._served, base_model)} "
                "(mint-lab serve --model NAME adds one)"
            )
        return base_model

    def _check_checkpoint(self, path: str) -> str:
        """Return the base model of a checkpoint of this key.

        Raises:
            CheckpointError: If the path is not one of the API, or there is no checkpoint.
            ConfigError: If its base model is not served.
        """
        self.paths.parse(path)  # refuses directories, which the local service would read
        return self._check_served(read_metadata(self.paths.folder(path))[0])


@dataclass
class TrainingServer:
    """The accounts of all keys, and the base models, which stay loaded.

    Attributes:
        settings: The settings.
        accounts: One for each key.
        contexts: The longest sequence of each base model, by the name that clients use.
    """

    settings: ServerSettings
    accounts: list[Account] = field(default_factory=list)
    contexts: dict[str, int] = field(default_factory=dict)
    _loaded: list[SamplingClient] = field(default_factory=list)

    def load(self) -> None:
        """Load the base models, so that a mistake shows now and the first client does not wait.

        Raises:
            ModelError: If one cannot be loaded.
            ConfigError, CheckpointError: As the local service.
        """
        served: list[str] = []
        for name in self.settings.models:
            text = text_source(name)
            self.contexts[name] = text.context  # type: ignore[attr-defined]  # a local source has it
            served += dict.fromkeys((name, text.name))  # type: ignore[attr-defined]
        self.accounts = [Account(key, self.settings, served) for key in self.settings.keys]
        service = self.accounts[0].service
        self._loaded = [service.create_sampling_client(base_model=name) for name in self.settings.models]

    def account(self, key: str) -> Account | None:
        """Return the account of a key, in a time that does not depend on it; None if the key is unknown."""
        found = None
        for account in self.accounts:
            if hmac.compare_digest(account.key.encode(), key.encode()):
                found = account
        return found


def _check_optimizer(kind: Any) -> None:
    if kind not in (None, "adamw"):
        raise ConfigError(f"optimizer {kind!r} is not available on this server; use AdamParams")


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    """Return settings as the SDK's class.

    Raises:
        ConfigError: If they do not fit.
    """
    try:
        return kind(**values)
    except (ValidationError, TypeError) as error:
        problems = str(error)
        if isinstance(error, ValidationError):
            items = error.errors(include_url=False, include_context=False)
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items)
        raise ConfigError(f"{kind.__name__}: {problems}") from None


async def _done() -> None:
    return None


async def _then(result: Awaitable[Any], convert: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    return convert(await result)


def describe(error: BaseException) -> dict[str, str]:
    """Return what a client gets as the result of a request that failed."""
    if isinstance(error, MintLabError):
        return {"error": str(error), "category": "user"}
    return {"error": f"internal error of the server: {type(error).__name__}: {error}", "category": "server"}
