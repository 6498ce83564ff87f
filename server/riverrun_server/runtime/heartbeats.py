"""A stream's signs of life: when they fall due, and what they tell of each partition."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import Heartbeat
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.partitions import PartitionAccess

# The first heartbeat comes somewhere between this share of the interval and all of it.
_FIRST_BEAT_SHARE = 0.5


class Heartbeats:
    """The heartbeats of one stream.

    Transitions: waiting -> due, after the interval or `confirmed` -> waiting (`next`) ... -> closed.

    Args:
        dice: when the first one does.
        machine: the stream's subscription.
        accesses: the partitions that it reads.
        wake: called when one is due.

    Attributes:
        is_due: whether one is to be sent.
    """

    def __init__(
        self,
        dice: Dice,
        machine: Subscription,
        accesses: Mapping[PartitionId, PartitionAccess],
        wake: Callable[[], None],
    ) -> None:
        self.is_due = False
        self._interval_s = math.inf
        self._dice = dice
        self._machine = machine
        self._accesses = accesses
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._heartbeat_id = 0

    def begin(self, interval_s: float) -> None:
        """Begin to count the time; one falls due so often."""
        self._interval_s = interval_s
        # Streams that were opened at once, as after a restart, would keep the loop busy at once for ever.
        interval_s = self._interval_s
        self._count(self._dice.uniform(_FIRST_BEAT_SHARE * interval_s, interval_s))

    def confirmed(self, heartbeat_id: int) -> None:
        """Tell a member soon of which of its heartbeats its coordinator knows."""
        if heartbeat_id > self._heartbeat_id:
            self._heartbeat_id = heartbeat_id
            self._fall_due()

    async def next(self) -> Heartbeat:
        """Return the one that is due."""
        self.is_due = False
        self._count(self._interval_s)
        elsewhere = []
        for access in [*self._accesses.values()]:
            if access.led_here:
                await self._observe(access)
            else:
                elsewhere.append(access)
        if elsewhere and (self._asking is None or self._asking.done()):
            # Nobody here waits for another broker; what it says is told in the next heartbeat.
            self._asking = asyncio.create_task(self._observe_all(elsewhere), name="stream: lag")
        return replace(self._machine.heartbeat(), heartbeat_id=self._heartbeat_id)

    async def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _count(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fall_due)

    def _fall_due(self) -> None:
        self.is_due = True
        self._wake()

    async def _observe_all(self, accesses: Sequence[PartitionAccess]) -> None:
        await asyncio.gather(*map(self._observe, accesses))

    async def _observe(self, access: PartitionAccess) -> None:
        try:
            marks = await access.watermarks()
        except Refusal:
            return  # the last known ones stand; why it cannot be read, its cursor will say
        self._machine.observed(access.id, marks.high_watermark, marks.log_start_offset)
