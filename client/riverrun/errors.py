"""What can go wrong, as one small tree of exceptions.

Every error says what was wrong, the actual and the expected value, and what to do. It carries a
`reason` to program against and says whether the outcome is known: where `outcome_known` is False
the request may have taken effect, or may still, and only an idempotent one may be made again.

    RiverrunError
    ├── RetriableError          the same call may succeed a little later
    │   ├── NoBrokerError         nobody answers at any bootstrap address
    │   ├── TimedOutError         no answer in time
    │   └── BufferFullError       the producer's buffer has no room just now
    ├── FatalError              this object cannot go on; make a new one
    │   ├── ProducerFencedError   a newer epoch of this producer has written
    │   └── CorruptDataError      data fails its checksum, or deliveries do not continue each other
    └── UsageError              the call is wrong; change it
        ├── TopicNotFoundError    no such topic or partition
        ├── TopicExistsError      the name is taken
        ├── OffsetOutOfRangeError the offset cannot be read; `available` says what can
        ├── DeserializationError  a record's key or value is not what the consumer was told it is
        └── ClosedError           the object was closed
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from riverrun._core.records import Record, TopicPartition


class Reason(enum.StrEnum):
    """Why something failed: the broker's reasons by their names on the wire, then our own.

    Example:
        try:
            await admin.describe_topic("ordres")
        except riverrun.RiverrunError as error:
            assert error.reason is riverrun.Reason.TOPIC_NOT_FOUND
    """

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_RECORD = "INVALID_RECORD"
    INVALID_TIMESTAMP = "INVALID_TIMESTAMP"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    UNSUPPORTED_CODEC = "UNSUPPORTED_CODEC"
    INVALID_NAME = "INVALID_NAME"
    INVALID_CONFIG = "INVALID_CONFIG"
    TOPIC_NOT_FOUND = "TOPIC_NOT_FOUND"
    PARTITION_NOT_FOUND = "PARTITION_NOT_FOUND"
    TOPIC_EXISTS = "TOPIC_EXISTS"
    TOPIC_ID_MISMATCH = "TOPIC_ID_MISMATCH"
    TOPIC_RESERVED = "TOPIC_RESERVED"
    NOT_ENOUGH_BROKERS = "NOT_ENOUGH_BROKERS"
    CONFLICT = "CONFLICT"
    BROKER_NOT_FOUND = "BROKER_NOT_FOUND"
    BROKER_FENCED = "BROKER_FENCED"
    BROKER_NEEDED = "BROKER_NEEDED"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    LOG_TRUNCATED = "LOG_TRUNCATED"
    OFFSET_NOT_AVAILABLE = "OFFSET_NOT_AVAILABLE"
    CORRUPT_DATA = "CORRUPT_DATA"
    UNKNOWN_PRODUCER = "UNKNOWN_PRODUCER"
    OUT_OF_ORDER_SEQUENCE = "OUT_OF_ORDER_SEQUENCE"
    PRODUCER_FENCED = "PRODUCER_FENCED"
    PRECEDING_FAILED = "PRECEDING_FAILED"
    EXPECTED_OFFSET_MISMATCH = "EXPECTED_OFFSET_MISMATCH"
    NOT_LEADER = "NOT_LEADER"
    FENCED_LEADER_EPOCH = "FENCED_LEADER_EPOCH"
    UNKNOWN_LEADER_EPOCH = "UNKNOWN_LEADER_EPOCH"
    NOT_ENOUGH_REPLICAS = "NOT_ENOUGH_REPLICAS"
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    PARTITION_OFFLINE = "PARTITION_OFFLINE"
    LEADER_NOT_AVAILABLE = "LEADER_NOT_AVAILABLE"
    PREFERRED_LEADER_NOT_AVAILABLE = "PREFERRED_LEADER_NOT_AVAILABLE"
    STORAGE_FULL = "STORAGE_FULL"
    STORAGE_STALLED = "STORAGE_STALLED"
    STORAGE_FAILED = "STORAGE_FAILED"
    OVERLOADED = "OVERLOADED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    NOT_READY = "NOT_READY"
    REQUEST_TIMED_OUT = "REQUEST_TIMED_OUT"
    COORDINATOR_LOADING = "COORDINATOR_LOADING"
    GROUP_NOT_FOUND = "GROUP_NOT_FOUND"
    GROUP_HAS_MEMBERS = "GROUP_HAS_MEMBERS"
    UNKNOWN_MEMBER = "UNKNOWN_MEMBER"
    MEMBER_TAKEN_OVER = "MEMBER_TAKEN_OVER"
    INSTANCE_IN_USE = "INSTANCE_IN_USE"
    FENCED_MEMBER_EPOCH = "FENCED_MEMBER_EPOCH"
    PARTITION_NOT_ASSIGNED = "PARTITION_NOT_ASSIGNED"
    INTERNAL = "INTERNAL"

    NO_BROKER = "NO_BROKER"
    """No bootstrap address answers."""
    CONNECTION_LOST = "CONNECTION_LOST"
    """The connection broke before the answer came."""
    TIMED_OUT = "TIMED_OUT"
    """The client's own deadline passed."""
    BUFFER_FULL = "BUFFER_FULL"
    """The producer's buffer has no room."""
    BATCH_FAILED_BEFORE = "BATCH_FAILED_BEFORE"
    """An earlier batch of the same partition failed, and order forbids sending this one."""
    DESERIALIZATION_FAILED = "DESERIALIZATION_FAILED"
    """A deserializer did not take a record's key or value."""
    CLOSED = "CLOSED"
    """The object was closed."""
    FORKED = "FORKED"
    """The process was forked from one that had used a client; gRPC does not survive that."""
    PROTOCOL_BROKEN = "PROTOCOL_BROKEN"
    """The other side said something that the protocol does not allow."""
    UNKNOWN = "UNKNOWN"
    """A reason that this version does not know; the message has it."""


class OffsetRange(NamedTuple):
    """The offsets that can be read: from `earliest` up to, and without, `latest`.

    Example:
        try:
            async for record in client.consumer("orders", from_=riverrun.Offset(10**9)):
                print(record)
        except riverrun.OffsetOutOfRangeError as error:
            print("it begins at", error.available.earliest, "and ends before", error.available.latest)
    """

    earliest: int
    latest: int


class LeaderHint(NamedTuple):
    """Who leads a partition, as the broker that was asked and does not lead it says.

    Producers and consumers follow hints by themselves.

    Attributes:
        broker_id: the leader.
        endpoint: where clients reach it, as host:port.
        leader_epoch: of its leadership; the higher one of two is true.

    Example:
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.RiverrunError as error:
            if error.leader is not None:
                print("led by broker", error.leader.broker_id, "at", error.leader.endpoint)
    """

    broker_id: int
    endpoint: str
    leader_epoch: int


class RiverrunError(Exception):
    """Anything that this library raises of itself.

    Attributes:
        reason: what went wrong, to program against.
        message: what was wrong, the actual and the expected value, and what to do.
        outcome_known: True where nothing happened and nothing will; False where nobody knows.
        retry_after_s: how long to wait before the same call; None where waiting does not help.
        available: the offsets that can be read, where the call named one that cannot.
        expected_sequence: what the partition expects next from this producer, if it said so.
        diverging_offset: where the log departs from what the reader saw, if it does.
        leader: who leads the partition, where the broker that was asked does not and knows who does.
        acknowledged_records: how many records `send_many` had acknowledged before it failed.
        acknowledged_first: how many of those it was given, from the first on and without a gap, it had
            acknowledged then; None where they were for several partitions, or another call failed.

    Example:
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.RiverrunError as error:
            if error.outcome_known and error.retry_after_s is not None:
                await asyncio.sleep(error.retry_after_s)
                await producer.send("orders", b"2 apples")
            else:
                raise
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        outcome_known: bool = True,
        retry_after_s: float | None = None,
        available: OffsetRange | None = None,
        expected_sequence: int | None = None,
        diverging_offset: int | None = None,
        leader: LeaderHint | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.outcome_known = outcome_known
        self.retry_after_s = retry_after_s
        self.available = available
        self.expected_sequence = expected_sequence
        self.diverging_offset = diverging_offset
        self.leader = leader
        self.acknowledged_records = 0
        self.acknowledged_first: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Let copies and pickles keep the keyword arguments."""
        return _rebuilt, (type(self), self.message, self.__dict__.copy())

    def __str__(self) -> str:
        """Say the message, the reason and, where it matters, that the outcome is unknown."""
        doubt = "" if self.outcome_known else "; the outcome is unknown"
        return f"{self.message} [{self.reason}{doubt}]"


class RetriableError(RiverrunError):
    """The same call may succeed a little later.

    Example:
        for attempt in range(3):
            try:
                cluster = await admin.cluster()
                break
            except riverrun.RetriableError as error:
                await asyncio.sleep(error.retry_after_s or 1)
    """


class NoBrokerError(RetriableError):
    """Nobody answers at any bootstrap address.

    Example:
        try:
            async with riverrun.Client("127.0.0.1:1", connect_timeout_s=0.1) as nobody:
                await nobody.server_info()
        except riverrun.NoBrokerError as error:
            print(error)
    """


class TimedOutError(RetriableError):
    """No answer came in time.

    Example:
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.TimedOutError as error:
            print("written or not?", error.outcome_known)
    """


class BufferFullError(RetriableError):
    """The producer's buffer has no room just now: await `Producer.drain()` and call again.

    Example:
        try:
            future = producer.send_nowait("orders", b"2 apples")
        except riverrun.BufferFullError:
            await producer.drain()
            future = producer.send_nowait("orders", b"2 apples")
    """


class FatalError(RiverrunError):
    """This object cannot go on; make a new one.

    Example:
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.FatalError:
            producer = client.producer()
    """


class ProducerFencedError(FatalError):
    """A newer epoch of this producer has written; this one has ended.

    Example:
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.ProducerFencedError:
            print("somebody else has taken over")
    """


class CorruptDataError(FatalError):
    """Data fails its checksum, or deliveries do not continue each other.

    Example:
        try:
            records = await consumer.getmany(100, timeout_s=1)
        except riverrun.CorruptDataError as error:
            print(error.message)
    """


class UsageError(RiverrunError):
    """The call is wrong; change it.

    Example:
        try:
            await producer.send("orders", "text")
        except riverrun.UsageError as error:
            print(error.message)
    """


class TopicNotFoundError(UsageError):
    """No topic has this name, or it has fewer partitions than that.

    Example:
        try:
            await producer.send("ordres", b"2 apples")
        except riverrun.TopicNotFoundError as error:
            print(error.message)
    """


class TopicExistsError(UsageError):
    """A topic has this name already.

    Example:
        try:
            await admin.create_topic("orders")
        except riverrun.TopicExistsError:
            print("somebody was quicker")
    """


class OffsetOutOfRangeError(UsageError):
    """The offset cannot be read; `available` says what can.

    Example:
        try:
            async for record in client.consumer("orders", from_=riverrun.Offset(10**9)):
                print(record)
        except riverrun.OffsetOutOfRangeError as error:
            print(error.available)
    """


class DeserializationError(UsageError):
    """A record's key or value is not what the consumer was told that it is.

    The record is not stepped over: the position stays before it, its partition stops, and the others
    go on with the next call. `seek` brings it back, behind the record, or at it to read it once more,
    raw for example.

    Attributes:
        record: the record as it was read, key and value as bytes.
        part: which part of it was not taken, "key" or "value".

    Example:
        async with client.consumer(
            "orders", value_deserializer="json", stop_at_end=True
        ) as consumer:
            at_end = False
            while not at_end:
                try:
                    async for record in consumer:
                        print(record.value)
                    at_end = True
                except riverrun.DeserializationError as error:
                    print("not JSON:", error.record.value)
                    await consumer.seek(error.partition, error.offset + 1)
    """

    def __init__(self, message: str, *, record: Record, part: Literal["key", "value"]) -> None:
        super().__init__(message, reason=Reason.DESERIALIZATION_FAILED)
        self.record = record
        self.part: Literal["key", "value"] = part

    @property
    def partition(self) -> TopicPartition:
        """The record's partition."""
        return self.record.topic_partition

    @property
    def offset(self) -> int:
        """The record's offset."""
        return self.record.offset


class ClosedError(UsageError):
    """The object was closed.

    Example:
        await producer.close()
        try:
            await producer.send("orders", b"2 apples")
        except riverrun.ClosedError:
            print("too late")
    """


def _rebuilt(
    kind: type[RiverrunError], message: str, attributes: dict[str, object]
) -> RiverrunError:
    error = kind.__new__(kind, message)
    error.__dict__.update(attributes)
    return error
