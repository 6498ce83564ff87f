"""A map whose every change takes the next revision, with a bounded past: pure, nothing waits."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from riverrun_server.ports.metadata import (
    Compacted,
    Compare,
    Entry,
    Event,
    FutureRevision,
    Operation,
    Put,
    Relation,
    Target,
    WatchBatch,
)


@dataclass(frozen=True, slots=True)
class _Change:
    event: Event
    before: Entry | None


class RevisionedMap:
    """Keys as they stand, and what the newest revisions changed.

    Args:
        entries: as they stood when the store was opened.
        revision: the newest one then; what it changed is not known any more.
        keep: the changes of this many revisions are kept.
    """

    def __init__(self, entries: Iterable[Entry], revision: int, keep: int) -> None:
        self.revision = revision
        self.compacted = revision
        self._keep = keep
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        self._changes: dict[int, tuple[_Change, ...]] = {}

    def get(self, key: str, revision: int | None = None) -> Entry | None:
        """Return a key as it stands, or stood at a revision.

        Raises:
            Compacted, FutureRevision
        """
        if revision is None:
            return self._entries.get(key)
        return next(iter(self._undone(key, revision, exact=True).values()), None)

    def scan(self, prefix: str, revision: int | None = None) -> list[Entry]:
        """Return all keys that begin with `prefix`, in order.

        Raises:
            Compacted, FutureRevision
        """
        if revision is None:
            return [self._entries[key] for key in self._range(prefix)]
        found = self._undone(prefix, revision, exact=False)
        return [found[key] for key in sorted(found)]

    def holds(self, compare: Compare) -> bool:
        """Return whether a condition holds now."""
        entry = self._entries.get(compare.key)
        actual: int | bytes
        match compare.target:
            case Target.VALUE:
                if entry is None:
                    return False
                actual = entry.value
            case Target.CREATE_REVISION:
                actual = entry.create_revision if entry else 0
            case Target.MOD_REVISION:
                actual = entry.mod_revision if entry else 0
            case Target.VERSION:
                actual = entry.version if entry else 0
        return _related(actual, compare.relation, compare.operand)

    def decide(self, operations: Sequence[Operation]) -> tuple[Event, ...]:
        """Return what operations would change as the next revision; nothing where they would not.

        A put always changes its key, a deletion only one that is there.
        """
        revision = self.revision + 1
        events = []
        for operation in operations:
            before = self._entries.get(operation.key)
            if isinstance(operation, Put):
                entry = Entry(
                    operation.key,
                    operation.value,
                    before.create_revision if before else revision,
                    revision,
                    before.version + 1 if before else 1,
                    operation.lease,
                )
                events.append(Event(operation.key, entry, revision))
            elif before is not None:
                events.append(Event(operation.key, None, revision))
        return tuple(events)

    def apply(self, events: tuple[Event, ...]) -> None:
        """Take the next revision, as `decide` returned it."""
        assert events, "a revision without a change"
        self.revision += 1
        changes = []
        for event in events:
            assert event.mod_revision == self.revision, (event, self.revision)
            changes.append(_Change(event, self._entries.get(event.key)))
            self._set(event.key, event.entry)
        self._changes[self.revision] = tuple(changes)
        while len(self._changes) > self._keep:
            self.compacted += 1
            del self._changes[self.compacted]

    def next_batch(self, prefix: str, start: int, end: int) -> tuple[WatchBatch | None, int]:
        """Return the first change under `prefix` from revision `start` to `end`, and where to go on.

        Raises:
            Compacted: what `start` changed is no longer kept.
        """
        if start <= self.compacted:
            raise Compacted(start, self.compacted)
        for revision in range(start, end + 1):
            events = tuple(
                change.event
                for change in self._changes[revision]
                if change.event.key.startswith(prefix)
            )
            if events:
                return WatchBatch(revision, events), revision + 1
        return None, max(start, end + 1)

    def _set(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            del self._entries[key]
            del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._entries:
            insort(self._keys, key)
        self._entries[key] = entry

    def _range(self, prefix: str) -> list[str]:
        begin = end = bisect_left(self._keys, prefix)
        while end < len(self._keys) and self._keys[end].startswith(prefix):
            end += 1
        return self._keys[begin:end]

    def _undone(self, prefix: str, revision: int, *, exact: bool) -> dict[str, Entry]:
        """Return what stood at a revision, by taking back everything since."""
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} asked for, the store is at {self.revision}")
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)
        keys = [prefix] if exact else self._range(prefix)
        found = {key: self._entries[key] for key in keys if key in self._entries}
        for undone in range(self.revision, revision, -1):
            for change in self._changes[undone]:
                key = change.event.key
                if key != prefix if exact else not key.startswith(prefix):
                    continue
                if change.before is None:
                    found.pop(key, None)
                else:
                    found[key] = change.before
        return found


def _related(actual: int | bytes, relation: Relation, operand: int | bytes) -> bool:
    match relation:
        case Relation.EQUAL:
            return actual == operand
        case Relation.NOT_EQUAL:
            return actual != operand
        case Relation.LESS:
            return actual < operand  # type: ignore[operator] # a target has one type
        case Relation.GREATER:
            return actual > operand  # type: ignore[operator] # as above
