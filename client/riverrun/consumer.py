"""Read records: one at a time, some at a time, or batches as they were produced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeAlias

from riverrun._core.argument_checks import check_timeout, whole_number
from riverrun._core.batch_view import BatchView
from riverrun._core.deserializing import RecordDeserializer
from riverrun._core.handing_out import HandingOut
from riverrun._core.in_progress import first_of_each
from riverrun._core.put_back import Given
from riverrun._core.read_ahead import ReadAhead
from riverrun._core.reader_statistics import ConsumerStatistics
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import Record
from riverrun._core.type_parameters import K, V
from riverrun._net.cluster import Cluster
from riverrun._net.direct_loop import DirectLoop
from riverrun._net.group_commits import CommitSettings
from riverrun._net.member_loop import MemberLoop
from riverrun._net.member_settings import MemberSettings
from riverrun._net.processing import Processing
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine
from riverrun.consumer_commits import ConsumerCommits
from riverrun.errors import Reason, RiverrunError, UsageError
from riverrun.v1 import records_pb2

RecordBatchView: TypeAlias = BatchView[records_pb2.Record]
"""What `Consumer.batches` yields: topic, partition, offsets, next_offset, high_watermark, `len`,
`values()`, `keys()`, `timestamps_ms()`, `records` (protobuf messages), `to_records()`."""

_log = logging.getLogger("riverrun")

# After so many records that were there already, other tasks get their turn: a few milliseconds.
_TURN_RECORDS = 4096


class Consumer(ConsumerCommits, Generic[K, V]):
    """Reads records, from `Client.consumer()`; an async context manager and iterator.

    Within one partition records come in order, each once, also through broken connections. Between
    partitions there is no order. What has been returned, and no more, counts for `position` and for
    `commit`. An error of one partition is raised once; the others go on with the next call, and
    `seek` brings the failed one back. A partition that is offline is no error, for it may come back:
    it is asked for again, and one warning on the logger `riverrun` has what the broker says of it.

    One task at a time may iterate. It may leave the loop and come back: nothing is lost in between.
    A task that waits while another one closes the consumer gets a `ClosedError`.

    Example:
        async with client.consumer("orders", stop_at_end=True) as consumer:
            async for record in consumer:
                print(record.partition, record.offset, record.value)
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: SubscribeSettings,
        uniform: Callable[[], float],
        released: Callable[[Consumer[K, V]], None],
        *,
        commits: CommitSettings | None = None,
        member: MemberSettings | None = None,
        deserializer: RecordDeserializer[K, V] | None = None,
    ) -> None:
        commits = commits or CommitSettings()
        machine: Machine = ReaderMachine(
            settings.stop_at_end,
            settings.begin_at,
            settings.places,
            ahead=ReadAhead(gated=commits.mode == "at_most_once"),
        )
        if member is None:
            loop = SubscribeLoop(cluster, machine, settings, uniform)
        else:
            kind = DirectLoop if member.direct else MemberLoop
            loop = joining = kind(cluster, machine, settings, uniform, member)
        handing_out: HandingOut[records_pb2.RecordBatch, records_pb2.Record]
        handing_out = HandingOut(machine, _parse, deserializer)
        super().__init__(cluster.connections, settings, commits, machine, loop, handing_out)
        if member is not None:
            joining.finish, joining.forget = self._finish_with, self._forget
            self._commits.committer = lambda: joining.membership.committer
        self._released = released
        self._turn_left = _TURN_RECORDS
        self._let_go = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Record[K, V]]:
        """Iterate over records; it ends at the end only with `stop_at_end`."""
        return self

    async def __anext__(self) -> Record[K, V]:
        """Return the next record.

        Raises:
            StopAsyncIteration: the end was reached (`stop_at_end`).
            DeserializationError: the next record's key or value is not what it should be.
            RiverrunError: a partition, or the consumer, cannot go on.
        """
        while (record := self._handing_out.one()) is None:
            self._handing_out.asked()
            if self._handing_out.go_on():
                continue
            view = await self._next_view()
            if view is None:
                raise StopAsyncIteration
            self._handing_out.take_apart(view)
        return record

    async def batches(self) -> AsyncIterator[RecordBatchView]:
        """Iterate over batches as they were produced: the fast path.

        Keys and values are bytes here, whatever the deserializers. A batch is finished with when
        the next one is asked for.

        Raises:
            RiverrunError: a partition, or the consumer, cannot go on.

        Example:
            async with client.consumer("orders", stop_at_end=True) as consumer:
                async for batch in consumer.batches():
                    print(batch.partition, batch.next_offset, len(batch), batch.values()[:1])
        """
        while True:
            self._handing_out.asked()
            view = self._handing_out.rest() or await self._next_view()
            if view is None:
                return
            self._handing_out.given(view)
            yield view

    async def getmany(
        self, max_records: int = 500, timeout_s: float | None = None
    ) -> list[Record[K, V]]:
        """Return from one to `max_records` records; none where the time is up or the end came.

        It waits for the first only, and returns what is there then: not exactly so many, and fewer where
        the others would have to be waited for. A loop gathers a number.

        Args:
            max_records: the most to return.
            timeout_s: how long to wait for the first; None is for ever, 0 is not at all.

        Raises:
            UsageError: `max_records` is no number from 1, or `timeout_s` none from 0.
            DeserializationError: the next record's key or value is not what it should be.
            RiverrunError: a partition, or the consumer, cannot go on.

        Example:
            records = await consumer.getmany(100, timeout_s=1)
        """
        max_records = whole_number("max_records", max_records, 1)
        check_timeout(timeout_s)
        self._handing_out.asked()
        if not self._handing_out.go_on():
            view = await self._view_within(timeout_s)
            if view is None:
                return []
            self._handing_out.take_apart(view)
        # From here on nothing waits: whoever cancels this call must not lose what was handed out.
        records: list[Record[K, V]] = []
        while True:
            records += self._handing_out.some(max_records - len(records))
            if len(records) == max_records or not self._take_more_apart():
                return records

    async def process(
        self, handler: Callable[[Record[K, V]], Awaitable[object]], *, concurrency: int = 16
    ) -> None:
        """Work on records side by side, until the end (`stop_at_end`), a failure, or the task is cancelled.

        Records with the same key of a partition are worked on one after the other, in order; so are those of a
        partition that have no key. A record is finished with when the handler returns, and with
        `commit="auto"` each partition is committed up to the first record that is not. Before a partition
        goes to another member, the records of it that were begun or had are finished with.

        Args:
            handler: works on one record; another one waits where it is slow.
            concurrency: how many at a time.

        Raises:
            UsageError: `concurrency` is no number from 1, or `commit` is "at_most_once".
            RiverrunError: a partition, or the consumer, cannot go on.
            Exception: what the first handler that failed has raised, once the others under way have ended;
                its record, and what was not begun, is not finished with.

        Example:
            async def charge(record):
                print(record.key, record.value)

            async with client.consumer("orders", group="billing", commit="auto", stop_at_end=True) as consumer:
                await consumer.process(charge, concurrency=8)
        """
        whole_number("concurrency", concurrency, 1)
        if self._commit_mode == "at_most_once":
            raise UsageError(
                'process finishes with records, and commit="at_most_once" commits them before; use "auto"',
                reason=Reason.INVALID_REQUEST,
            )
        work = Processing(self.getmany, handler, concurrency, self._asked.set)
        before = self._handing_out.held
        self._handing_out.held = lambda: first_of_each(before(), work.in_progress.lowest())
        await work.run()
        # Else what has failed stays in hand: nothing from there on is committed.
        self._handing_out.held = before

    def statistics(self) -> ConsumerStatistics:
        """Return what has been done since the consumer was made; it asks nobody and costs little.

        All numbers are those of this consumer alone.

        Example:
            async with client.consumer("orders", stop_at_end=True) as consumer:
                async for record in consumer:
                    pass
                print(consumer.statistics().records, consumer.statistics().lag_records)
        """
        machine, handing_out = self._machine, self._handing_out
        lags = [reader.lag for reader in machine.readers.values()]
        known = [lag for lag in lags if lag is not None]
        return ConsumerStatistics(
            records=handing_out.records,
            batches=handing_out.batches,
            bytes=handing_out.bytes,
            deliveries=machine.deliveries,
            reconnects=self._loop.reconnects,
            commits=self._commits.count,
            read_ahead_bytes=machine.ahead.queued_bytes,
            lag_records=sum(known) if lags and len(known) == len(lags) else None,
        )

    async def close(self, *, timeout_s: float | None = None) -> None:
        """Let go of everything; with `commit="auto"` first commit what is finished. Safe to call twice.

        What was returned last counts as finished only where the application has asked for more. Leaving
        the consumer's `async with` block without an exception says so too; `close` alone does not,
        for it may be called because something went wrong. `contextlib.aclosing` works as well.

        Args:
            timeout_s: give up committing after that; None waits as long as the client's
                `connect_timeout_s` and `request_timeout_s` let it take.

        Raises:
            TimedOutError: the last commit had no answer in time, and may have been stored.
            RiverrunError: what was left to commit could not be committed; all else is closed.

        Example:
            consumer = client.consumer("orders")
            records = await consumer.getmany(timeout_s=1)
            await consumer.close(timeout_s=5)
        """
        check_timeout(timeout_s)
        await self._close(through=False, quiet=False, timeout_s=timeout_s)

    aclose = close

    async def __aenter__(self) -> Self:
        """Return the consumer itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; without an exception what was returned last is finished with."""
        await self._close(through=error is None, quiet=error is not None)

    async def _close(self, *, through: bool, quiet: bool, timeout_s: float | None = None) -> None:
        if self._closed:
            # Whoever closes the client, say, is not to take the connections from under the other one.
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._let_go.wait()
            return
        self._closed = True
        try:
            await self._end(through=through, quiet=quiet, timeout_s=timeout_s)
        finally:
            # Whoever keeps the consumer need not keep what was read ahead.
            self._machine.ahead.clear()
            self._handing_out.clear()
            self._released(self)
            self._let_go.set()

    async def _end(self, *, through: bool, quiet: bool, timeout_s: float | None) -> None:
        try:
            await self._loop.close()
            await self._end_commits(through=through, quiet=quiet, timeout_s=timeout_s)
        finally:
            await self._give_up_commits()
            await self._leave()

    async def _leave(self) -> None:
        try:
            await self._loop.leave()
        except RiverrunError as error:
            _log.warning("group %s: others wait for what it had: %s", self._group, error)

    def _put_back(self, given: Sequence[Given[records_pb2.RecordBatch]]) -> None:
        """Take back what has reached nobody; whoever waits is given it."""
        self._handing_out.put_back(given)
        self._loop.wake()

    # Taking batches.

    async def _next_view(self) -> RecordBatchView | None:
        """Wait for the next batch that has records; None at the end."""
        self._begin()
        if self._turn_left < 0:
            self._turn_left = _TURN_RECORDS
            await asyncio.sleep(0)
        while True:
            view = self._view_at_hand()
            if view is not None:
                return view
            if await self._release():
                continue
            # What was put back of a partition that is paused is still to come.
            if self._machine.finished and not self._handing_out.waits:
                return None
            self._check_end()
            await self._loop.change()

    async def _view_within(self, timeout_s: float | None) -> RecordBatchView | None:
        """Wait so long for the next batch."""
        if timeout_s == 0:
            self._begin()
            await asyncio.sleep(0)
            view = self._view_at_hand()
            if view is None and self._begin_release(wait=False) and await self._release():
                view = self._view_at_hand()
            if view is None and not self._machine.finished:
                self._check_end()
            return view
        try:
            async with asyncio.timeout(timeout_s):
                return await self._next_view()
        except TimeoutError:
            self._loop.waited_in_vain()
            return None

    def _view_at_hand(self) -> RecordBatchView | None:
        """Take the next batch that has records, of those that are there."""
        if self._loop.holds_back:
            return None
        view = self._handing_out.next_view()
        if view is not None:
            self._turn_left -= 1 + len(view)
        self._loop.credit_freed()
        return view

    def _take_more_apart(self) -> bool:
        """Go on with what is there; an error waits for the next call."""
        try:
            if self._handing_out.go_on():
                return True
            view = self._view_at_hand()
            if view is not None:
                self._handing_out.take_apart(view)
        except RiverrunError as error:
            self._handing_out.postpone(error)
            return False
        return view is not None


def _parse(data: bytes) -> Sequence[records_pb2.Record]:
    return records_pb2.RecordSet.FromString(data).records
