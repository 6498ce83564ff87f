"""What every way of producing does with one append: find the partition, validate, submit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import producer_pb2
from riverrun.v1.records_pb2 import Record, RecordBatch
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from riverrun_server.ports.partitions import Acks, Appended, Directory, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.rpc.errors import tell_leader, to_proto
from riverrun_server.wire import codecs
from riverrun_server.wire.ingress import (
    MAX_BATCH_RECORDS,
    AcceptedBatch,
    IngressLimits,
    PackedRecords,
    accept,
    join,
    pack_records,
)

# Where an append goes: topic, topic id, partition; where it never found its partition, what the
# client said.
Where: TypeAlias = tuple[str, bytes, int]

# A smaller record set is packed on the loop; a thread would cost more than the work.
_PACK_ON_LOOP_RECORDS = 500

_ACKS = {producer_pb2.ACKS_UNSPECIFIED: Acks.ALL, **{int(acks): acks for acks in Acks}}


@dataclass(frozen=True, slots=True)
class AppendRules:
    """What the ways of producing share.

    Attributes:
        directory: finds partitions.
        limits: the broker's bounds.
        now_ms: the broker's guarded clock.
        threads: where compressed and large batches are validated; what waits for them is bounded by
            the bytes that may be in flight.
    """

    directory: Directory
    limits: Limits
    now_ms: Callable[[], int]
    threads: Threads

    def partition(
        self, topic: str, topic_id: bytes, partition: int, *, direct: bool = False
    ) -> PartitionAccess:
        """Return a partition that clients may write to; `direct` where nothing is to be passed on.

        Raises:
            Refusal: as Directory.partition, or TOPIC_RESERVED.
        """
        access = self.directory.partition(topic, topic_id, partition)
        self._check_writable(access.topic)
        return access.direct() if direct else access

    def partitions(
        self, topic: str, topic_id: bytes = b"", *, direct: bool = False
    ) -> list[PartitionAccess]:
        """Return all partitions of a topic that clients may write to."""
        accesses = self.directory.partitions(topic, topic_id)
        self._check_writable(accesses[0].topic)
        return [access.direct() for access in accesses] if direct else accesses

    def _check_writable(self, topic: str) -> None:
        if self.directory.is_internal(topic):
            raise Refusal(
                Reason.TOPIC_RESERVED,
                f"topic {topic!r} belongs to the brokers and clients cannot write to it; topics of "
                'your own must not begin with "__"',
            )

    async def accept(self, access: PartitionAccess, batch: RecordBatch) -> AcceptedBatch:
        """Validate a batch; compressed ones in a thread, for expanding takes milliseconds."""
        limits, now_ms = self._ingress(access), self.now_ms()
        if batch.codec in codecs.UNCOMPRESSED:
            return accept(batch, limits, now_ms)
        return await self.threads.run(accept, batch, limits, now_ms)

    async def pack_records(
        self, access: PartitionAccess, records: Sequence[Record]
    ) -> PackedRecords:
        """Serialise and validate records; many of them in a thread."""
        limits, now_ms = self._ingress(access), self.now_ms()
        if len(records) <= _PACK_ON_LOOP_RECORDS:
            return pack_records(records, limits, now_ms)
        return await self.threads.run(pack_records, records, limits, now_ms)

    async def pack(self, access: PartitionAccess, records: Sequence[Record]) -> AcceptedBatch:
        """Make a batch of records."""
        return join([await self.pack_records(access, records)], self.now_ms())

    def _ingress(self, access: PartitionAccess) -> IngressLimits:
        return _ingress(access.max_batch_bytes, self.limits.timestamp_ahead_max_ms)

    def timeout_s(self, timeout: Duration | None) -> float:
        """Return how long to wait for acks; what the client asks for is bounded.

        Raises:
            Refusal: INVALID_REQUEST for a timeout that is not positive.
        """
        if timeout is None:
            return self.limits.default_produce_timeout_ms / 1000
        seconds = timeout.seconds + timeout.nanos / 1e9
        if seconds <= 0:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"timeout is {seconds} s and must be positive; leave it out for the default of "
                f"{self.limits.default_produce_timeout_ms / 1000} s",
            )
        return min(seconds, self.limits.max_produce_timeout_ms / 1000)


# Nearly every batch of a broker meets the same two numbers.
_ingress = lru_cache(256)(IngressLimits)


def check_records(count: int, what: str = "records") -> None:
    """Refuse a request of more records than a batch may have, before anything is made of each.

    4 MiB hold two million empty records, which take half a gigabyte once they are looked at.

    Raises:
        Refusal: INVALID_RECORD where there are none, LIMIT_EXCEEDED.
    """
    if not count:
        raise Refusal(Reason.INVALID_RECORD, f"the request has no {what}; send at least one")
    if count > MAX_BATCH_RECORDS:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"the request has {count} {what} and {MAX_BATCH_RECORDS} are allowed; split it",
        )


def acks_of(value: int) -> Acks:
    """Return the ack condition of a request; unset is the safe one.

    Raises:
        Refusal: INVALID_REQUEST for a value that is none.
    """
    acks = _ACKS.get(value)
    if acks is None:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"acks is {value}, which means nothing here; use ACKS_ALL (1), ACKS_LEADER (2) or "
            "ACKS_NONE (3)",
        )
    return acks


def where(access: PartitionAccess) -> Where:
    """Return a partition's place."""
    return (access.topic, *access.id)


def tell(result: producer_pb2.ProduceResult, place: Where, appended: Appended) -> None:
    """Write an answer as it is told to clients into an empty result.

    In place, for a message that is put into another one is copied; that is most of a small answer.
    """
    result.topic, result.topic_id, result.partition = place
    result.record_count = appended.record_count
    result.log_start_offset = appended.log_start_offset
    if appended.base_offset is not None:
        result.base_offset = appended.base_offset
    if appended.duplicate:
        result.duplicate = True
    if appended.error is not None:
        result.error.CopyFrom(to_proto(appended.error))
    if appended.leader is not None:
        tell_leader(result.leader, appended.leader)


def timed_out(seconds: float) -> Refusal:
    """Say that the ack condition was not met in time."""
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        f"the acks of the append did not come within {seconds:g} s; it may have been written and may "
        "still succeed: send it again only with a producer id and the same sequence",
    )
