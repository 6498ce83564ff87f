"""Records that are worked on side by side: those of a key one after the other, and how far each partition has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any

from riverrun._core.records import Record, TopicPartition


class InProgress:
    """Records between being given to an application and being finished with.

    Transitions of a record: waiting (`add`, where another one of its lane is before it) -> ready -> running
    (`take`) -> finished (`finished`), or never, where working on it has failed. Records with a key are in the
    lane of their key in their partition, those without in the partition's.
    """

    def __init__(self) -> None:
        self._ready: deque[Record[Any, Any]] = deque()
        self._lanes: dict[Hashable, deque[Record[Any, Any]]] = {}
        # By partition, in the order of offsets, which is that in which they come.
        self._unfinished: dict[TopicPartition, dict[int, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many are not finished with."""
        return self._count

    def add(self, record: Record[Any, Any]) -> None:
        """Take in a record behind all that came before it."""
        self._count += 1
        self._unfinished.setdefault(record.topic_partition, {})[record.offset] = None
        lane = self._lanes.get(_lane_of(record))
        if lane is None:
            self._lanes[_lane_of(record)] = deque()
            self._ready.append(record)
        else:
            lane.append(record)

    def take(self) -> Record[Any, Any] | None:
        """Return a record to be worked on; None where there is none just now."""
        return self._ready.popleft() if self._ready else None

    def finished(self, record: Record[Any, Any]) -> None:
        """Note that a record is finished with: the next one of its lane is ready."""
        self._count -= 1
        unfinished = self._unfinished[record.topic_partition]
        del unfinished[record.offset]
        if not unfinished:
            del self._unfinished[record.topic_partition]
        lane = self._lanes[_lane_of(record)]
        if lane:
            self._ready.append(lane.popleft())
        else:
            del self._lanes[_lane_of(record)]

    def lowest(self) -> dict[TopicPartition, int]:
        """Return the first offset that is not finished with, of each partition that has one."""
        return {partition: next(iter(offsets)) for partition, offsets in self._unfinished.items()}


def first_of_each(
    one: Mapping[TopicPartition, int], other: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return the lower offset of each partition of two."""
    return {
        partition: min(places[partition] for places in (one, other) if partition in places)
        for partition in {**one, **other}
    }


def _lane_of(record: Record[Any, Any]) -> Hashable:
    key: object = record.key
    try:
        hash(key)
    except TypeError:
        # What a key was made into, a dict say, need not have a hash.
        key = repr(key)
    return record.topic_partition, key
