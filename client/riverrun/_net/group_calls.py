"""The calls about groups: list, describe, move, remove a member, delete."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from functools import partial
from typing import Literal

from riverrun._core.argument_checks import (
    INT32_MAX,
    INT64_MAX,
    check_group,
    check_seconds,
    check_topic,
    out_of_range,
    whole_number,
)
from riverrun._core.attempts import Attempts
from riverrun._core.group_descriptions import (
    GroupDescription,
    GroupInfo,
    GroupMember,
    GroupPartition,
    OffsetMove,
    Shift,
)
from riverrun._core.records import Time, TopicPartition
from riverrun._net.channel import Connection, Connections
from riverrun._net.describing import committed_offset, seconds
from riverrun._net.durations import duration
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, RiverrunError, UsageError
from riverrun.v1 import consumer_pb2
from riverrun.v1 import group_pb2 as pb

_log = logging.getLogger("riverrun")

State = Literal["empty", "reconciling", "stable", "unknown"]
Target = int | Literal["earliest", "latest"] | Time | Shift
Targets = (
    Mapping[str, Target] | Mapping[TopicPartition, Target] | Mapping[str | TopicPartition, Target]
)

_STATES: dict[int, State] = {
    pb.GROUP_STATE_EMPTY: "empty",
    pb.GROUP_STATE_RECONCILING: "reconciling",
    pb.GROUP_STATE_STABLE: "stable",
}
_MEMBER_STATES: dict[int, Literal["attached", "detached", "away", "unknown"]] = {
    pb.MEMBER_STATE_ATTACHED: "attached",
    pb.MEMBER_STATE_DETACHED: "detached",
    pb.MEMBER_STATE_AWAY: "away",
}
_ASSIGNORS: dict[int, str] = {
    consumer_pb2.ASSIGNOR_UNIFORM: "uniform",
    consumer_pb2.ASSIGNOR_RANGE: "range",
}
_NAMED = {"earliest": consumer_pb2.FROM_EARLIEST, "latest": consumer_pb2.FROM_LATEST}
_EXPECTED = 'an offset from 0, "earliest", "latest", Time(ms) or Shift(records)'


async def list_groups(connections: Connections, states: Iterable[str]) -> AsyncIterator[GroupInfo]:
    """Iterate over groups by name, a page at a time; coordinators that do not answer are warned of.

    Raises:
        UsageError: there is no such state.
        RiverrunError: no broker tells.
    """
    wanted = [_state(each) for each in states]
    token = ""
    warned = set[int]()
    while True:
        request = pb.ListGroupsRequest(page_token=token, states=wanted)
        send = partial(_list, request)
        answer = await connections.call(send, "list groups", attempts=Attempts(changes=False))
        for silent in answer.silent:
            if silent.partition not in warned:
                warned.add(silent.partition)
                _log.warning("groups are missing: %s", silent.error.message)
        for group in answer.groups:
            yield GroupInfo(
                group.group_id,
                _STATES.get(group.state, "unknown"),
                group.members,
                _ASSIGNORS.get(group.assignor, ""),
            )
        token = answer.next_page_token
        if not token:
            return


async def describe_group(connections: Connections, group: str) -> GroupDescription:
    """Tell everything about a group.

    Raises:
        UsageError: there is no such group (`Reason.GROUP_NOT_FOUND`).
        RiverrunError: its coordinator does not tell.
    """
    check_group(group)
    request = pb.DescribeGroupRequest(group_id=group)
    answer = await connections.call(
        lambda connection, timeout_s: connection.group.DescribeGroup(request, timeout=timeout_s),
        f"describe group {group}",
        attempts=Attempts(changes=False),
    )
    return GroupDescription(
        group=answer.group_id,
        state=_STATES.get(answer.state, "unknown"),
        assignor=_ASSIGNORS.get(answer.assignor, ""),
        epoch=answer.epoch,
        coordinator=answer.coordinator if answer.HasField("coordinator") else None,
        members=tuple(map(_member, answer.members)),
        partitions=tuple(map(_partition, answer.partitions)),
    )


async def reset_group(
    connections: Connections,
    group: str,
    targets: Targets,
    *,
    validate_only: bool,
    timeout_s: float,
) -> tuple[OffsetMove, ...]:
    """Have a group go on elsewhere, in everything that is named or in nothing.

    Raises:
        UsageError: a target is none, or members do not give way in time.
        RiverrunError: its coordinator does not do it.
    """
    check_group(group)
    check_seconds("timeout_s", timeout_s, above=True)
    if not isinstance(targets, Mapping) or not targets:
        raise out_of_range(
            "targets", targets, 'places by topic or partition, as {"orders": "earliest"}'
        )
    request = pb.ResetOffsetsRequest(
        group_id=group,
        targets=[_target(where, to) for where, to in targets.items()],
        validate_only=validate_only,
        timeout=duration(timeout_s),
    )
    # A shift that is made again would be one more.
    shifts = any(isinstance(to, Shift) for to in targets.values())
    answer = await connections.call(
        # What it may wait for members is beside the time of a call.
        lambda connection, left_s: connection.group.ResetOffsets(
            request, timeout=left_s + timeout_s
        ),
        f"reset the offsets of group {group}",
        idempotent=validate_only or not shifts,
        attempts=Attempts(changes=not validate_only),
    )
    return tuple(
        OffsetMove(
            move.topic,
            move.partition,
            move.old_offset if move.HasField("old_offset") else None,
            move.new_offset,
        )
        for move in answer.moves
    )


async def remove_member(
    connections: Connections, group: str, member_id: str | None, instance_id: str | None
) -> str:
    """Throw a member out of a group; return its id.

    Raises:
        UsageError: there is no such member, or not exactly one of both names is given.
        RiverrunError: its coordinator does not do it.
    """
    check_group(group)
    given = {"member_id": member_id, "instance_id": instance_id}
    named = {name: text for name, text in given.items() if text is not None}
    if len(named) != 1:
        raise UsageError(
            "name the member by member_id, or by instance_id", reason=Reason.INVALID_REQUEST
        )
    [(name, text)] = named.items()
    if not isinstance(text, str) or not text:
        raise out_of_range(name, text, "a name")
    request = pb.RemoveMemberRequest(group_id=group)
    setattr(request, name, text)
    attempts = Attempts()
    try:
        answer = await connections.call(
            lambda connection, timeout_s: connection.group.RemoveMember(request, timeout=timeout_s),
            f"remove member {text} of group {group}",
            # Who has an instance id may be somebody else by then.
            idempotent=member_id is not None,
            attempts=attempts,
        )
    except RiverrunError as error:
        # The attempt before, which had no answer, has done it.
        if member_id and attempts.doubtful and error.reason is Reason.UNKNOWN_MEMBER:
            return member_id
        raise
    return answer.member_id


async def delete_group(connections: Connections, group: str) -> None:
    """Delete a group that has no members, with everything that it has committed.

    Raises:
        UsageError: there is no such group, or it has members.
        RiverrunError: its coordinator does not do it.
    """
    check_group(group)
    request = pb.DeleteGroupRequest(group_id=group)
    attempts = Attempts()
    try:
        await connections.call(
            lambda connection, timeout_s: connection.group.DeleteGroup(request, timeout=timeout_s),
            f"delete group {group}",
            attempts=attempts,
        )
    except RiverrunError as error:
        # The attempt before, which had no answer, has done it.
        if error.reason is not Reason.GROUP_NOT_FOUND or not attempts.doubtful:
            raise


def _list(
    request: pb.ListGroupsRequest, connection: Connection, timeout_s: float
) -> Awaitable[pb.ListGroupsResponse]:
    return connection.group.ListGroups(request, timeout=timeout_s)


def _state(name: str) -> pb.GroupState.ValueType:
    if name not in _STATES.values():
        raise out_of_range("a state", name, " or ".join(f'"{each}"' for each in _STATES.values()))
    return pb.GroupState.Value(f"GROUP_STATE_{name.upper()}")


def _member(member: pb.MemberDescription) -> GroupMember:
    return GroupMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        address=member.address,
        rack=member.rack,
        topics=tuple(member.topics),
        topic_pattern=member.topic_pattern,
        state=_MEMBER_STATES.get(member.state, "unknown"),
        gateway=member.gateway if member.HasField("gateway") else None,
        session_timeout_s=seconds(member.session_timeout),
        session_left_s=seconds(member.session_left),
        revocation_timeout_s=seconds(member.revocation_timeout),
        epoch=member.epoch,
        owned=_places(member.owned),
        revoking=_places(member.revoking),
        coming=_places(member.coming),
    )


def _places(partitions: Iterable[consumer_pb2.TopicPartition]) -> tuple[TopicPartition, ...]:
    return tuple(TopicPartition(each.topic, each.partition) for each in partitions)


def _partition(found: pb.GroupPartition) -> GroupPartition:
    return GroupPartition(
        topic=found.topic,
        partition=found.partition,
        member_id=found.member_id,
        committed=committed_offset(found.committed) if found.HasField("committed") else None,
        log_start_offset=found.log_start_offset if found.HasField("log_start_offset") else None,
        high_watermark=found.high_watermark if found.HasField("high_watermark") else None,
        lag_records=found.lag_records if found.HasField("lag_records") else None,
        lag_s=seconds(found.lag_time) if found.HasField("lag_time") else None,
        error=from_proto(found.error).message if found.HasField("error") else "",
    )


def _target(where: str | TopicPartition, to: Target) -> pb.OffsetTarget:
    topic, partition = (where, None) if isinstance(where, str) else where
    check_topic(topic)
    if partition is not None:
        partition = whole_number("partition", partition, 0, INT32_MAX)
    target = pb.OffsetTarget(topic=topic, partition=partition)
    if isinstance(to, Time):
        target.time_ms = to.time_ms
    elif isinstance(to, Shift):
        target.shift = whole_number("Shift.records", to.records, -INT64_MAX)
    elif isinstance(to, str) and to in _NAMED:
        setattr(target, "from", _NAMED[to])
    elif isinstance(to, str):
        raise out_of_range("a target", to, _EXPECTED)
    else:
        target.offset = whole_number("an offset", to, 0, expected=_EXPECTED)
    return target
