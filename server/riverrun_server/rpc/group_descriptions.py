"""What GroupService tells of groups and members, as messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2, group_pb2
from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import GroupDescription, MemberDescription, MemberState
from riverrun_server.ports.partitions import Directory

STATES: Final = {
    None: group_pb2.GROUP_STATE_UNSPECIFIED,
    GroupState.EMPTY: group_pb2.GROUP_STATE_EMPTY,
    GroupState.RECONCILING: group_pb2.GROUP_STATE_RECONCILING,
    GroupState.STABLE: group_pb2.GROUP_STATE_STABLE,
}
STATES_BY_NUMBER: Final[Mapping[int, GroupState]] = {
    number: state for state, number in STATES.items() if state is not None
}
ASSIGNORS: Final = {
    None: consumer_pb2.ASSIGNOR_UNSPECIFIED,
    Assignor.UNIFORM: consumer_pb2.ASSIGNOR_UNIFORM,
    Assignor.RANGE: consumer_pb2.ASSIGNOR_RANGE,
}
_MEMBER_STATES: Final = {
    None: group_pb2.MEMBER_STATE_UNSPECIFIED,
    MemberState.ATTACHED: group_pb2.MEMBER_STATE_ATTACHED,
    MemberState.DETACHED: group_pb2.MEMBER_STATE_DETACHED,
    MemberState.AWAY: group_pb2.MEMBER_STATE_AWAY,
}


def member(described: MemberDescription, directory: Directory) -> group_pb2.MemberDescription:
    """Return what is told of a member."""
    said, view = described.said, described.view
    message = group_pb2.MemberDescription(
        member_id=described.member_id,
        instance_id=said.instance_id,
        client_id=said.client_id,
        address=said.address,
        rack=said.rack,
        topics=said.topics,
        topic_pattern=said.pattern,
        assignor=ASSIGNORS[said.assignor],
        state=_MEMBER_STATES[described.state],
        gateway=described.gateway,
        session_left=duration(described.session_left_ms),
        epoch=view.epoch,
        owned=_named(view.owned, directory),
        revoking=_named(view.revoking, directory),
        coming=_named(described.target - view.owned.keys(), directory),
    )
    if said.session_timeout_ms is not None:
        message.session_timeout.CopyFrom(duration(said.session_timeout_ms))
    if said.revocation_timeout_ms is not None:
        message.revocation_timeout.CopyFrom(duration(said.revocation_timeout_ms))
    return message


def holders(described: GroupDescription) -> dict[PartitionId, str]:
    """Return which member has each partition, those that it is to give up included."""
    return {
        partition: member.member_id
        for member in described.members
        for partition in (*member.view.owned, *member.view.revoking)
    }


def duration(milliseconds: int) -> Duration:
    """Return a time as a message."""
    message = Duration()
    message.FromMilliseconds(milliseconds)
    return message


def _named(
    partitions: Iterable[PartitionId], directory: Directory
) -> Iterator[consumer_pb2.TopicPartition]:
    for partition in sorted(partitions):
        yield consumer_pb2.TopicPartition(
            topic=topic_of(partition, directory),
            topic_id=partition.topic_id,
            partition=partition.partition,
        )


def topic_of(partition: PartitionId, directory: Directory) -> str:
    """Return the name of a partition's topic; empty where it is not there any more."""
    try:
        return directory.partition("", partition.topic_id, partition.partition).topic
    except Refusal:
        return ""
