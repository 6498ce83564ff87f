"""What each of the threads that share a consumer has in hand, so that it is not committed as finished."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from riverrun._core.records import CommittedOffset, Record, TopicPartition

_log = logging.getLogger("riverrun")

Places: TypeAlias = Mapping[TopicPartition, int]
"""The first offsets of what was taken, by partition."""


class Hands:
    """For each thread what it took last; it is through with that when it asks for more.

    A thread that has ended without asking again keeps its hand: nobody has said that it was through.
    Of all that have ended only the lowest places are kept, so that short threads cost nothing.

    Args:
        lock: held while a record is taken, so that none is taken and in nobody's hand.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._held: dict[threading.Thread, Record[Any, Any] | Places] = {}
        self._left: dict[TopicPartition, int] = {}
        self._told = False

    def hold(self, thread: threading.Thread, taken: Record[Any, Any] | Places) -> None:
        """Note what a thread takes, with the lock held; it is through with what it had before."""
        if thread not in self._held:
            # Another thread begins: only then can there be more of them than there were.
            self._bury()
        self._held[thread] = taken

    def asked(self, thread: threading.Thread) -> None:
        """Note that a thread asks for more."""
        with self._lock:
            self._held.pop(thread, None)

    def put_back(self, thread: threading.Thread, taken: Record[Any, Any] | Places | None) -> None:
        """Note that a thread was interrupted before it had what it was to hold."""
        with self._lock:
            if self._held.get(thread) is taken:
                self._held.pop(thread, None)

    def committed(
        self, thread: threading.Thread, offsets: Mapping[TopicPartition, int | CommittedOffset]
    ) -> None:
        """Note what a thread has committed by name, of partitions that it has something of in hand.

        It is through with what lies before that, and with no more. A thread that only commits has
        nothing in hand, and never asks: it must not hold back what others finish.
        """
        with self._lock:
            held = self._held.get(thread, {})
            places = first_places([held]) if isinstance(held, Record) else dict(held)
            for partition in places.keys() & offsets.keys():
                at = offsets[partition]
                places[partition] = at.offset if isinstance(at, CommittedOffset) else at
            if places:
                self._held[thread] = places

    def finish(self) -> None:
        """Note that all threads are through with everything."""
        with self._lock:
            self._held.clear()
            self._left.clear()

    def places(self) -> dict[TopicPartition, int]:
        """Return the first offset in any hand, by partition."""
        with self._lock:
            self._bury()
            held, places = tuple(self._held.values()), dict(self._left)
        for taken in held:
            _lower(places, taken)
        self._tell()
        return places

    def _bury(self) -> None:
        """Put what threads have left that ended into one hand, with the lock held."""
        for thread in [thread for thread in self._held if not thread.is_alive()]:
            _lower(self._left, self._held.pop(thread))

    def _tell(self) -> None:
        """Say once that commits are held back, and by what: nobody else would ever find out."""
        if self._left and not self._told:
            self._told = True
            places = ", ".join(f"{place} from offset {at}" for place, at in self._left.items())
            _log.warning(
                "a thread has ended and never asked for more: what it had is not committed as finished, "
                "nor is what follows (%s); let each thread ask again, or commit, before it ends",
                places,
            )


def _lower(places: dict[TopicPartition, int], taken: Record[Any, Any] | Places) -> None:
    theirs = first_places([taken]) if isinstance(taken, Record) else taken
    for partition, offset in theirs.items():
        places[partition] = min(offset, places.get(partition, offset))


def first_places(records: Iterable[Record[Any, Any]]) -> dict[TopicPartition, int]:
    """Return where each partition's records begin; they come in order."""
    places: dict[TopicPartition, int] = {}
    for record in records:
        places.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    return places
