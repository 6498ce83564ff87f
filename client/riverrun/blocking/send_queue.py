"""Single records of any thread on their way to the loop, in the order in which they were given."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol, cast

from riverrun._core.records import RecordMetadata
from riverrun._net.delivery_reports import OnDelivery, Report, report, report_soon
from riverrun.blocking.loop_thread import LoopThread
from riverrun.errors import BufferFullError, ClosedError, FatalError, Reason, RiverrunError

_log = logging.getLogger("riverrun")

Take = Callable[[], asyncio.Future[RecordMetadata]]
"""Gives one record to the async producer; raises BufferFullError where it has no room."""

# While records keep coming, they are looked for so often, which is cheaper than being told of each.
_LOOK_EVERY_S = 0.001
# After so many, others on the loop get their turn.
_TURN_RECORDS = 512


class Room(Protocol):
    """The producer's buffer, and for how long a call waits for room there; asked on the loop."""

    delivery_timeout_s: float

    async def room(self, size_bytes: int) -> None:
        """Wait until so much has room."""

    def no_room(self, size_bytes: int) -> RiverrunError:
        """Make the error for what has waited in vain."""
        ...


class Acknowledgement(Future[RecordMetadata]):
    """Where a record went, as a future. It cannot be cancelled: the record is on its way.

    One that fails and is never asked is logged when it is let go, as asyncio does it.

    Args:
        told: somebody else is told of a failure, so that it need not be logged.
    """

    def __init__(self, *, told: bool = False) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._asked = told
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait for the acknowledgement, `timeout` seconds at the most.

        Raises:
            FatalError: this process was forked from the one that sent the record.
        """
        self._check_process()
        self._asked = True
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome, `timeout` seconds at the most, and return the error, if any.

        Raises:
            FatalError: this process was forked from the one that sent the record.
        """
        self._check_process()
        self._asked = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[RecordMetadata]], object]) -> None:
        """Call `fn` with this future when it is done: on the client's thread, so it must not block."""
        self._asked = True
        super().add_done_callback(fn)

    def _check_process(self) -> None:
        """In a forked child, tell what was known when it was forked, and wait for no more."""
        if self._pid == os.getpid():
            return
        # The lock may be held by a thread that is not here.
        self._condition = threading.Condition()
        if not self.done():
            raise FatalError(
                f"the record was sent by process {self._pid}, from which this one, {os.getpid()}, was "
                "forked; only that one hears what becomes of it: ask the future there",
                reason=Reason.FORKED,
                outcome_known=False,
            )

    def __del__(self) -> None:
        """Tell of a failure that nobody has asked for."""
        if not self._asked and self._pid == os.getpid() and self.done():
            error = super().exception()
            if error is not None:
                _log.error("a record was not written, and nobody asked: %s", error)


class _Entry(NamedTuple):
    take: Take
    size_bytes: int
    acknowledgement: Acknowledgement
    on_delivery: OnDelivery | None
    deadline_s: float | None = None

    def is_late(self, now_s: float) -> bool:
        """Whether somebody has waited for it for too long."""
        return self.deadline_s is not None and self.deadline_s <= now_s


class SendQueue:
    """Hands records to a producer many at a time, so that a record does not cost a change of threads.

    What waits for room in the producer's buffer holds up what was given behind it. A call that is
    awaited gives up after the delivery timeout; the others were told that there is room.

    Args:
        thread: where the producer lives.
        room: the producer's buffer.
        buffer_bytes: how much the producer may hold.
    """

    def __init__(self, thread: LoopThread, room: Room, buffer_bytes: int) -> None:
        self._thread = thread
        self._room = room
        self._buffer_bytes = buffer_bytes
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._scheduled = self._closed = False
        self._looking: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._awaited_count = 0
        self._given_count = self._taken_count = 0
        self._given_bytes = self._settled_bytes = 0
        self.failed = False

    def has_room(self, size_bytes: int) -> bool:
        """Whether the buffer takes so much more, for certain; any thread may ask."""
        outstanding_bytes = self._given_bytes - self._settled_bytes
        return not self.failed and outstanding_bytes + size_bytes <= self._buffer_bytes

    def put(
        self,
        take: Take,
        size_bytes: int,
        *,
        on_delivery: OnDelivery | None = None,
        awaited: bool = False,
    ) -> Acknowledgement:
        """Take a record from any thread; one that is awaited is not left for the next look.

        Args:
            take: gives it to the producer, which then tells `on_delivery` by itself.
            size_bytes: what it takes of the buffer at least.
            on_delivery: is told here of a record that never gets so far.
            awaited: somebody waits for the acknowledgement.

        Raises:
            ClosedError: the client was closed.
        """
        acknowledgement = Acknowledgement(told=on_delivery is not None)
        deadline_s = time.monotonic() + self._room.delivery_timeout_s if awaited else None
        entry = _Entry(take, size_bytes, acknowledgement, on_delivery, deadline_s)
        with self._lock:
            is_closed, is_known = self._closed, self._scheduled and not awaited
            if not is_closed:
                self._entries.append(entry)
                self._awaited_count += awaited
                self._given_count += 1
                self._given_bytes += size_bytes
                self._scheduled = True
        if is_closed:
            error = _closed()
            self._thread.park_at_exit(error)
            raise error
        if not is_known:
            self._tell(entry)
        return acknowledgement

    def _tell(self, entry: _Entry) -> None:
        try:
            self._thread.post(self._begin)
        except ClosedError:
            with self._lock, suppress(ValueError):
                # Raised here, it need not be told or logged as well.
                self._entries.remove(entry)
            self.close()
            raise

    # On the loop.

    def put_now(
        self, take: Take, size_bytes: int, on_delivery: OnDelivery | None = None
    ) -> Acknowledgement:
        """Give a record to the producer before returning.

        Raises:
            BufferFullError: there is no room, or others wait for it already.
        """
        # The caller's own are among what was given before; what others give meanwhile may come later.
        target = self._given_count
        while self._entries and self._taken_count < target and self._waiting is None:
            self._move()
        if self._waiting is not None:
            raise BufferFullError(
                "the producer's buffer has no room, and records of other threads wait for it; "
                "drain() and call again",
                reason=Reason.BUFFER_FULL,
            )
        future = take()
        with self._lock:
            self._given_bytes += size_bytes
        self.failed = False
        acknowledgement = Acknowledgement(told=on_delivery is not None)
        entry = _Entry(take, size_bytes, acknowledgement, on_delivery)
        future.add_done_callback(partial(self._settle, entry))
        return acknowledgement

    async def taken(self) -> None:
        """Wait until the producer has been given all that was put so far."""
        target = self._given_count
        while self._taken_count < target and self._entries:
            if self._waiting is not None:
                await asyncio.wait({self._waiting})
            else:
                self._move()

    def close(self) -> None:
        """Fail what the producer was not given, and take no more."""
        with self._lock:
            self._closed = True
        reports: list[Report] = []
        while self._entries:
            entry = self._entries.popleft()
            error = _closed()
            entry.acknowledgement.set_exception(error)
            if entry.on_delivery is not None:
                reports.append((entry.on_delivery, error, None))
        if self._thread.is_current:
            # Behind what the producer has to tell.
            report_soon(reports)
        else:
            report(reports)

    def _begin(self) -> None:
        self._move()
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._looking = None
        with self._lock:
            self._scheduled = bool(self._entries)
        if self._entries:
            self._begin()

    def _move(self) -> None:
        """Give the producer what it has room for; a task waits for more."""
        if self._waiting is not None:
            self._arm()
            return
        entries, count = self._entries, 0
        while entries:
            entry = entries[0]
            try:
                future = entry.take()
            except BufferFullError:
                loop = asyncio.get_running_loop()
                self._waiting = loop.create_task(self._wait(entry), name="riverrun room")
                self._arm()
                return
            except Exception as error:  # noqa: BLE001 - it is raised where the future is asked
                entries.popleft()
                self._left([entry])
                self._settled_bytes += entry.size_bytes
                self.failed = True
                entry.acknowledgement.set_exception(error)
                if entry.on_delivery is not None:
                    report_soon([(entry.on_delivery, cast("RiverrunError", error), None)])
            else:
                entries.popleft()
                self._left([entry])
                future.add_done_callback(partial(self._settle, entry))
            count += 1
            if count == _TURN_RECORDS:
                asyncio.get_running_loop().call_soon(self._move)
                return

    async def _wait(self, entry: _Entry) -> None:
        try:
            await self._room.room(entry.size_bytes)
        except Exception:  # noqa: BLE001
            # Whatever is wrong, giving the next record tells it.
            _log.debug("no room", exc_info=True)
        finally:
            if self._waiting is asyncio.current_task():
                self._waiting = None
        self._move()

    def _left(self, entries: list[_Entry]) -> None:
        """Count what the queue does not hold any more."""
        self._taken_count += len(entries)
        awaited = sum(entry.deadline_s is not None for entry in entries)
        if awaited:
            with self._lock:
                self._awaited_count -= awaited

    def _arm(self) -> None:
        """See to it that the calls that are awaited do not wait for room for ever."""
        if self._expiry is None and self._awaited_count:
            with self._lock:
                awaited = (entry.deadline_s for entry in self._entries)
                first_s = next((at for at in awaited if at is not None), None)
            if first_s is not None:
                # The loop's clock is the monotonic one.
                self._expiry = asyncio.get_running_loop().call_at(first_s, self._expire)

    def _expire(self) -> None:
        """Fail the calls that have waited for too long, and let those behind them on."""
        self._expiry = None
        now_s = asyncio.get_running_loop().time()
        with self._lock:
            entries = [*self._entries]
            late = [entry for entry in entries if entry.is_late(now_s)]
            if late:
                self._entries.clear()
                self._entries.extend(entry for entry in entries if not entry.is_late(now_s))
        self._left(late)
        for entry in late:
            self._settled_bytes += entry.size_bytes
            entry.acknowledgement.set_exception(self._room.no_room(entry.size_bytes))
        if self._waiting is not None and late and late[0] is entries[0]:
            # It waits for the room of a record that is gone.
            self._waiting.cancel()
            self._waiting = None
        self._move()

    def _settle(self, entry: _Entry, future: asyncio.Future[RecordMetadata]) -> None:
        self._settled_bytes += entry.size_bytes
        if future.cancelled():
            entry.acknowledgement.set_exception(
                ClosedError("the client was closed meanwhile", reason=Reason.CLOSED)
            )
        elif (error := future.exception()) is not None:
            entry.acknowledgement.set_exception(error)
        else:
            entry.acknowledgement.set_result(future.result())


def _closed() -> ClosedError:
    return ClosedError("the producer was closed; nothing was sent", reason=Reason.CLOSED)
