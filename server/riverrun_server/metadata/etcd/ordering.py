"""Makes whole revisions of the events of a watch, each once and in order, or says that one is missing.

etcd promises as much, and its own record of faults says that it did not always keep it: events have
been repeated, lost after a compaction, and told late. Every key's version counts its puts, so a put
that is missing shows in the next event of its key. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from riverrun_server.ports.metadata import Event, WatchBatch, WatchInterrupted

# Keys whose newest event is remembered; one that was forgotten cannot be held against the next.
_REMEMBERED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Seen:
    mod_revision: int
    create_revision: int
    version: int  # 0 after a deletion


class EventOrder:
    """What a watch has told so far.

    Args:
        start_revision: events before it are not wanted.
        remember: so many keys.
    """

    def __init__(self, start_revision: int, remember: int = _REMEMBERED_MAX) -> None:
        self._start = start_revision
        self._told = start_revision - 1
        self._open: list[Event] = []
        self._seen: dict[str, _Seen] = {}
        self._remember = remember
        self._forgot = False

    def take(self, events: Iterable[Event], *, unfinished: bool) -> list[WatchBatch]:
        """Return the revisions that are complete now.

        Args:
            events: of one response.
            unfinished: the next response goes on with the last revision of this one.

        Raises:
            WatchInterrupted: an event is missing, or came too late.
        """
        batches = []
        for event in events:
            if self._repeated(event):
                continue
            newest = self._open[-1].mod_revision if self._open else self._told
            if event.mod_revision < newest or event.mod_revision <= self._told:
                raise WatchInterrupted(
                    f"a change of {event.key!r} at revision {event.mod_revision} was told after "
                    f"revision {newest}"
                )
            self._check(event)
            if self._open and event.mod_revision > newest:
                batches.append(self._close())
            self._note(event)
        if self._open and not unfinished:
            batches.append(self._close())
        return batches

    def _repeated(self, event: Event) -> bool:
        seen = self._seen.get(event.key)
        told_before = seen is not None and event.mod_revision <= seen.mod_revision
        return told_before or event.mod_revision < self._start

    def _check(self, event: Event) -> None:
        seen, entry = self._seen.get(event.key), event.entry
        if entry is None:
            fits = seen is None or seen.version > 0
        elif seen is not None and seen.version and entry.create_revision == seen.create_revision:
            fits = entry.version == seen.version + 1
        elif seen is not None:
            # Made anew: its end must have been told, and this must be the first put.
            fits = seen.version == 0 and entry.version == 1
        else:
            # Its first event here; of a key that was made since the start it is the first of all.
            fits = entry.create_revision < self._start or entry.version == 1 or self._forgot
        if not fits:
            raise WatchInterrupted(
                f"a change of {event.key!r} before revision {event.mod_revision} was never told"
            )

    def _note(self, event: Event) -> None:
        entry = event.entry
        # Put last: the keys that changed longest ago are forgotten first.
        self._seen.pop(event.key, None)
        self._seen[event.key] = _Seen(
            event.mod_revision,
            entry.create_revision if entry else 0,
            entry.version if entry else 0,
        )
        if len(self._seen) > self._remember:
            self._forgot = True
            for key in list(islice(self._seen, self._remember // 2)):
                del self._seen[key]
        self._open.append(event)

    def _close(self) -> WatchBatch:
        batch = WatchBatch(self._open[0].mod_revision, tuple(self._open))
        self._told = batch.revision
        self._open = []
        return batch
