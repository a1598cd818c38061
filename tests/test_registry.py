"""The registry of losses and rewards, tested with a small entry class."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.registry import Registry

from .waiting import Attempt, Gate, join


@dataclass(frozen=True)
class Named:
    name: str
    fn: Callable[..., Any]
    version: int = 1
    source: str = ""
    builtin: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} v{self.version}"


def scaled(x: float) -> float:
    return 2 * x


def spec(name: str = "scaled", **given: Any) -> Named:
    return Named(name, scaled, **given)


def test_registry_is_a_mapping() -> None:
    registry = Registry("loss")
    first = registry.register(spec("a"))
    assert (list(registry), len(registry), "a" in registry, "b" in registry) == (["a"], 1, True, False)
    assert registry["a"] is first
    assert registry.get("b") is None
    assert repr(registry) == "<loss registry: a>"
    with pytest.raises(KeyError):
        registry["b"]
    with pytest.raises(ConfigError, match=r"^unknown loss 'aa'; expected one of: a; did you mean 'a'\?$"):
        registry["aa"]


def test_registering_again_counts_versions_and_keeps_the_source() -> None:
    registry = Registry("loss")
    assert registry.register(spec()).label == "scaled v1"
    assert registry.register(spec()).label == "scaled v2"
    assert registry.register(spec(source="by hand")).source == "by hand"
    assert registry["scaled"].label == "scaled v3"
    assert "def scaled(" in registry.register(spec()).source


def test_function_without_source_is_registered() -> None:
    entry = Registry("loss").register(Named("c", math.fsum))
    assert entry.source == ""


def test_builtin_names_cannot_be_replaced() -> None:
    registry = Registry("loss")
    registry.register(spec("ppo", builtin=True))
    with pytest.raises(ConfigError, match="'ppo' is a built-in loss; choose another name"):
        registry.register(spec("ppo"))
    assert registry["ppo"].version == 1


def test_subscribers_are_notified_until_disposed() -> None:
    registry, notified = Registry("loss"), []
    dispose = registry.subscribe(lambda loss: notified.append(loss.label))
    registry.register(spec("a"))
    registry.register(spec("a"))
    dispose()
    registry.register(spec("a"))
    dispose()  # a second time does nothing
    assert notified == ["a v1", "a v2"]


def test_subscriber_may_look_up_and_dispose_during_a_notification() -> None:
    registry, notified = Registry("loss"), []

    def once(loss: Named) -> None:
        notified.append(registry[loss.name].version)
        dispose()

    dispose = registry.subscribe(once)
    registry.register(spec("a"))
    registry.register(spec("a"))
    assert notified == [1]


def test_registering_from_several_threads_counts_every_version() -> None:
    registry = Registry("loss")
    threads = [threading.Thread(target=lambda: [registry.register(spec()) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry["scaled"].version == 200


def test_next_version() -> None:
    registry = Registry("reward")
    assert registry.next_version("scaled") == 1
    registry.register(spec())
    assert registry.next_version("scaled") == 2
    registry.register(spec("fixed", builtin=True))
    with pytest.raises(ConfigError, match="'fixed' is a built-in reward; choose another name"):
        registry.next_version("fixed")


def test_add_replaces_no_entry() -> None:
    registry: Registry[Named] = Registry("loss")
    first = registry.register(spec("mine", builtin=True))
    notified: list[str] = []
    registry.subscribe(lambda entry: notified.append(entry.label))
    others = [registry.add(Named("mine", fn)) for fn in (lambda x: x, lambda x: -x)]
    assert [entry.label for entry in others] == notified == ["mine_2 v1", "mine_3 v1"]
    assert registry["mine"] is first
    assert [registry.add(Named("mine", entry.fn)) for entry in (first, *others)] == [first, *others], (
        "adding a function again returns its entry"
    )
    assert registry.add(spec("other")) is first, "the function is registered under another name"
    assert len(notified) == 2
    method = [registry.add(Named("method", registry.next_version)) for _ in range(2)]
    assert method[0] is method[1], "bound methods compare equal but are not identical"


def test_add_prefers_the_entry_with_the_same_name() -> None:
    registry: Registry[Named] = Registry("loss")
    entries = [registry.register(spec(name)) for name in ("a", "b")]
    assert [registry.add(spec(name)) for name in ("a", "b", "c")] == [*entries, entries[0]]


@pytest.mark.parametrize("kind", [ConfigError, SystemExit])
def test_every_subscriber_is_notified_even_if_one_raises(kind: type[BaseException]) -> None:
    registry: Registry[Named] = Registry("loss")
    notified: list[str] = []

    def first(entry: Named) -> None:
        raise kind(f"first cannot use {entry.label}")

    def second(entry: Named) -> None:
        notified.append(entry.label)
        raise ValueError("second")

    registry.subscribe(first)
    registry.subscribe(second)
    with pytest.raises(kind, match="first cannot use scaled v1"):
        registry.register(spec())
    assert (notified, registry["scaled"].version) == (["scaled v1"], 1)


def test_restore_registers_the_first_entry_again() -> None:
    registry: Registry[Named] = Registry("loss")
    registry.register(spec(source="the first"))
    registry.register(spec(source="another"))
    assert (registry.first("scaled").label, registry["scaled"].source) == ("scaled v1", "another")
    notified: list[str] = []
    registry.subscribe(lambda entry: notified.append(entry.label))
    restored = registry.restore("scaled")
    assert registry["scaled"] is restored
    assert (restored.label, restored.source, notified) == ("scaled v3", "the first", ["scaled v3"])
    registry.register(spec("fixed", builtin=True))
    with pytest.raises(ConfigError, match="'fixed' is a built-in loss"):
        registry.restore("fixed")
    with pytest.raises(ConfigError, match="unknown loss 'scald'"):
        registry.restore("scald")


# -- from several threads ----------------------------------------------------------------------------------------------


def held_registry(monkeypatch: pytest.MonkeyPatch) -> tuple[Registry[Named], Gate, threading.Thread, Any]:
    """A registry with "first", in which a thread has begun to register "scaled" v2 and is held; and a disposer."""
    registry: Registry[Named] = Registry("loss")
    registry.register(spec("first", source="x"))
    registry.register(spec(source="x"))
    dispose = registry.subscribe(lambda entry: None)
    gate = Gate(holds=1)
    monkeypatch.setattr("mint_lab.registry._source", lambda fn: gate() or "")
    thread = threading.Thread(target=registry.register, args=(spec(),))
    thread.start()
    gate.wait()
    return registry, gate, thread, dispose


CALLS: dict[str, Callable[[Registry[Named]], Any]] = {
    "register": lambda registry: registry.register(spec(source="y")).version,
    "add": lambda registry: registry.add(Named("scaled", lambda x: x, source="z")).name,
    "restore": lambda registry: registry.restore("scaled").version,
    "next_version": lambda registry: registry.next_version("scaled"),
    "lookup": lambda registry: registry["scaled"].version,
    "names": list,
    "subscribe": lambda registry: registry.subscribe(lambda entry: None) and None,
}
FOUND = {"register": 3, "add": "scaled_2", "restore": 3, "next_version": 3, "lookup": 2, "names": ["first", "scaled"]}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_waits_for_a_registration(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """So no two registrations get the same version, and nobody sees half of one."""
    registry, gate, thread, dispose = held_registry(monkeypatch)
    attempts = [Attempt(job, registry, "_lock") for job in (lambda: CALLS[call](registry), dispose)]
    assert [attempt.waits for attempt in attempts] == [True, True]
    gate.open()
    assert [attempt.result() for attempt in attempts] == [FOUND.get(call), None]
    join(thread)
    assert registry["scaled"].version == (3 if call in ("register", "restore") else 2)


def test_add_holds_the_name_that_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[Named] = Registry("loss")
    gate = Gate(holds=1)
    monkeypatch.setattr("mint_lab.registry._source", lambda fn: gate() or "")
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.append(registry.add(Named("mine", lambda x: x)).name))
    thread.start()
    gate.wait()
    attempt = Attempt(lambda: registry.add(Named("mine", lambda x: -x)).name, registry, "_lock")
    assert attempt.waits
    gate.open()
    join(thread)
    assert [*names, attempt.result()] == ["mine", "mine_2"]


@pytest.mark.parametrize("call", ["register", "add"])
def test_subscribers_are_notified_without_the_lock(call: str) -> None:
    """A subscriber may wait for a thread that uses the registry, as a run does that looks up a loss."""
    registry: Registry[Named] = Registry("loss")
    waits: list[bool] = []
    registry.subscribe(lambda entry: waits.append(Attempt(lambda: registry[entry.name], registry, "_lock").waits))
    getattr(registry, call)(spec())
    assert waits == [False]
