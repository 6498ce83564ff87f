"""Where a consumer stands: its partitions and positions, how far behind it is, and going elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from riverrun._core.argument_checks import (
    by_partition,
    topic_partition,
    topic_partitions,
)
from riverrun._core.committing import Floors
from riverrun._core.handing_out import HandingOut
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import From, Offset, OffsetAndTimestamp, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.offsets import high_watermarks, log_starts, offsets_at_times
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_settings import SubscribeSettings, check_place
from riverrun._net.subscribe_stream import Machine
from riverrun.errors import ClosedError, Reason, UsageError
from riverrun.v1 import records_pb2


class ConsumerPositions:
    """The part of `Consumer` that is about places in logs."""

    def __init__(
        self,
        connections: Connections,
        settings: SubscribeSettings,
        machine: Machine,
        loop: SubscribeLoop,
        handing_out: HandingOut[records_pb2.RecordBatch, records_pb2.Record],
    ) -> None:
        self._connections = connections
        self._group = settings.group
        self._machine = machine
        self._loop = loop
        self._handing_out = handing_out
        self._floors = Floors()
        self._closed = False

    # Where it stands.

    async def assignment(self) -> tuple[TopicPartition, ...]:
        """Return the partitions being read; waits until brokers have told them.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            for partition in await consumer.assignment():
                print(partition.topic, partition.partition)
        """
        self._begin()
        while not self._machine.told:
            self._check_end()
            await self._loop.change()
        return tuple(self._machine.readers)

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned.

        Raises:
            UsageError: the partition is not being read.
            OffsetOutOfRangeError: reading was to begin where the partition has nothing.
            RetriableError: the partition cannot be read just now and has never been.

        Example:
            print(await consumer.position(riverrun.TopicPartition("orders", 0)))
        """
        reader = await self._reader(topic_partition(partition))
        # Whether a place beyond the high watermark exists, the broker says when it looks there.
        while not (reader.begun and (reader.in_range or reader.paused)):
            error = reader.error or (None if reader.begun else reader.trouble)
            if error is not None:
                raise copy.copy(error)
            self._check_end()
            await self._loop.change()
        return self._handing_out.position(reader)

    async def positions(self) -> dict[TopicPartition, int]:
        """Return the positions of all partitions that are being read.

        A partition of which that is not known is left out: it is offline and could never begin, a
        seek is under way, or the broker has not found yet whether it has the place.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            async with client.consumer("orders", stop_at_end=True) as consumer:
                async for record in consumer:
                    pass
                for partition, offset in (await consumer.positions()).items():
                    print(partition, offset)
        """
        await self.assignment()
        return {
            partition: self._handing_out.position(reader)
            for partition, reader in self._machine.readers.items()
            if reader.settled and reader.in_range
        }

    async def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each partition has between the position and the high watermark.

        Deliveries and heartbeats tell the high watermarks, so that nothing is asked for here; they
        are at most as old as the broker's heartbeat interval. From the moment that reading begins
        it is known, before anything was delivered. None stands for a partition of which it is not
        known: one that is offline and could never begin, or where a seek is under way.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            print(sum(records or 0 for records in (await consumer.lag()).values()))
        """
        await self.assignment()
        return {partition: reader.lag for partition, reader in self._machine.readers.items()}

    # Where logs begin and end.

    async def beginning_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the first offsets that can be read, by default of the partitions being read.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            for partition, offset in (await consumer.beginning_offsets()).items():
                print(partition, offset)
        """
        named = None if partitions is None else topic_partitions(partitions)
        return await log_starts(
            self._connections, await self.assignment() if named is None else named
        )

    async def end_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the high watermarks, by default of the partitions being read.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            for partition, offset in (await consumer.end_offsets()).items():
                print(partition, offset)
        """
        named = None if partitions is None else topic_partitions(partitions)
        return await high_watermarks(
            self._connections, await self.assignment() if named is None else named
        )

    async def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Find the first record whose timestamp is that or later; None where there is none.

        Args:
            times_ms: by partition, in ms since 1970.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            hour_ago_ms = int(time.time() * 1000) - 3_600_000
            times_ms = dict.fromkeys(await consumer.assignment(), hour_ago_ms)
            print(await consumer.offsets_for_times(times_ms))
        """
        return await offsets_at_times(self._connections, by_partition("times_ms", times_ms))

    # Going elsewhere.

    async def seek(self, partition: TopicPartition, to: int | From) -> None:
        """Go elsewhere in one partition. What was read ahead from the old place is dropped.

        It returns once the broker has found the place, and works before the first record was read.

        Args:
            partition: one that is being read.
            to: an offset, "earliest", "latest", "committed", `Offset(n)`, `Time(ms)` or `Last(n)`.

        Raises:
            UsageError: the partition is not being read, or the place is none.
            RiverrunError: the broker refuses the place.

        Example:
            async with client.consumer("orders", stop_at_end=True) as consumer:
                await consumer.seek(riverrun.TopicPartition("orders", 0), riverrun.Last(10))
                async for record in consumer:
                    print(record.offset)
        """
        await self.seek_many({partition: to})

    async def seek_many(self, places: Mapping[TopicPartition, int | From]) -> None:
        """Go elsewhere in several partitions at once; all that can be done is done.

        Args:
            places: where to go, by partition; as `seek` takes them.

        Raises:
            UsageError: a partition is not being read, or a place is none; nothing has moved then.
            RiverrunError: of the first place that the broker refuses; the others have moved.

        Example:
            noon = riverrun.Time(1_767_268_800_000)
            await consumer.seek_many(dict.fromkeys(await consumer.assignment(), noon))
        """
        found: dict[TopicPartition, From] = {}
        for partition, to in by_partition("places", places).items():
            found[partition] = Offset(to) if isinstance(to, int) else to
            check_place(found[partition], self._group)
        for partition in found:
            await self._reader(partition)
        for partition in found:
            self._handing_out.forget(partition)
            self._floors.forget(partition)
        await self._loop.seek(found)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Go to the first records that are still there; without names, in all partitions.

        Raises:
            UsageError: a partition is not being read.
            RiverrunError: as `seek_many` does.

        Example:
            await consumer.seek_to_beginning()
        """
        await self.seek_many(dict.fromkeys(partitions or await self.assignment(), "earliest"))

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go behind the last records, to what comes from now on; without names, in all partitions.

        Raises:
            UsageError: a partition is not being read.
            RiverrunError: as `seek_many` does.

        Example:
            await consumer.seek_to_end(riverrun.TopicPartition("orders", 0))
        """
        await self.seek_many(dict.fromkeys(partitions or await self.assignment(), "latest"))

    def pause(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Stop returning records of these partitions; none named is all that are being read.

        What was read ahead of them is dropped, and read again when they go on.

        Example:
            consumer.pause([riverrun.TopicPartition("orders", 0)])
            records = await consumer.getmany(timeout_s=0.1)
            consumer.resume()
        """
        named = topic_partitions(partitions)
        for reader in self._loop.pause(named or tuple(self._machine.readers)):
            if self._handing_out.forget(reader.partition, pausing=True):
                reader.dropped = True

    def resume(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Go on with paused partitions; none named is all.

        Example:
            consumer.pause()
            consumer.resume([riverrun.TopicPartition("orders", 0)])
        """
        self._loop.resume(topic_partitions(partitions) or tuple(self.paused()))

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused.

        Example:
            consumer.pause([riverrun.TopicPartition("orders", 0)])
            print(consumer.paused())
        """
        return self._machine.paused

    # For the rest of the consumer.

    def _begin(self) -> None:
        if self._closed:
            raise ClosedError(
                "the consumer was closed; make a new one with Client.consumer()",
                reason=Reason.CLOSED,
            )
        self._loop.start()

    def _check_end(self) -> None:
        """Raise what nothing will come after."""
        if self._closed:
            raise ClosedError("the consumer was closed meanwhile", reason=Reason.CLOSED)
        error = self._machine.error or self._machine.all_failed
        if error is not None:
            # A copy: raised again and again, the same one would grow a traceback without end.
            raise copy.copy(error)

    async def _reader(self, partition: TopicPartition) -> PartitionReader:
        read = await self.assignment()
        reader = self._machine.readers.get(partition)
        if reader is None:
            raise UsageError(
                f"{partition} is not being read; these are: {', '.join(map(str, read))}",
                reason=Reason.PARTITION_NOT_FOUND,
            )
        return reader

    def _topic_ids(self) -> dict[TopicPartition, bytes]:
        """Return the ids of the topics that are being read, whatever has their names by now."""
        return {place: reader.topic_id for place, reader in self._machine.readers.items()}
