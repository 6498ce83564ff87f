"""Where a blocking consumer stands: its positions, how far behind it is, and going elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import riverrun.consumer
from riverrun._core.records import From, OffsetAndTimestamp, TopicPartition
from riverrun.blocking.direct import Direct


class ConsumerPositions:
    """The part of `Consumer` that is about places in logs."""

    def __init__(self, consumer: riverrun.consumer.Consumer[Any, Any], direct: Direct) -> None:
        self._consumer = consumer
        self._call = direct.call

    # Where it stands.

    def assignment(self) -> tuple[TopicPartition, ...]:
        """Return the partitions being read; waits until the broker has told them.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            for topic, partition in consumer.assignment():
                print(topic, partition)
        """
        return self._call(self._consumer.assignment)

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned.

        Raises:
            UsageError: the partition is not being read.
            OffsetOutOfRangeError: reading was to begin where the partition has nothing.
            RetriableError: the partition cannot be read just now and has never been.

        Example:
            print(consumer.position(riverrun.TopicPartition("orders", 0)))
        """
        return self._call(lambda: self._consumer.position(partition))

    def positions(self) -> dict[TopicPartition, int]:
        """Return the positions of all partitions that are being read.

        A partition of which that is not known is left out: it is offline and could never begin, a
        seek is under way, or the broker has not found yet whether it has the place.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            records = consumer.getmany(100, timeout_s=5)
            for partition, offset in consumer.positions().items():
                print(partition, offset)
        """
        return self._call(self._consumer.positions)

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return how many offsets each partition has between the position and the high watermark.

        Nothing is asked for: the numbers are at most as old as the broker's heartbeat interval. None
        stands for a partition of which it is not known: one that is offline and could never begin,
        or where a seek is under way.

        Raises:
            RiverrunError: the consumer cannot go on.

        Example:
            print(sum(records or 0 for records in consumer.lag().values()))
        """
        return self._call(self._consumer.lag)

    # Where logs begin and end.

    def beginning_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the first offsets that can be read, by default of the partitions being read.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            for partition, offset in consumer.beginning_offsets().items():
                print(partition, offset)
        """
        return self._call(lambda: self._consumer.beginning_offsets(partitions))

    def end_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the high watermarks, by default of the partitions being read.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            for partition, offset in consumer.end_offsets().items():
                print(partition, offset)
        """
        return self._call(lambda: self._consumer.end_offsets(partitions))

    def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Find the first record whose timestamp is that or later; None where there is none.

        Args:
            times_ms: by partition, in ms since 1970.

        Raises:
            RiverrunError: of the first partition that could not answer, or of the call.

        Example:
            hour_ago_ms = int(time.time() * 1000) - 3_600_000
            times_ms = dict.fromkeys(consumer.assignment(), hour_ago_ms)
            print(consumer.offsets_for_times(times_ms))
        """
        return self._call(lambda: self._consumer.offsets_for_times(times_ms))

    # Going elsewhere.

    def seek(self, partition: TopicPartition, to: int | From) -> None:
        """Go elsewhere in one partition. What was read ahead from the old place is dropped.

        It returns once the broker has found the place, and works before the first record was read.

        Args:
            partition: one that is being read.
            to: an offset, "earliest", "latest", "committed", `Offset(n)`, `Time(ms)` or `Last(n)`.

        Raises:
            UsageError: the partition is not being read, or the place is none.
            RiverrunError: the broker refuses the place.

        Example:
            consumer.seek(riverrun.TopicPartition("orders", 0), riverrun.Last(1))
        """
        self._call(lambda: self._consumer.seek(partition, to))

    def seek_many(self, places: Mapping[TopicPartition, int | From]) -> None:
        """Go elsewhere in several partitions at once; all that can be done is done.

        Args:
            places: where to go, by partition; as `seek` takes them.

        Raises:
            UsageError: a partition is not being read, or a place is none; nothing has moved then.
            RiverrunError: of the first place that the broker refuses; the others have moved.

        Example:
            noon = riverrun.Time(1_767_268_800_000)
            consumer.seek_many(dict.fromkeys(consumer.assignment(), noon))
        """
        self._call(lambda: self._consumer.seek_many(places))

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Go to the first records that are still there; without names, in all partitions.

        Raises:
            UsageError: a partition is not being read.
            RiverrunError: as `seek_many` does.

        Example:
            consumer.seek_to_beginning()
        """
        self._call(lambda: self._consumer.seek_to_beginning(*partitions))

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go behind the last records, to what comes from now on; without names, in all partitions.

        Raises:
            UsageError: a partition is not being read.
            RiverrunError: as `seek_many` does.

        Example:
            consumer.seek_to_end(riverrun.TopicPartition("orders", 0))
        """
        self._call(lambda: self._consumer.seek_to_end(*partitions))

    def pause(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Stop returning records of these partitions; none named is all that are being read.

        What was read ahead of them is dropped, and read again when they go on.

        Example:
            consumer.pause([riverrun.TopicPartition("orders", 0)])
            records = consumer.getmany(timeout_s=0.1)
            consumer.resume()
        """

        async def pause() -> None:
            self._consumer.pause(partitions)

        self._call(pause)

    def resume(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Go on with paused partitions; none named is all.

        Example:
            consumer.pause()
            consumer.resume([riverrun.TopicPartition("orders", 0)])
        """

        async def resume() -> None:
            self._consumer.resume(partitions)

        self._call(resume)

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused.

        Example:
            consumer.pause([riverrun.TopicPartition("orders", 0)])
            print(consumer.paused())
        """

        async def paused() -> frozenset[TopicPartition]:
            return self._consumer.paused()

        return self._call(paused)
