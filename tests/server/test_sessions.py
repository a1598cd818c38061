"""Keys, sessions, models and samplers: who sees what, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mint_lab.errors import CheckpointError, ConfigError, DataError, RunError
from mint_lab.server import sessions
from mint_lab.server.bodies import CreateModel, CreateSamplingSession, LoadWeights, SampleBody, SaveForSampler
from mint_lab.server.sessions import Account, TrainingServer, describe

from . import api
from .api import KEY, OTHER_KEY, make_server


def run(program: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await program()

    return asyncio.run(main())


@pytest.fixture
def account(server: TrainingServer) -> Account:
    return server.accounts[0]


async def new_model(account: Account, session: str, number: int = 0) -> str:
    body = CreateModel.model_validate(api.create_model(session, number))
    return (await account.create_model(body).task)["model_id"]


def test_keys_have_accounts(server: TrainingServer) -> None:
    assert [server.account(key) for key in (KEY, OTHER_KEY)] == server.accounts
    assert server.account("tml-") is None
    assert server.account("") is None
    assert server.accounts[0].paths.home != server.accounts[1].paths.home


def test_session_of_an_earlier_server_is_known(server: TrainingServer, account: Account) -> None:
    """Its id is signed with the key, so that neither another key nor a made-up id opens one."""
    session = account.new_session()
    assert account.session(session.id) is session
    later = TrainingServer(server.settings)
    later.load()
    assert later.accounts[0].session(session.id).id == session.id
    for stranger, session_id in (
        (later.accounts[1], session.id),
        (account, "made-up"),
        (account, ""),
        (account, "é-é"),
    ):
        with pytest.raises(RunError, match="there is no session"):
            stranger.session(session_id)


def test_silent_session_ends_and_frees_its_model(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])

    async def program() -> None:
        quiet, alive = account.new_session(), account.new_session()
        lost, kept = await new_model(account, quiet.id), await new_model(account, alive.id)
        client = weakref.ref(account.model(lost).trained())
        now[0] += account._settings.idle_seconds - 1
        account.session(alive.id)
        now[0] += 2
        account.end_expired()
        assert list(account.sessions) == [alive.id]
        assert account.model(kept).client is not None
        with pytest.raises(RunError, match=r"gave no sign of life for 3600 s. Create the client again from the last"):
            account.model(lost)
        gc.collect()
        assert client() is None
        account.finish_session(alive.id)
        now[0] += sessions.FINISHED_SECONDS + 1
        account.end_expired()
        assert account.sessions == {}
        assert not [p for p in account.pending.values() if not p.is_fetched and p not in _unnumbered(account)]

    run(program)


def _unnumbered(account: Account) -> list[Any]:
    return list(account._unnumbered._known.values())


def test_model_is_created_once(account: Account) -> None:
    async def program() -> None:
        session = account.new_session()
        body = CreateModel.model_validate(api.create_model(session.id))
        first, again = account.create_model(body), account.create_model(body)
        assert first is again
        assert (await first.task)["model_id"] == f"{session.id}:train:0", "the name that the SDK builds itself"

    run(program)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model": "/etc"}, r"base model '/etc' is not served here; expected one of: mint-tiny"),
        ({"base_model": "mint-tin"}, "did you mean 'mint-tiny'"),
        ({"lora_config": {"rank": 0}}, "rank is 0, expected a whole number from 1 up"),
        ({"lora_config": {"rank": 10**6}}, "rank is 1000000"),
        ({"lora_config": {"train_mlp": False, "train_attn": False, "train_unembed": False}}, "nothing to train"),
        ({"optimizer_config": {"type": "dimuon"}}, "optimizer 'dimuon' is not available"),
    ],
)
def test_model_that_cannot_be_created(account: Account, change: dict[str, Any], words: str) -> None:
    async def program() -> None:
        session = account.new_session()
        pending = account.create_model(CreateModel.model_validate({**api.create_model(session.id), **change}))
        with pytest.raises((ConfigError, Exception), match=words):
            await pending.task
        model = f"{session.id}:train:0"
        with pytest.raises(RunError, match="was not created"):
            await account.submit(model, 1, lambda client: client.forward([], "ppo")).task
        assert await new_model(account, session.id, 1), "the session stays usable"

    run(program)


def test_checkpoint_of_another_key_or_place_is_not_read(server: TrainingServer) -> None:
    async def program() -> None:
        mine, other = server.accounts
        session = mine.new_session()
        model = await new_model(mine, session.id)
        saved = await mine.submit(model, 1, lambda client: client.save_state("a")).task
        assert saved.path == f"tinker://{session.id}-train-0/weights/a"
        body = {"optimizer": True, "session_id": session.id, "model_seq_id": 1}
        loaded = mine.load_model(LoadWeights(path=saved.path, **body))
        assert (await loaded.task)["model_id"] == f"{session.id}:train:1"
        foreign = {**body, "session_id": other.new_session().id}
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            await other.load_model(LoadWeights(path=saved.path, **foreign)).task
        folder = str(mine.paths.folder(saved.path))
        for number, path in enumerate((folder, "tinker://../weights/a", "tinker://a/../a", "tinker://a/weights/.."), 2):
            with pytest.raises(CheckpointError, match="is not a checkpoint path"):
                await mine.load_model(LoadWeights(path=path, **{**body, "model_seq_id": number})).task
        with pytest.raises(ConfigError, match="expected model_id and seq_id, or session_id and model_seq_id"):
            mine.load_model(LoadWeights(path=saved.path, optimizer=True))

    run(program)


def test_base_model_of_a_checkpoint_must_be_served(server: TrainingServer, account: Account) -> None:
    async def program() -> None:
        session = account.new_session()
        model = await new_model(account, session.id)
        saved = await account.submit(model, 1, lambda client: client.save_state("a")).task
        account._served = ["other"]
        body = CreateSamplingSession(session_id=session.id, sampling_session_seq_id=0, model_path=saved.path)
        with pytest.raises(ConfigError, match="base model 'mint-tiny' is not served here; expected one of: other"):
            account.create_sampler(body)

    run(program)


async def snapshot(account: Account, model: str, number: int) -> str:
    body = SaveForSampler(model_id=model, seq_id=number + 1, sampling_session_seq_id=number)
    return (await account.save_for_sampler(body).task)["sampling_session_id"]


async def sampled(account: Account, sampler: str, **more: Any) -> Any:
    return await account.sample(SampleBody.model_validate(api.sample(sampler, **more))).task


def test_least_used_samplers_are_dropped(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots are lost then; saved weights and base models are loaded again."""
    monkeypatch.setattr(sessions, "KEPT_SAMPLERS", 2)

    async def program() -> None:
        session = account.new_session()
        base = account.create_sampler(
            CreateSamplingSession(session_id=session.id, sampling_session_seq_id=99, base_model="mint-tiny")
        )
        before = await sampled(account, base.id)
        model = await new_model(account, session.id)
        first, second = [await snapshot(account, model, number) for number in (0, 1)]
        assert base.client is None
        assert list((await sampled(account, base.id, seq_id=1)).sequences[0].tokens) == list(before.sequences[0].tokens)
        await sampled(account, first)
        third = await snapshot(account, model, 2)
        await sampled(account, third)
        with pytest.raises(RunError, match="no longer in memory: the server keeps the last 2 of a session"):
            await sampled(account, second)

    run(program)


def test_sampler_needs_a_model(account: Account) -> None:
    async def program() -> None:
        session = account.new_session().id
        for given, words in (
            ({}, "expected base_model or model_path"),
            ({"base_model": "/tmp"}, "is not served here"),
            ({"model_path": "/tmp"}, "is not a checkpoint path"),
            ({"model_path": "tinker://a/weights/b"}, "no checkpoint at"),
        ):
            with pytest.raises((ConfigError, CheckpointError), match=words):
                account.create_sampler(CreateSamplingSession(session_id=session, sampling_session_seq_id=0, **given))
        with pytest.raises(RunError, match="the server has no sampler"):
            await sampled(account, f"{session}:sample:5")

    run(program)


def test_sampler_is_created_once(account: Account) -> None:
    async def program() -> None:
        body = CreateSamplingSession(
            session_id=account.new_session().id, sampling_session_seq_id=0, base_model="mint-tiny"
        )
        assert account.create_sampler(body) is account.create_sampler(body)

    run(program)


def test_errors_have_a_category() -> None:
    assert describe(DataError("x", index=1)) == {"error": "datum 1: x", "category": "user"}
    assert describe(KeyError("x")) == {
        "error": "internal error of the server: KeyError: 'x'",
        "category": "server",
    }


def test_result_is_held_open_for_a_while(tmp_path: Any) -> None:
    account = make_server(tmp_path, hold_seconds=0.01).accounts[0]

    async def program() -> None:
        gate = asyncio.Event()

        async def work() -> str:
            await gate.wait()
            return "done"

        pending = account._unnumbered.submit(None, work)
        assert await account.result(pending.id) == (False, None)
        assert not pending.is_fetched
        gate.set()
        await pending.task
        assert await account.result(pending.id) == (True, "done")
        assert await account.result(pending.id) == (True, "done"), "the first answer may have been lost"
        assert pending.is_fetched
        with pytest.raises(RunError, match="the server has no request 'x': it was restarted, or the session ended"):
            await account.result("x")

    run(program)
