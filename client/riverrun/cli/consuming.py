"""The work of `consume`: from a consumer's batches to standard output and committed offsets."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from riverrun import CommittedOffset, Consumer, RecordBatchView, RiverrunError, TopicPartition
from riverrun.cli.committing import Committer
from riverrun.cli.counts import printed as printed_records
from riverrun.cli.ending import Ending
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.idling import idling_told
from riverrun.cli.interrupts import Interrupts
from riverrun.cli.places import AtTime, Bound
from riverrun.cli.progress import Progress
from riverrun.cli.session import complaint_of
from riverrun.cli.starting import find_ends, find_time, make_consumer, tell_committed
from riverrun.cli.stdout import StandardOutput
from riverrun.cli.topics import find_topic
from riverrun.cli.waiting import StoppedError, first_of, unless

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.consume import ConsumeOptions
    from riverrun.cli.rendering import Renderer

PATIENCE_S = 2.0
"""How long a bar of progress may wait to learn how much there is to read."""
FLUSH_TIMEOUT_S = 5.0
"""How long the last write may take once a signal has come and nobody reads the pipe."""


async def consume_output(client: Client, options: ConsumeOptions, renderer: Renderer) -> int:
    """Write records until they end, enough were written, a signal comes or the reader goes away.

    Returns:
        The exit code.

    Raises:
        RiverrunError: nothing could be read, and so nothing was printed.
        Complaint: there is no such partition, standard output cannot be written, or reading or
            committing failed once something was printed, which is committed if it can be.
    """
    stop = asyncio.Event()
    output = StandardOutput()
    with Interrupts(stop.set) as interrupts:
        try:
            reading = await unless(stop, _begun(client, options, renderer, output))
        except StoppedError:
            return interrupts.exit_code  # it has not begun: that is no way for it to end
        try:
            try:
                await first_of(reading.read(), stop.wait(), output.reader_gone())
            finally:
                await reading.finish(FLUSH_TIMEOUT_S if stop.is_set() else None)
        except BrokenPipeError:
            return Exit.OK
        except OSError as error:
            text = f"standard output cannot be written: {error}"
            raise _cut_off(Complaint(text, reason="OUTPUT_FAILED"), reading.printed) from error
        except RiverrunError as error:
            raise _cut_off(complaint_of(error), reading.printed) from error
        except Complaint as complaint:
            raise _cut_off(complaint, reading.printed) from None
    return Exit.OK if options.endless else interrupts.exit_code


async def _begun(
    client: Client, options: ConsumeOptions, renderer: Renderer, output: StandardOutput
) -> Reading:
    """Find what is to be read, and prepare for it."""
    partitions = await find_topic(client, options.topic, options.partitions)
    consumer = await make_consumer(client, options)
    await tell_committed(client, options, partitions)
    return Reading(consumer, partitions, options, renderer, output)


def _cut_off(complaint: Complaint, printed: int) -> Complaint:
    """Take into account what was printed before: whoever repeats it all gets that twice."""
    if printed:
        complaint.message = f"{complaint.message.rstrip('. ')}; {printed_records(printed)}"
        complaint.partly()
    complaint.more["printed_records"] = printed
    return complaint


class Reading:
    """Cuts a consumer's batches to what is wanted, renders them and hands them to the output.

    Attributes:
        printed: how many records were written whole.
    """

    def __init__(
        self,
        consumer: Consumer,
        partitions: Sequence[TopicPartition],
        options: ConsumeOptions,
        renderer: Renderer,
        output: StandardOutput,
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._options = options
        self._render = renderer
        self._output = output
        self._count = 0
        self.printed = 0
        self._committer = Committer(consumer) if options.group is not None else None
        self._ending: Ending[TopicPartition] = Ending(max_records=options.max_records)

    async def read(self) -> None:
        """Hand over batch after batch until nothing more is wanted, or there are no more.

        Raises:
            RiverrunError: reading failed.
            OSError: as `StandardOutput.put` does.
        """
        until = self._options.until
        if until is not None:
            await self._set_ends(until)
        works = [self._read_shown()]
        if self._committer is not None:
            works.append(self._committer.run())
        if isinstance(until, AtTime):
            works.append(self._close_in_time(until))
        await first_of(*works)

    async def finish(self, timeout_s: float | None) -> None:
        """Write what is left, for at most `timeout_s`, and commit what was written, for as long.

        Raises:
            RiverrunError: the group's offsets could not be stored.
            Complaint: they were not in that time, and nobody knows whether they will be.
            OSError: as `StandardOutput.drain` does.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._output.drain()
        except TimeoutError:
            write_note("note: nobody reads standard output; what was left is not written")
        finally:
            if self._committer is not None:
                await self._commit(self._committer, timeout_s)

    async def _commit(self, committer: Committer, timeout_s: float | None) -> None:
        """Commit what was written."""
        try:
            async with asyncio.timeout(timeout_s):
                await committer.finish()
        except TimeoutError:
            raise Complaint(
                f"stopped by a signal, and no broker has stored the offsets of group "
                f"{self._options.group} within {timeout_s:.0f} s; where it has not, what was printed "
                "since the last commit comes again",
                Exit.UNKNOWN_OUTCOME,
                "INTERRUPTED",
            ) from None

    async def _read_shown(self) -> None:
        """Hand over batches, with a bar of progress where a person waits for a file to be written."""
        shown = sys.stderr.isatty() and stat.S_ISREG(os.fstat(1).st_mode)
        total = await self._expected() if shown else None
        async with Progress(total, lambda: self._count, shown=shown), self._idling():
            await self._read_batches()

    def _idling(self) -> AbstractAsyncContextManager[None]:
        """Tell where it waits for records that are to end it."""
        if self._options.endless or self._options.exit_at_end:
            return nullcontext()
        return idling_told(self._consumer, lambda: self._count, self._ending.closed)

    async def _expected(self) -> int | None:
        """Count the records that will come, as far as that is known by now."""
        if not self._options.exit_at_end or self._options.until is not None:
            return self._options.max_records
        try:
            async with asyncio.timeout(PATIENCE_S):
                ends = await self._consumer.end_offsets(self._partitions)
                left = [end - await self._consumer.position(at) for at, end in ends.items()]
        except (RiverrunError, TimeoutError):
            return self._options.max_records
        expected = sum(max(0, count) for count in left)
        return min(expected, self._options.max_records or expected)

    async def _read_batches(self) -> None:
        """Hand over batches."""
        if self._ending.done:
            return
        async for batch in self._consumer.batches():
            await self._take(batch)
            if self._ending.done:
                return

    async def _take(self, batch: RecordBatchView) -> None:
        """Hand over what is wanted of one batch."""
        where = TopicPartition(batch.topic, batch.partition)
        if self._ending.closed(where):
            return
        count = self._ending.take(where, batch.offsets, batch.timestamps_ms)
        self._count += count
        whole = count == len(batch)
        behind = batch.next_offset if whole else batch.offsets[count]
        if whole:
            self._ending.pass_to(where, behind)
        if self._ending.closed(where):
            self._consumer.pause([where])
        if count or whole:
            data = self._render(batch, count)
            position = CommittedOffset(behind, leader_epoch=batch.leader_epoch)
            await self._output.put(data, partial(self._written, where, position, count))

    def _written(self, where: TopicPartition, position: CommittedOffset, count: int) -> None:
        """Note what has been written."""
        self.printed += count
        if self._committer is not None:
            self._committer.written[where] = position

    async def _set_ends(self, until: Bound) -> None:
        """Find where partitions end, and which of them are there already."""
        self._ending = Ending(
            self._partitions,
            max_records=self._options.max_records,
            until_ms=until.time_ms if isinstance(until, AtTime) else None,
        )
        await self._close_at(await find_ends(self._consumer, self._partitions, self._options))

    async def _close_in_time(self, until: AtTime) -> None:
        """Once the time of --until has passed, end each partition where it stands then."""
        await asyncio.sleep(until.time_ms / 1000 - time.time())
        await self._close_at(await find_time(self._consumer, self._partitions, until.time_ms))
        if not self._ending.done:
            await asyncio.Event().wait()  # the rest is the reader's

    async def _close_at(self, ends: Mapping[TopicPartition, int]) -> None:
        """Set ends, and stop reading the partitions that are there already."""
        # Of a partition that is offline nothing is known, and it is not where it ends.
        read = set(await self._consumer.assignment())
        positions = {where: await self._consumer.position(where) for where in read & ends.keys()}
        self._ending.close_at(ends, positions)
        if there := [where for where in ends if self._ending.closed(where)]:
            self._consumer.pause(there)
