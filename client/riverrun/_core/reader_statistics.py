"""What a consumer has done since it was made, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """A snapshot; all but the last two only grow.

    Attributes:
        records: how many records were returned.
        batches: of how many batches.
        bytes: how many bytes the record sets of these batches had, compressed as they travelled.
        deliveries: how many deliveries came from brokers, those dropped by a seek included.
        reconnects: how many times a stream was opened anew.
        commits: how many commits were stored.
        read_ahead_bytes: how much has been read ahead and waits to be returned.
        lag_records: how far the application is behind the high watermarks, over all partitions; None
            where that is not known of all of them, as before reading has begun.

    Example:
        records = await consumer.getmany(100, timeout_s=5)
        told = consumer.statistics()
        print(told.records, "records,", told.bytes, "bytes,", told.lag_records, "to come")
    """

    records: int
    batches: int
    bytes: int
    deliveries: int
    reconnects: int
    commits: int
    read_ahead_bytes: int
    lag_records: int | None
