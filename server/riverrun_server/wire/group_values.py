"""Committed offsets, groups and members as the values of records, each with its version."""

from __future__ import annotations

from typing import Final

from riverrun_server.core.groups.members import Assignor, GroupValue, MemberValue
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.wire.v1 import internal_records_pb2 as wire

_OFFSET_VERSION: Final = 0
_VERSION: Final = 1

_ASSIGNORS: Final = {
    None: wire.GROUP_ASSIGNOR_UNSPECIFIED,
    Assignor.UNIFORM: wire.GROUP_ASSIGNOR_UNIFORM,
    Assignor.RANGE: wire.GROUP_ASSIGNOR_RANGE,
}
_ASSIGNORS_BY_NUMBER: Final[dict[int, Assignor | None]] = {
    number: assignor for assignor, number in _ASSIGNORS.items()
}


class WrongValue(ValueError):
    """Bytes say what no version of the broker writes."""


class NewerVersion(ValueError):
    """Bytes say what only a newer version of the broker writes."""


def offset_bytes(value: CommittedOffset) -> bytes:
    """Return a committed offset as a serialised OffsetCommitValue."""
    return wire.OffsetCommitValue(
        offset=value.offset,
        leader_epoch=value.leader_epoch,
        metadata=value.metadata,
        commit_time_ms=value.commit_time_ms,
    ).SerializeToString()


def offset_from_bytes(data: bytes) -> CommittedOffset:
    """Return the committed offset that `offset_bytes` was given.

    Raises:
        google.protobuf.message.DecodeError, WrongValue, NewerVersion
    """
    value = wire.OffsetCommitValue.FromString(data)
    check_version("an offset", value.version, oldest=_OFFSET_VERSION, newest=_OFFSET_VERSION)
    return CommittedOffset(
        value.offset,
        value.leader_epoch if value.HasField("leader_epoch") else None,
        value.metadata,
        value.commit_time_ms,
    )


def group_bytes(value: GroupValue) -> bytes:
    """Return what is kept of a group as a serialised GroupValue."""
    return wire.GroupValue(
        version=_VERSION,
        epoch=value.epoch,
        assignor=_ASSIGNORS[value.assignor],
        emptied_at_ms=value.emptied_at_ms,
    ).SerializeToString()


def group_from_bytes(data: bytes) -> GroupValue:
    """Return what `group_bytes` was given.

    Raises:
        google.protobuf.message.DecodeError, WrongValue, NewerVersion
    """
    value = wire.GroupValue.FromString(data)
    check_version("a group", value.version, oldest=_VERSION, newest=_VERSION)
    check_counts("a group", epoch=value.epoch)
    assignor = _assignor(value.assignor)
    if assignor is None:
        raise WrongValue("a group has no assignor")
    return GroupValue(
        epoch=value.epoch,
        assignor=assignor,
        emptied_at_ms=value.emptied_at_ms if value.HasField("emptied_at_ms") else None,
    )


def member_bytes(value: MemberValue) -> bytes:
    """Return what is kept of a member as a serialised MemberValue."""
    return wire.MemberValue(
        version=_VERSION,
        instance_id=value.instance_id,
        client_id=value.client_id,
        address=value.address,
        topics=value.topics,
        pattern=value.pattern,
        rack=value.rack,
        assignor=_ASSIGNORS[value.assignor],
        session_timeout_ms=value.session_timeout_ms,
        revocation_timeout_ms=value.revocation_timeout_ms,
        attachment=value.attachment,
        token=value.token,
        is_away=value.is_away,
    ).SerializeToString()


def member_from_bytes(data: bytes) -> MemberValue:
    """Return what `member_bytes` was given.

    Raises:
        google.protobuf.message.DecodeError, WrongValue, NewerVersion
    """
    value = wire.MemberValue.FromString(data)
    check_version("a member", value.version, oldest=_VERSION, newest=_VERSION)
    check_counts(
        "a member",
        session_timeout_ms=value.session_timeout_ms,
        revocation_timeout_ms=value.revocation_timeout_ms,
        attachment=value.attachment,
    )
    return MemberValue(
        instance_id=value.instance_id,
        client_id=value.client_id,
        address=value.address,
        topics=tuple(value.topics),
        pattern=value.pattern,
        rack=value.rack,
        assignor=_assignor(value.assignor),
        session_timeout_ms=value.session_timeout_ms,
        revocation_timeout_ms=value.revocation_timeout_ms,
        attachment=value.attachment,
        token=value.token,
        is_away=value.is_away,
    )


def check_version(what: str, version: int, *, oldest: int, newest: int) -> None:
    """Check that a value is of a version that this broker knows.

    Raises:
        WrongValue, NewerVersion
    """
    if version > newest:
        raise NewerVersion(f"the value of {what} has version {version} and {newest} is known here")
    if version < oldest:
        raise WrongValue(f"the value of {what} has version {version}, which there has never been")


def check_counts(what: str, **counts: int) -> None:
    """Check that numbers are none below 0.

    Raises:
        WrongValue
    """
    for name, count in counts.items():
        if count < 0:
            raise WrongValue(f"{name} of {what} is {count}")


def _assignor(number: int) -> Assignor | None:
    if number not in _ASSIGNORS_BY_NUMBER:
        raise NewerVersion(f"it names the assignor {number}")
    return _ASSIGNORS_BY_NUMBER[number]
