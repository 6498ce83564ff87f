"""Hands runs of records to the library as they come, in order for each partition asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from riverrun import Producer, RiverrunError, SendSummary
from riverrun.cli.inputs import Run, Sendable

RUNS_AHEAD = 4
"""A run is what one read of standard input holds, up to 1 MiB."""


@dataclass(slots=True)
class Totals:
    """What has been acknowledged.

    Attributes:
        records: how many.
        bytes: encoded and compressed.
        batches: how many.
        offsets: per partition the first offset and the one behind the last.
        first: how many are acknowledged from the first on, without a gap, of what failed; None where
            nobody can say.
    """

    records: int = 0
    bytes: int = 0
    batches: int = 0
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    first: int | None = None

    def add(self, summary: SendSummary) -> None:
        """Add what one call has written."""
        self.records += summary.records
        self.bytes += summary.bytes
        self.batches += summary.batches
        for partition, (first, behind) in summary.offsets.items():
            known = self.offsets.get(partition, (first, behind))
            self.offsets[partition] = (min(known[0], first), max(known[1], behind))


class Lane:
    """Runs on their way to one place, in order: one `send_many` after the other.

    A call takes the runs that are there, and those that come while it encodes them, without asking
    the loop for each record. It ends where the input pauses, and the next one begins when its
    records are acknowledged: meanwhile runs gather, so the calls grow with the speed of the input.
    Calls side by side would not do, for they may overtake each other.
    """

    def __init__(self) -> None:
        self._runs: deque[Sequence[Sendable]] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, records: Sequence[Sendable]) -> None:
        """Add a run, waiting for room; dropped once closed."""
        while len(self._runs) >= RUNS_AHEAD and not self._closed:
            await self._change()
        if not self._closed:
            self._runs.append(records)
            self._changed.set()

    def close(self) -> None:
        """End behind what was put."""
        self._closed = True
        self._changed.set()

    async def send(
        self, call: Callable[[Iterator[Sendable]], Awaitable[SendSummary]], totals: Totals
    ) -> None:
        """Send until closed, and count what is acknowledged.

        Raises:
            RiverrunError: a record was not written.
        """
        while True:
            while not self._runs:
                if self._closed:
                    return
                await self._change()
            try:
                totals.add(await call(chain.from_iterable(self._take())))
            except RiverrunError as error:
                known = error.acknowledged_first
                totals.first = None if known is None else totals.records + known
                totals.records += error.acknowledged_records
                raise

    def _take(self) -> Iterator[Sequence[Sendable]]:
        """Take runs as long as there are any."""
        while self._runs:
            run = self._runs.popleft()
            self._changed.set()
            yield run

    async def _change(self) -> None:
        """Wait until something was put, taken or closed."""
        self._changed.clear()
        await self._changed.wait()


class Sender:
    """Sends runs; order is kept within each partition that runs name, and among those of none.

    Attributes:
        totals: what has been acknowledged by calls that have ended.
        error: why the first call that failed did, or the first of which nobody knows what it wrote.
        given: how many records it was given.
    """

    def __init__(self, producer: Producer, topic: str, failed: Callable[[], None]) -> None:
        """Make a sender; `failed` is called once, at the first failure."""
        self.totals = Totals()
        self.error: RiverrunError | None = None
        self.given = 0
        self._producer = producer
        self._topic = topic
        self._failed = failed
        self._has_failed = False
        self._lanes: dict[int | None, Lane] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def acknowledged_first(self) -> int | None:
        """How many records are acknowledged from the first on, after a failure, as far as is known."""
        return self.totals.first if len(self._lanes) == 1 else None

    async def send(self, run: Run) -> None:
        """Send one run; returns when there is room for more. Does nothing after a failure."""
        if self._has_failed:
            return
        self.given += len(run.records)
        lane = self._lanes.get(run.partition)
        if lane is None:
            lane = self._lanes[run.partition] = Lane()
            sending = asyncio.create_task(self._send(lane, run.partition), name="riverrun-send")
            self._tasks.append(sending)
        await lane.put(run.records)

    async def finish(self) -> None:
        """Wait until all that was sent is acknowledged or has failed.

        Raises:
            Exception: a task failed of something that is no error of the library, so that nobody
                takes what it had for written.
        """
        await self._settle()
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def cancel(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await self._settle()

    async def _settle(self) -> None:
        """Let all tasks end."""
        for lane in self._lanes.values():
            lane.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self, lane: Lane, partition: int | None) -> None:
        """Send what comes on a lane; the first failure ends them all."""
        call = partial(self._producer.send_many, self._topic, partition=partition)
        try:
            await lane.send(call, self.totals)
        except RiverrunError as error:
            if self.error is None or (self.error.outcome_known and not error.outcome_known):
                self.error = error
            self._fail_once()
        except Exception:
            self._fail_once()
            raise
        finally:
            lane.close()

    def _fail_once(self) -> None:
        """Say that there is no use in reading on."""
        if not self._has_failed:
            self._has_failed = True
            self._failed()
