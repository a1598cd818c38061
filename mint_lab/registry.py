"""Functions by name and version: the one rule by which losses and rewards are registered, replaced and looked up.

It lies below ``losses`` and ``data``, which do not import each other.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from .errors import ConfigError, one_of

__all__ = ["Registry", "UnknownNameError"]


class Entry(Protocol):
    """What a registry holds: a frozen dataclass with at least these fields."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def builtin(self) -> bool: ...
    @property
    def source(self) -> str: ...
    @property
    def fn(self) -> Callable[..., Any]: ...


E = TypeVar("E", bound=Entry)


class UnknownNameError(ConfigError, KeyError):
    """A name that is not registered; also a ``KeyError``, so that the registry is a proper mapping."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, E], Generic[E]):
    """Entries by name. Registering a name again gives it the next version and tells every subscriber.

    Safe to use from several threads: a cell registers on the main thread while a run looks up on its worker.

    Args:
        kind: what the entries are, for messages: ``"loss"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}
        self._first: dict[str, E] = {}
        self._subscribers: list[Callable[[E], None]] = []
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> E:
        with self._lock:
            if name in self._entries:
                return self._entries[name]
            names = list(self._entries)
        raise UnknownNameError(f"unknown {self.kind} {name!r}; {one_of(names, str(name))}")

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{self.kind} registry: {', '.join(self)}>"

    def next_version(self, name: str) -> int:
        """The version that registering ``name`` now would make, from 1.

        Raises:
            ConfigError: the name is built in, and its meaning fixed.
        """
        with self._lock:
            old = self._entries.get(name)
            if old is None:
                return 1
            if old.builtin:
                raise ConfigError(f"{name!r} is a built-in {self.kind}; choose another name")
            return old.version + 1

    def register(self, entry: E) -> E:
        """Add ``entry``, or replace the one of that name by its next version; returns what is now registered.

        Its source is read off its function where none is given.

        Raises:
            ConfigError: the name is built in, and its meaning fixed.
            Exception: the first that a subscriber raised, after all of them were called; the entry is registered.
        """
        with self._lock:
            version = self.next_version(entry.name) if entry.name in self._entries else entry.version
            tell, entry = self._put(replace(entry, version=version))
        tell()
        return entry

    def add(self, entry: E) -> E:
        """Add ``entry`` without replacing another: where its name is taken, as the first free one of ``NAME_2``, ...

        Returns:
            What is now registered; of a function that is registered already, its entry as it is.
        """
        with self._lock:
            found = [known for known in self._entries.values() if _same(known.fn, entry.fn)]
            if found:
                return next((known for known in found if known.name == entry.name), found[0])
            names = itertools.chain([entry.name], (f"{entry.name}_{number}" for number in itertools.count(2)))
            tell, entry = self._put(replace(entry, name=next(name for name in names if name not in self._entries)))
        tell()
        return entry

    def first(self, name: str) -> E:
        """What was registered under ``name`` first: of a bundled name the bundled one, whatever replaced it since.

        Raises:
            UnknownNameError: nothing has been.
        """
        return self._first[self[name].name]

    def restore(self, name: str) -> E:
        """Register the first of ``name`` again, as the next version: back from a cell that replaced a bundled one.

        Raises:
            ConfigError: an unknown name, or a built-in one, which is never replaced.
        """
        return self.register(self.first(name))

    def _put(self, entry: E) -> tuple[Callable[[], None], E]:
        """Enter ``entry``; returns what tells the subscribers, which is to be called without the lock."""
        entry = replace(entry, source=entry.source or _source(entry.fn))
        self._entries[entry.name] = entry
        self._first.setdefault(entry.name, entry)
        subscribers = list(self._subscribers)

        def tell() -> None:
            raised: list[Exception] = []
            for notify in subscribers:
                try:
                    notify(entry)
                except Exception as error:
                    raised.append(error)
            if raised:
                raise raised[0]

        return tell, entry

    def subscribe(self, notify: Callable[[E], None]) -> Callable[[], None]:
        """Call ``notify(entry)`` after each registration; returns a function that ends the subscription."""
        with self._lock:
            self._subscribers.append(notify)

        def dispose() -> None:
            with self._lock:
                if notify in self._subscribers:
                    self._subscribers.remove(notify)

        return dispose


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # A bound method is a new object each time it is looked up.
    return one is other or (inspect.ismethod(one) and one == other)


def _source(fn: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        return ""
