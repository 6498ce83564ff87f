"""One partition at a broker that may not lead it: served here, or by the leader through this gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Held, Led
from riverrun_server.ports.partitions import (
    Append,
    Cursor,
    Flow,
    NoFlow,
    PartitionAccess,
    Watermarks,
)
from riverrun_server.runtime.gateway.direct import DirectPartition
from riverrun_server.runtime.gateway.remote_cursor import RemoteCursor
from riverrun_server.runtime.gateway.routed_appends import RoutedAppends, Target
from riverrun_server.runtime.gateway.routed_cursor import RoutedCursor
from riverrun_server.runtime.gateway.services import AWAY, MOVED, GatewayServices, again
from riverrun_server.runtime.shared_answers import SharedAnswers

# After this, what a leader refused because it does not lead yet is asked again; then twice, and so on.
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 1.0

T = TypeVar("T")


class RoutedPartition:
    """Implements ports.partitions.PartitionAccess for as long as its topic lives.

    Transitions: led here <-> led elsewhere <-> led by nobody that is known, as `route` says and as the
    leaders say that are asked; any -> closed. Each change to a newer leader epoch answers, before all
    else, what the old leader has not answered.

    Args:
        topic: the topic's name.
        partition: the partition for good.
        max_batch_bytes: the largest batch that the topic allows.
        services: what all partitions share.
    """

    def __init__(
        self, topic: str, partition: PartitionId, max_batch_bytes: int, services: GatewayServices
    ) -> None:
        self.topic = topic
        self.id = partition
        self.max_batch_bytes = max_batch_bytes
        self.local: Held | None = None
        self.leader: LeaderHint | None = None
        self._services = services
        self._appends = RoutedAppends(partition, services, self._refusal, self._heed)
        self._cursors: set[RoutedCursor] = set()
        self._parked: set[RoutedCursor] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_S
        self._waiters: set[asyncio.Future[None]] = set()
        self._direct = DirectPartition(self)
        self._watermarks = SharedAnswers(self._ask_for_watermarks)
        self._closed: Refusal | None = None

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.topic}-{self.id.partition}"

    # Who leads.

    @property
    def leader_epoch(self) -> int:
        """The newest that is known; -1 before the first `route`."""
        return self._appends.leader_epoch

    @property
    def led_here(self) -> bool:
        """Whether this broker leads it, as far as is known here."""
        return self._led_by is not None

    @property
    def not_led_here(self) -> Refusal | None:
        """NOT_LEADER with who leads it; None where this broker does."""
        if self._closed is not None or self.led_here:
            return None
        me, leader = self._services.broker_id, self.leader
        if leader is None or leader.broker_id == me:
            return self._refusal()
        return Refusal(
            Reason.NOT_LEADER,
            f"{self} is led by broker {leader.broker_id} in leader epoch {leader.leader_epoch}, and "
            f"do_not_proxy keeps broker {me} from passing the request on; send it to that broker",
            leader=leader,
        )

    def hold(self, local: Held | None) -> None:
        """Learn which replica this broker has; None is none."""
        if local is self.local or self._closed is not None:
            return
        if self.local is not None:
            self.local.unwait(self.reachable_changed)
        self.local = local
        self._follow(self.leader_epoch)
        self._moved()

    def route(self, leader_epoch: int, leader: int | None) -> None:
        """Learn who leads; news of an older leader epoch than the known one is none.

        Args:
            leader_epoch: of the newest leadership in the metadata.
            leader: who leads in it, this broker perhaps; None where that process is gone.
        """
        if leader_epoch < self.leader_epoch or self._closed is not None:
            return
        hint = None if leader is None else self._services.hint(leader, leader_epoch)
        if leader_epoch == self.leader_epoch and hint == self.leader:
            return
        same = self.leader is not None and self.leader.broker_id == leader
        moved = leader_epoch > self.leader_epoch or not same
        self.leader = hint
        self._follow(leader_epoch)
        if moved:
            self._moved()

    def reachable_changed(self) -> None:
        """Learn that the stream to the leader has been opened, or has ended, or that the replica leads."""
        if self._closed is None:
            self._follow(self.leader_epoch)
            self._wake_waiters()

    def close(self, why: Refusal) -> None:
        """Answer everyone with a reason; serve nothing any more."""
        self._closed = why
        self._appends.close()
        if self._retry is not None:
            self._retry.cancel()
        if self.local is not None:
            self.local.unwait(self.reachable_changed)
        self.leader = self.local = None
        self._moved()

    @property
    def _led_by(self) -> Held | None:
        """The replica here, where it is the leader's."""
        leader = self.leader
        return self.local if leader and leader.broker_id == self._services.broker_id else None

    def _follow(self, leader_epoch: int) -> None:
        leader, local, target = self.leader, self._led_by, None
        if leader is not None and local is not None:
            # One that has been elected may not have begun yet.
            if local.offline is not None and local.offline.reason in MOVED:
                local.wait(self.reachable_changed)
            else:
                target = Target(leader, local)
        elif leader is not None and self._services.leaders.takes_appends(leader.broker_id):
            target = Target(leader)
        self._appends.follow(leader_epoch, target)
        if self._appends.waits:
            self._connect()

    def _connect(self) -> None:
        """Have the stream to the leader opened, for there are appends that wait for it."""
        if self.leader is not None:
            self._services.leaders.connect(self.leader.broker_id)

    def _heed(self, hint: LeaderHint | None) -> None:
        """Follow what a leader says of a newer one, before the metadata say it."""
        if hint is not None and hint.leader_epoch > self.leader_epoch:
            self.route(hint.leader_epoch, hint.broker_id)

    def _moved(self) -> None:
        self._retry_s = RETRY_S
        self._wake_waiters()
        self._parked.clear()
        for cursor in list(self._cursors):
            cursor.resumed()

    def _refusal(self) -> Refusal:
        """Return why it cannot be used now."""
        if self._closed is not None:
            return again(self._closed)
        known = "no leader is known"
        if self.leader is not None:
            known = (
                f"broker {self.leader.broker_id} leads it in leader epoch {self.leader_epoch} and cannot "
                "be reached"
            )
        return Refusal(
            Reason.LEADER_NOT_AVAILABLE,
            f"{self} cannot be used just now: {known}, as far as broker {self._services.broker_id} "
            "knows; nothing happened, ask again after a moment",
        )

    # ports.partitions.PartitionAccess

    @property
    def flow(self) -> Flow:
        """What has passed through this broker's replica."""
        return NoFlow() if self.local is None else self.local.flow

    def direct(self) -> PartitionAccess:
        """Return the partition for a client that reaches the leader itself."""
        return self._direct

    def submit(self, append: Append) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        if self._closed is not None:
            append.refuse(again(self._closed))
        elif self._appends.submit(append):
            self._connect()

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets; those who want them from elsewhere at once ask once.

        Raises:
            Refusal: of the leader, or LEADER_NOT_AVAILABLE.
        """
        if self._led_by is not None:
            return await self._ask_for_watermarks()
        try:
            # A question that is under way may wait for a leader as long as this one may.
            async with asyncio.timeout(self._services.wait_s + RETRY_MAX_S):
                return await self._watermarks.answer()
        except TimeoutError:
            raise self._refusal() from None

    async def _ask_for_watermarks(self) -> Watermarks:
        leaders, origin = self._services.leaders, self._services.origin()
        return await self._ask(
            lambda local: local.watermarks(),
            lambda broker, led: leaders.watermarks(broker, led, origin),
        )

    async def offset_at_time(self, time_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None.

        Raises:
            Refusal: as `watermarks`.
        """
        leaders, origin = self._services.leaders, self._services.origin()
        return await self._ask(
            lambda local: local.offset_at_time(time_ms),
            lambda broker, led: leaders.offset_at_time(broker, led, time_ms, origin),
        )

    async def trim(self, before_offset: int) -> int:
        """Delete the records before an offset (-1: all that is committed); return the log start.

        Raises:
            Refusal: of the leader; REQUEST_TIMED_OUT where nobody knows what became of it.
        """
        leaders, origin = self._services.leaders, self._services.origin()
        return await self._ask(
            lambda local: local.trim(before_offset),
            lambda broker, led: leaders.trim(broker, led, before_offset, origin),
        )

    def cursor(self, offset: int, wake: Callable[[], None]) -> RoutedCursor:
        """Begin to read at an offset."""
        cursor = RoutedCursor(self, offset, wake)
        self._cursors.add(cursor)
        return cursor

    # Asking.

    async def _ask(
        self,
        here: Callable[[Held], Awaitable[T]],
        there: Callable[[int, Led], Awaitable[T]],
    ) -> T:
        """Ask the leader, whoever that is; again where the one asked does not lead.

        Raises:
            Refusal
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._services.wait_s
        while True:
            leader, local = self.leader, self._led_by
            try:
                if local is not None:
                    return await here(local)
                if leader is None or leader.broker_id == self._services.broker_id:
                    raise self._refusal()
                return await there(leader.broker_id, Led(self.id, leader.leader_epoch))
            except Refusal as refusal:
                retried = MOVED if local is not None else AWAY
                if self._closed is not None or refusal.reason not in retried:
                    raise
                if clock() >= deadline:
                    raise self._services.for_clients(refusal, remote=local is None) from refusal
                self._heed(refusal.leader)
            if self.leader is leader:
                await self.news(min(RETRY_S, deadline - clock()))

    async def news(self, timeout_s: float) -> None:
        """Wait until the leadership moves, or the time is up."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=max(0.0, timeout_s))
        finally:
            self._waiters.discard(waiter)

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Reading: what RoutedCursor asks for.

    def read_local(self, offset: int, wake: Callable[[], None]) -> Cursor | None:
        """Return a cursor of this broker's replica, where it leads.

        Raises:
            Refusal: the partition is closed.
        """
        if self._closed is not None:
            raise again(self._closed)
        local = self._led_by
        return None if local is None else local.cursor(offset, wake)

    def read_remote(
        self, offset: int, last_epoch: int | None, wake: Callable[[], None]
    ) -> RemoteCursor | None:
        """Return a cursor at the leader, where one is known."""
        leader, services = self.leader, self._services
        if leader is None or leader.broker_id == services.broker_id:
            return None
        led, origin = Led(self.id, leader.leader_epoch), services.origin()
        read = partial(services.leaders.read, leader.broker_id, led, offset, last_epoch, origin)
        try:
            return RemoteCursor(offset, read, services.room, wake)
        except Refusal:
            return None

    def park(self, cursor: RoutedCursor, why: Refusal | None) -> None:
        """Have a cursor `resumed` when there may be a leader to read from."""
        self._parked.add(cursor)
        if self._retry is None and self.leader is not None:
            self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._resume)
            self._retry_s = min(RETRY_MAX_S, 2 * self._retry_s)
        if why is not None and why.leader is not None:
            asyncio.get_running_loop().call_soon(self._heed, why.leader)

    def arrived(self) -> None:
        """Learn that a cursor has been given something: the next trouble is another one."""
        self._retry_s = RETRY_S

    def forget(self, cursor: RoutedCursor) -> None:
        """Tell a cursor nothing any more."""
        self._cursors.discard(cursor)
        self._parked.discard(cursor)

    def _resume(self) -> None:
        self._retry = None
        parked, self._parked = self._parked, set()
        for cursor in parked:
            cursor.resumed()
