"""Hands runs of records to the library as they come, one `send_many` for each partition asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from riverrun import Producer, RiverrunError, SendSummary
from riverrun.cli.inputs import Run, Sendable

RUNS_AHEAD = 2


@dataclass(slots=True)
class Totals:
    """What has been acknowledged.

    Attributes:
        records: how many.
        bytes: encoded and compressed.
        batches: how many.
        offsets: per partition the first offset and the one behind the last.
    """

    records: int = 0
    bytes: int = 0
    batches: int = 0
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, summary: SendSummary) -> None:
        """Add what one call has written."""
        self.records += summary.records
        self.bytes += summary.bytes
        self.batches += summary.batches
        for partition, (first, behind) in summary.offsets.items():
            known = self.offsets.get(partition, (first, behind))
            self.offsets[partition] = (min(known[0], first), max(known[1], behind))


class Feed:
    """An async iterable of records that are put in by the run, a few runs ahead.

    One call reads it from beginning to end: its batches fill across the runs, and it waits for
    acknowledgements only at the end. A call for each run would either wait for each or risk that
    they overtake each other.
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
        """End the iteration behind what was put."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Sendable]:
        """Give each record once."""
        while True:
            while not self._runs:
                if self._closed:
                    return
                await self._change()
            for record in self._runs.popleft():
                yield record
            self._changed.set()

    async def _change(self) -> None:
        """Wait until something was put, taken or closed."""
        self._changed.clear()
        await self._changed.wait()


class Sender:
    """Sends runs; order is kept within each partition that runs name, and among those of none.

    Attributes:
        totals: what has been acknowledged by calls that have ended.
        error: why the first call that failed did.
    """

    def __init__(self, producer: Producer, topic: str, failed: Callable[[], None]) -> None:
        """Make a sender; `failed` is called once, at the first failure."""
        self.totals = Totals()
        self.error: RiverrunError | None = None
        self._producer = producer
        self._topic = topic
        self._failed = failed
        self._feeds: dict[int | None, Feed] = {}
        self._calls: list[asyncio.Task[None]] = []

    async def send(self, run: Run) -> None:
        """Send one run; returns when there is room for more. Does nothing after a failure."""
        if self.error is not None:
            return
        feed = self._feeds.get(run.partition)
        if feed is None:
            feed = self._feeds[run.partition] = Feed()
            call = self._call(feed, run.partition)
            self._calls.append(asyncio.create_task(call, name="riverrun-send"))
        await feed.put(run.records)

    async def finish(self) -> None:
        """Wait until all that was sent is acknowledged or has failed."""
        for feed in self._feeds.values():
            feed.close()
        if self._calls:
            await asyncio.wait(self._calls)

    async def cancel(self) -> None:
        """Give up what is under way."""
        for call in self._calls:
            call.cancel()
        await self.finish()

    async def _call(self, feed: Feed, partition: int | None) -> None:
        """Make one call and count what it wrote."""
        try:
            self.totals.add(await self._producer.send_many(self._topic, feed, partition=partition))
        except RiverrunError as error:
            self.totals.records += error.acknowledged_records or 0
            if self.error is None:
                self.error = error
                self._failed()
        finally:
            feed.close()
