"""What a gateway says of its members, who are alive or leave, as it stands on the wire, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from riverrun_server.core.errors import Reason
from riverrun_server.peer.attach_messages import (
    count,
    held_from_wire,
    held_to_wire,
    named,
)
from riverrun_server.peer.coordination_messages import (
    records_from_wire,
    records_to_wire,
    unknown_kind,
)
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import (
    BeatRefused,
    Detached,
    Leave,
    MemberBeat,
    MemberCommit,
    Revoked,
)

# Of one call; calls of others wait behind it.
_BEATS_BYTES: Final = 1 << 20
# Tags and lengths of a beat and of its group.
_BEAT_OVERHEAD_BYTES: Final = 32

_REASONS: Final = {reason.value: reason for reason in Reason}


def beats_to_wire(beats: Iterable[MemberBeat]) -> Iterator[wire.BeatMembers]:
    """Yield beats as calls say them: in one as long as it does not grow too large."""
    by_group: dict[str, list[MemberBeat]] = {}
    for beat in beats:
        by_group.setdefault(beat.group_id, []).append(beat)
    call, size = wire.BeatMembers(), 0
    for group_id, members in by_group.items():
        group: wire.GroupBeats | None = None
        for beat in members:
            if size > _BEATS_BYTES:
                yield call
                call, size, group = wire.BeatMembers(), 0, None
            if group is None:
                group = call.groups.add(group_id=group_id)
                size += len(group_id.encode())
            group.members.add(member_id=beat.member_id, attachment=beat.attachment)
            size += len(beat.member_id.encode()) + _BEAT_OVERHEAD_BYTES
    if call.groups:
        yield call


def beats_from_wire(call: wire.BeatMembers) -> list[MemberBeat]:
    """Return which members are alive.

    Raises:
        InvalidMessage
    """
    return [
        MemberBeat(group.group_id, named(each.member_id), count(each.attachment))
        for group in call.groups
        for each in group.members
    ]


def beaten_to_wire(call_id: int, refused: Iterable[BeatRefused]) -> wire.CoordinatorAnswer:
    """Return which beats did not count."""
    taken = wire.BeatsTaken()
    by_group: dict[str, wire.GroupBeatsRefused] = {}
    for (group_id, member_id, attachment), reason in refused:
        group = by_group.get(group_id)
        if group is None:
            group = by_group[group_id] = taken.refused.add(group_id=group_id)
        group.members.add(member_id=member_id, attachment=attachment, reason=reason.value)
    return wire.CoordinatorAnswer(call_id=call_id, beaten=taken)


def beaten_from_wire(taken: wire.BeatsTaken) -> list[BeatRefused]:
    """Return which beats did not count; a reason that is not known here is INTERNAL.

    Raises:
        InvalidMessage
    """
    return [
        BeatRefused(
            MemberBeat(group.group_id, named(each.member_id), count(each.attachment)),
            _REASONS.get(each.reason, Reason.INTERNAL),
        )
        for group in taken.refused
        for each in group.members
    ]


def revoked_to_wire(revoked: Revoked) -> wire.MemberRevoked:
    """Return what a member has given up."""
    return wire.MemberRevoked(
        member_id=revoked.member_id,
        attachment=revoked.attachment,
        partitions=held_to_wire(revoked.partitions),
    )


def revoked_from_wire(revoked: wire.MemberRevoked) -> Revoked:
    """Return what a member has given up.

    Raises:
        InvalidMessage
    """
    return Revoked(
        member_id=named(revoked.member_id),
        attachment=count(revoked.attachment),
        partitions=held_from_wire(revoked.partitions),
    )


def leave_to_wire(leave: Leave) -> wire.LeaveGroup:
    """Return that a member leaves."""
    said = wire.LeaveGroup(member_id=leave.member_id, temporary=leave.temporary)
    if isinstance(leave.proof, bytes):
        said.token = leave.proof
    else:
        said.attachment = leave.proof
    return said


def leave_from_wire(leave: wire.LeaveGroup) -> Leave:
    """Return that a member leaves.

    Raises:
        InvalidMessage
        Refusal: INVALID_REQUEST, for what only a newer version asks.
    """
    proof: int | bytes
    match leave.WhichOneof("proof"):
        case "attachment":
            proof = count(leave.attachment)
        case "token":
            proof = leave.token
        case _:
            raise unknown_kind()
    return Leave(member_id=named(leave.member_id), proof=proof, temporary=leave.temporary)


def detached_to_wire(detached: Detached) -> wire.MemberDetached:
    """Return that a member's stream has ended."""
    return wire.MemberDetached(member_id=detached.member_id, attachment=detached.attachment)


def detached_from_wire(detached: wire.MemberDetached) -> Detached:
    """Return whose stream has ended.

    Raises:
        InvalidMessage
    """
    return Detached(member_id=named(detached.member_id), attachment=count(detached.attachment))


def commit_to_wire(commit: MemberCommit) -> wire.StoreMemberOffsets:
    """Return offsets that a member commits."""
    return wire.StoreMemberOffsets(
        member_id=commit.member_id,
        attachment=commit.attachment,
        member_epoch=commit.epoch,
        offsets=records_to_wire(commit.records),
    )


def commit_from_wire(group_id: str, commit: wire.StoreMemberOffsets) -> MemberCommit:
    """Return offsets that a member commits.

    Raises:
        InvalidMessage
    """
    return MemberCommit(
        member_id=named(commit.member_id),
        attachment=count(commit.attachment) if commit.HasField("attachment") else None,
        epoch=count(commit.member_epoch),
        records=records_from_wire(group_id, commit.offsets),
    )
