"""Sends runs of records one after the other without waiting for the acknowledgements of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from riverrun import Producer, RiverrunError, SendSummary
from riverrun.cli.inputs import Run, Sendable

RUNS_IN_FLIGHT_MAX = 16


@dataclass(slots=True)
class Totals:
    """What has been acknowledged so far.

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


class Sender:
    """Hands runs of records to `Producer.send_many`, at most so many calls under way at once.

    A call begins when the one before has taken all its records, so that order is kept; it does not
    wait for the acknowledgement of what they wrote.

    Attributes:
        totals: what has been acknowledged.
        error: why the first call that failed did.
    """

    def __init__(self, producer: Producer, topic: str, failed: Callable[[], None]) -> None:
        """Make a sender; `failed` is called once, at the first failure."""
        self.totals = Totals()
        self.error: RiverrunError | None = None
        self._producer = producer
        self._topic = topic
        self._failed = failed
        self._calls: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(RUNS_IN_FLIGHT_MAX)

    async def send(self, run: Run) -> None:
        """Send one run; returns when all its records have been taken. Does nothing after a failure."""
        await self._places.acquire()
        if self.error is not None:
            self._places.release()
            return
        taken = asyncio.Event()
        call = asyncio.create_task(self._call(run, taken), name="riverrun-send")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        await taken.wait()

    async def finish(self) -> None:
        """Wait until every call has ended, well or not."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def cancel(self) -> None:
        """Give up what is under way."""
        for call in self._calls:
            call.cancel()
        await self.finish()

    async def _call(self, run: Run, taken: asyncio.Event) -> None:
        """Make one call and count what it wrote."""
        try:
            records = chain(run.records, _then(taken.set))
            self.totals.add(
                await self._producer.send_many(self._topic, records, partition=run.partition)
            )
        except RiverrunError as error:
            self.totals.records += getattr(error, "acknowledged_records", None) or 0
            if self.error is None:
                self.error = error
                self._failed()
        finally:
            taken.set()
            self._places.release()


def _then(act: Callable[[], None]) -> Iterator[Sendable]:
    """Iterate over nothing, but `act` when asked for the first."""
    act()
    nothing: Sequence[Sendable] = ()
    yield from nothing
