"""A registry of functions by name and version: how losses and rewards are registered, replaced and looked up.

This module is below ``losses`` and ``data``, which do not import each other.
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
    """An entry of a registry: a frozen dataclass with at least these fields."""

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
    """The name is not registered. Also a ``KeyError``, which a mapping must raise."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Mapping[str, E], Generic[E]):
    """Entries by name. Registering a name again creates its next version and notifies every subscriber.

    The registry is thread-safe: a cell registers on the main thread while a run looks up on its worker thread.

    Args:
        kind: What the entries are, for messages, such as ``"loss"``.
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
        """Return the version that registering ``name`` now would create, from 1.

        Raises:
            ConfigError: If the name is built in; a built-in entry cannot be replaced.
        """
        with self._lock:
            old = self._entries.get(name)
            if old is None:
                return 1
            if old.builtin:
                raise ConfigError(f"{name!r} is a built-in {self.kind}; choose another name")
            return old.version + 1

    def register(self, entry: E) -> E:
        """Add ``entry``, or replace the entry of that name by its next version.

        Args:
            entry: If its ``source`` is empty, ``inspect`` reads the source of its function.

        Returns:
            The registered entry, with its version and source.

        Raises:
            ConfigError: If the name is built in; a built-in entry cannot be replaced.
            BaseException: The first exception of a subscriber, after all of them were called; the entry is registered.
        """
        with self._lock:
            version = self.next_version(entry.name) if entry.name in self._entries else entry.version
            notify, entry = self._put(replace(entry, version=version))
        notify()
        return entry

    def add(self, entry: E) -> E:
        """Add ``entry`` without replacing another: if its name is in use, under the first free of ``NAME_2``, ...

        Returns:
            The registered entry. If the function is registered already, its entry, under ``entry.name`` if possible.
        """
        with self._lock:
            same_function = [known for known in self._entries.values() if _is_same(known.fn, entry.fn)]
            if same_function:
                return next((known for known in same_function if known.name == entry.name), same_function[0])
            names = itertools.chain([entry.name], (f"{entry.name}_{number}" for number in itertools.count(2)))
            notify, entry = self._put(replace(entry, name=next(name for name in names if name not in self._entries)))
        notify()
        return entry

    def first(self, name: str) -> E:
        """Return the first entry registered under ``name``: for a bundled name, the bundled one.

        Raises:
            UnknownNameError: If the name is not registered.
        """
        return self._first[self[name].name]

    def restore(self, name: str) -> E:
        """Register the first entry of ``name`` again as its next version: undoes a cell that replaced a bundled one.

        Raises:
            ConfigError: If the name is unknown, or built in and therefore never replaced.
        """
        return self.register(self.first(name))

    def _put(self, entry: E) -> tuple[Callable[[], None], E]:
        """Store ``entry``; return it and a function that notifies the subscribers, to be called without the lock."""
        entry = replace(entry, source=entry.source or _source(entry.fn))
        self._entries[entry.name] = entry
        self._first.setdefault(entry.name, entry)
        subscribers = list(self._subscribers)

        def notify_subscribers() -> None:
            errors: list[BaseException] = []
            for notify in subscribers:
                try:
                    notify(entry)
                except BaseException as error:  # also a SystemExit: the others are called first
                    errors.append(error)
            if errors:
                raise errors[0]

        return notify_subscribers, entry

    def subscribe(self, notify: Callable[[E], None]) -> Callable[[], None]:
        """Call ``notify(entry)`` after each registration.

        Returns:
            A disposer that ends the subscription; calling it again has no effect.
        """
        with self._lock:
            self._subscribers.append(notify)

        def dispose() -> None:
            with self._lock:
                if notify in self._subscribers:
                    self._subscribers.remove(notify)

        return dispose


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # Each lookup of a bound method creates a new object, so `is` does not suffice.
    return one is other or (inspect.ismethod(one) and one == other)


def _source(fn: Callable[..., Any]) -> str:
    """Return a function's source, or "" if ``inspect`` cannot find it."""
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        return ""
