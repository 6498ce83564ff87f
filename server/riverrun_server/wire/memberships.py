"""What a member is told of its membership and its partitions, as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2
from riverrun_server.core.reading.events import Assigned, Joined, Lost, MemberPartition, Revoking
from riverrun_server.core.reading.places import Position
from riverrun_server.wire.v1.frames_pb2 import StoredFrame

WritePosition = Callable[[Position], consumer_pb2.PartitionPosition]


def member(joined: Joined) -> consumer_pb2.Member:
    """Return whom a stream speaks for."""
    return consumer_pb2.Member(
        group_id=joined.group_id,
        member_id=joined.member_id,
        token=joined.token,
        session_timeout=_duration(joined.session_timeout_ms),
        revocation_timeout=_duration(joined.revocation_timeout_ms),
    )


def tell(
    frame: StoredFrame, event: Assigned | Revoking | Lost, write_position: WritePosition
) -> None:
    """Put into a message what a group has done to a member's partitions."""
    match event:
        case Assigned():
            frame.partitions_assigned.CopyFrom(_assigned(event, write_position))
        case Revoking(epoch, partitions):
            frame.partitions_revoking.CopyFrom(
                consumer_pb2.PartitionsRevoking(member_epoch=epoch, partitions=_named(partitions))
            )
        case Lost(epoch, partitions):
            frame.partitions_lost.CopyFrom(
                consumer_pb2.PartitionsLost(member_epoch=epoch, partitions=_named(partitions))
            )


def _assigned(event: Assigned, write_position: WritePosition) -> consumer_pb2.PartitionsAssigned:
    assigned = consumer_pb2.PartitionsAssigned(
        member_epoch=event.epoch, coming=_named(event.coming)
    )
    for topic, partition, assignment_epoch, position in event.partitions:
        one = assigned.partitions.add(assignment_epoch=assignment_epoch)
        if position is not None:
            one.position.CopyFrom(write_position(position))
        else:
            one.position.topic, one.position.topic_id = topic, partition.topic_id
            one.position.partition = partition.partition
    return assigned


def _named(partitions: Iterable[MemberPartition]) -> Iterator[consumer_pb2.TopicPartition]:
    for topic, partition in partitions:
        yield consumer_pb2.TopicPartition(
            topic=topic, topic_id=partition.topic_id, partition=partition.partition
        )


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration
