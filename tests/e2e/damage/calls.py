"""What a client asks of a broker whose data may be damaged, by stubs alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import grpc

from riverrun._net.failures import error_detail
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import (
    FROM_COMMITTED,
    CommitOffsetRequest,
    FetchOffsetsRequest,
    FetchRequest,
    OffsetCommit,
    ReadRequest,
    StartPosition,
    SubscribeRequest,
    SubscribeStart,
    TopicPartition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.errors_pb2 import Error
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record

GROUP = "readers"
CALL_TIMEOUT_S = 20.0
# `from` is a word of Python's.
_COMMITTED = {"from": FROM_COMMITTED}


class Place(NamedTuple):
    """A partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return its name as brokers write it."""
        return f"{self.topic}-{self.partition}"


class Found(NamedTuple):
    """What a reader was given.

    Attributes:
        records: (offset, value) in the order in which they came.
        error: what ended it, or None.
    """

    records: list[tuple[int, bytes]]
    error: Error | None


class Calls:
    """The calls of one client."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.admin = AdminServiceStub(channel)
        self.consumer = ConsumerServiceStub(channel)
        self.producer = ProducerServiceStub(channel)

    def produce(self, place: Place, values: list[bytes]) -> int | Error:
        """Write one batch; return its offset, or why it is refused."""
        records = [Record(value=value) for value in values]
        request = ProduceRequest(**place._asdict(), records=records)
        try:
            answer = self.producer.Produce(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as failure:
            return _detail(failure)
        (result,) = answer.results
        return result.error if result.HasField("error") else result.base_offset

    def last_epoch(self, place: Place) -> int:
        """Return the leader epoch of the last record of a partition."""
        request = ReadRequest(**place._asdict(), from_last=1, stop_at_end=True)
        frames = self.consumer.Read(request, timeout=CALL_TIMEOUT_S)
        return [each.delivery.leader_epoch for each in frames if each.HasField("delivery")][-1]

    def read(self, place: Place, offset: int = 0, epoch: int | None = None) -> Found:
        """Read to the end by `Read`."""
        position = StartPosition(**place._asdict(), offset=offset, leader_epoch=epoch)
        return self._read(ReadRequest(positions=[position], stop_at_end=True))

    def read_committed(self, place: Place) -> Found:
        """Read to the end from where the group has committed."""
        position = StartPosition(**place._asdict(), **_COMMITTED)
        return self._read(ReadRequest(positions=[position], group_id=GROUP, stop_at_end=True))

    def subscribe(self, place: Place, offset: int, epoch: int | None) -> Found:
        """Read to the end by `Subscribe`."""
        position = StartPosition(**place._asdict(), offset=offset, leader_epoch=epoch)
        start = SubscribeStart(positions=[position], stop_at_end=True)
        requests = iter([SubscribeRequest(start=start)])
        return _collected(self.consumer.Subscribe(requests, timeout=CALL_TIMEOUT_S))

    def fetch(self, place: Place, offset: int, epoch: int | None = None) -> Found:
        """Read some by `Fetch`."""
        position = StartPosition(**place._asdict(), offset=offset, leader_epoch=epoch)
        answer = self.consumer.Fetch(FetchRequest(positions=[position]), timeout=CALL_TIMEOUT_S)
        records = [(each.offset, each.value) for d in answer.deliveries for each in d.records]
        return Found(records, answer.errors[0].error if answer.errors else None)

    def commit(self, commits: Mapping[Place, tuple[int, int]]) -> None:
        """Commit (offset, leader epoch) for the group."""
        offsets = [
            OffsetCommit(**place._asdict(), offset=offset, leader_epoch=epoch)
            for place, (offset, epoch) in commits.items()
        ]
        request = CommitOffsetRequest(group_id=GROUP, offsets=offsets)
        results = self.consumer.CommitOffset(request, timeout=CALL_TIMEOUT_S).results
        assert not any(result.HasField("error") for result in results), results

    def committed(self, place: Place) -> int | Error | None:
        """Return what the group has committed, None for nothing, or why that is not known."""
        request = FetchOffsetsRequest(
            group_id=GROUP, partitions=[TopicPartition(**place._asdict())]
        )
        try:
            (found,) = self.consumer.FetchOffsets(request, timeout=CALL_TIMEOUT_S).offsets
        except grpc.RpcError as failure:
            return _detail(failure)
        match found.WhichOneof("state"):
            case "committed":
                return found.committed.offset
            case "none":
                return None
            case _:
                return found.error

    def _read(self, request: ReadRequest) -> Found:
        return _collected(self.consumer.Read(request, timeout=CALL_TIMEOUT_S))


@contextlib.contextmanager
def calling(broker: object) -> Iterator[Calls]:
    """Connect to a running broker."""
    with grpc.insecure_channel(broker.address) as channel:
        yield Calls(channel)


def _collected(frames: Iterator[object]) -> Found:
    records: list[tuple[int, bytes]] = []
    try:
        for frame in frames:
            records += [(each.offset, each.value) for each in frame.delivery.records]
            if frame.HasField("partition_error"):
                return Found(records, frame.partition_error.error)
            if frame.HasField("position_reset"):
                return Found(records, frame.position_reset.cause)
    except grpc.RpcError as failure:
        return Found(records, _detail(failure))
    return Found(records, None)


def _detail(failure: grpc.RpcError) -> Error:
    """Return what the broker said.

    Raises:
        grpc.RpcError: it said nothing.
    """
    error = error_detail(failure)
    if error is None:
        raise failure
    return error
