"""Records of small calls that arrive together become one batch of their partition.

A batch costs the broker the same for one record as for a hundred: a stamp, a write, two rows beside it, an
answer. So the records of calls that are read in the same turn of the event loop are joined, each
validated by itself before, and each call is told its own offsets. A call that comes alone waits for
nothing but the end of that turn; where the loop is the bottleneck, a group stays open for some
milliseconds (`core/pace.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Final
from weakref import WeakKeyDictionary

from riverrun_server.core.pace import Pace
from riverrun_server.ports.partitions import Acks, Append, Appended, PartitionAccess
from riverrun_server.rpc.errors import internal
from riverrun_server.wire.ingress import MAX_BATCH_RECORDS, PackedRecords, join

Done = Callable[[Appended], None]

# Larger batches save nothing more, and hold up the loop while they are written.
_GROUP_BYTES_MAX: Final = 256 << 10


class Gathering:
    """Joins what is to be appended to one partition under one ack condition.

    Args:
        now_ms: the broker's guarded clock.

    Transitions of a group: none -> open, with its first call; open -> appended, at the end of the
    loop's turn, or when it is time, or when there is company enough, or when the next call's
    records do not fit.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._open: dict[tuple[PartitionAccess, Acks], _Group] = {}
        # A partition that is let go takes its paces along.
        self._paces: WeakKeyDictionary[PartitionAccess, dict[Acks, Pace]] = WeakKeyDictionary()

    def add(self, access: PartitionAccess, packed: PackedRecords, acks: Acks, done: Done) -> Pace:
        """Append records soon; `done` is told of them alone, as by `PartitionAccess.submit`.

        Returns the pace that counts the call: tell it once the call has `left`.
        """
        key = access, acks
        group = self._open.get(key)
        if group is not None and not group.fits(packed):
            self._append(key, group)
            group = None
        if group is None:
            now_s = perf_counter()
            pace = self._pace(access, acks, now_s)
            wait_s = pace.wait_s(now_s)
            max_bytes = min(access.max_batch_bytes, _GROUP_BYTES_MAX)
            group = self._open[key] = _Group(max_bytes, pace, pace.aim if wait_s else 0)
            self._append_soon(key, group, wait_s)
        group.add(packed, done)
        group.pace.came()
        if len(group.packed) == group.aim:
            self._append_soon(key, group, 0.0)
        return group.pace

    def _append_soon(self, key: tuple[PartitionAccess, Acks], group: _Group, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        if wait_s:
            loop.call_later(wait_s, self._append, key, group)
        else:
            loop.call_soon(self._append, key, group)

    def _append(self, key: tuple[PartitionAccess, Acks], group: _Group) -> None:
        if self._open.get(key) is not group:
            return  # appended before, for it was full or had company enough
        del self._open[key]
        access, acks = key
        # The loop's own clock counts whole milliseconds only.
        now_s = perf_counter()
        group.pace.closed(now_s, thread_time())
        try:
            access.submit(Append(join(group.packed, self._now_ms()), acks, group.appended))
        except Exception as error:  # noqa: BLE001 - nobody else would answer these calls
            group.appended(Appended(None, 0, error=internal("Produce", error)))

    def _pace(self, access: PartitionAccess, acks: Acks, now_s: float) -> Pace:
        paces = self._paces.setdefault(access, {})
        return paces.get(acks) or paces.setdefault(acks, Pace(now_s, thread_time()))


class _Group:
    """The records of some calls, in order, and who is told of each call's.

    Args:
        max_bytes: of all records; the first ones may be larger.
        pace: of its partition and ack condition.
        aim: with so many calls it is complete; 0 where it waits for nobody.
    """

    __slots__ = ("_bytes_left", "_dones", "_records_left", "aim", "pace", "packed")

    def __init__(self, max_bytes: int, pace: Pace, aim: int) -> None:
        self._bytes_left = max_bytes
        self._records_left = MAX_BATCH_RECORDS
        self.pace = pace
        self.aim = aim
        self.packed: list[PackedRecords] = []
        self._dones: list[Done] = []

    def fits(self, packed: PackedRecords) -> bool:
        """Return whether there is room for these too."""
        return len(packed.data) <= self._bytes_left and packed.records <= self._records_left

    def add(self, packed: PackedRecords, done: Done) -> None:
        """Take the records of a call."""
        self._bytes_left -= len(packed.data)
        self._records_left -= packed.records
        self.packed.append(packed)
        self._dones.append(done)

    def appended(self, answer: Appended) -> None:
        """Tell each call of its part of the batch."""
        base = answer.base_offset
        for packed, done in zip(self.packed, self._dones, strict=True):
            done(
                Appended(
                    base,
                    packed.records,
                    answer.log_start_offset,
                    error=answer.error,
                    leader=answer.leader,
                )
            )
            if base is not None:
                base += packed.records
