"""Who watches the metadata, and what each has not been told yet.

A watcher keeps the names of what changed, never the changes: however slow it is, it gets the newest
state, and one that has fallen far behind gets everything anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster.topic_rules import is_internal
from riverrun_server.core.errors import Reason, Refusal

# Names that a watcher remembers; beyond that everything anew is the smaller message to think about.
_DIRTY_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class News:
    """What a watcher shall be told: everything (`topics` is None), or topics that changed."""

    topics: list[str] | None


class MetadataWatcher:
    """One watcher; it begins with everything.

    Transitions: behind (something to tell) -> up to date (`next`) -> behind (`note`);
    any -> closed.
    """

    def __init__(self, watchers: MetadataWatchers, names: frozenset[str] | None) -> None:
        self._watchers = watchers
        self._names = names
        self._dirty: set[str] | None = None
        self._behind = asyncio.Event()
        self._behind.set()
        self._closed = False

    async def next(self) -> News:
        """Wait until there is something to tell.

        Raises:
            Refusal: SHUTTING_DOWN.
        """
        await self._behind.wait()
        if self._closed:
            raise Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down; watch another broker")
        self._behind.clear()
        dirty, self._dirty = self._dirty, set()
        return News(None if dirty is None else sorted(dirty))

    def note(self, topics: Iterable[str], *, brokers: bool) -> None:
        """Remember what changed."""
        seen = [name for name in topics if self._sees(name)]
        if seen or brokers:
            if self._dirty is not None:
                self._dirty.update(seen)
                if len(self._dirty) > _DIRTY_MAX:
                    self._dirty = None
            self._behind.set()

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        self._behind.set()
        self._watchers.forget(self)

    def _sees(self, name: str) -> bool:
        return not is_internal(name) if self._names is None else name in self._names


class MetadataWatchers:
    """All watchers, a bounded number."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._watchers: set[MetadataWatcher] = set()

    def watch(self, names: Iterable[str]) -> MetadataWatcher:
        """Begin to watch topics by name; none is all that do not belong to the brokers.

        Raises:
            Refusal: OVERLOADED.
        """
        if len(self._watchers) >= self._at_most:
            raise Refusal(
                Reason.OVERLOADED,
                f"{self._at_most} streams watch this broker's metadata, which is the most; watch "
                "another broker, or close some",
            )
        watcher = MetadataWatcher(self, frozenset(names) or None)
        self._watchers.add(watcher)
        return watcher

    def note(self, topics: Iterable[str], *, brokers: bool) -> None:
        """Tell all watchers what changed."""
        topics = list(topics)
        for watcher in self._watchers:
            watcher.note(topics, brokers=brokers)

    def forget(self, watcher: MetadataWatcher) -> None:
        """Tell a watcher nothing any more."""
        self._watchers.discard(watcher)

    def close(self) -> None:
        """End every watch."""
        for watcher in list(self._watchers):
            watcher.close()
