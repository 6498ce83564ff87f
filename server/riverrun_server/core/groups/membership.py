"""How members of one group come, come back, and go: which records that takes.

A member is spoken for by one stream at a time. Each new one raises the member's attachment, which is in
the log before anybody is told, and whoever speaks under a lower one is refused.
"""

from __future__ import annotations

import dataclasses
import enum
import hmac
from collections.abc import Iterable
from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import Group, MemberKey, StreamState
from riverrun_server.core.groups.group_changes import GroupChanges, removal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.joining import Join, Reattach, member_of
from riverrun_server.core.groups.members import MemberRecord, MemberValue, Record
from riverrun_server.core.log.batch import PartitionId


class Attached(NamedTuple):
    """What a stream is told that speaks for a member from now on.

    Attributes:
        member_id: the member.
        attachment: the stream's number, which everything that it says names.
        token: proves that another stream may take its place.
    """

    member_id: str
    attachment: int
    token: bytes


class Beat(enum.Enum):
    """What becomes of a beat."""

    OK = "the member has its whole session timeout again"
    UNKNOWN = "there is no such member, or its stream has ended"
    TAKEN_OVER = "another stream speaks for the member"


class Attaching(NamedTuple):
    """What an attach leads to.

    Attributes:
        record: to be appended.
        attached: the answer.
        over: the attachment whose stream is over with this; None where there was none.
    """

    record: MemberRecord
    attached: Attached
    over: int | None


def join(
    group: Group, wanted: Join, new_member_id: str, token: bytes, now_ms: int, limits: GroupsLimits
) -> Attaching:
    """Make a new member, or the one that the instance id stands for.

    The same id and token again are the same join, of which nobody knew what had become: it makes no
    second member, which would have partitions and nobody to read them.

    Raises:
        Refusal: INSTANCE_IN_USE, COORDINATOR_LOADING.
    """
    member_id = group.instances.get(wanted.instance_id, new_member_id)
    member = group.members.get(member_id)
    if member is None:
        value = member_of(wanted, 1, token, limits)
        return _attaching(group, member_id, value, None)
    if member_id == new_member_id or hmac.compare_digest(member.token, token):
        again = Reattach(member_id=member_id, token=token, address=wanted.address)
        return reattach(group, group.group_id, again)
    _check_not_held(group, wanted.instance_id, member_id, now_ms)
    over = member.attachment
    value = member_of(wanted, over + 1, token, limits)
    return _attaching(group, member_id, value, over)


def is_known(group: Group | None, wanted: Join, new_member_id: str) -> bool:
    """Return whether a join takes the place of a member that there is."""
    return group is not None and (
        wanted.instance_id in group.instances or new_member_id in group.members
    )


def reattach(group: Group | None, group_id: str, wanted: Reattach) -> Attaching:
    """Let another stream speak for a member.

    The token stays: where the answer to this is lost, it proves the next attempt, too. A gateway that goes on
    by itself may be the last to learn that the member has opened another stream, which is not taken over.

    Raises:
        Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
    """
    group, member = known(group, group_id, wanted.member_id)
    _check_token(member, group_id, wanted.member_id, wanted.token)
    _check_newest(member, group_id, wanted)
    value = dataclasses.replace(
        member,
        attachment=member.attachment + 1,
        address=wanted.address or member.address,
        is_away=False,
    )
    return _attaching(group, wanted.member_id, value, member.attachment)


def leave(group: Group, member_id: str, *, temporary: bool) -> list[Record]:
    """Let a member go for good; or, where it is an instance that will be back, for a moment."""
    member = group.members[member_id]
    if not (temporary and member.instance_id):
        return removal(group, member_id)
    if member.is_away:
        return []
    # Its stream is over, so what it was to give up is free with the next step.
    away = dataclasses.replace(member, is_away=True)
    return [MemberRecord(group.group_id, member_id, away)]


def revoked(
    group: Group, member_id: str, partitions: Iterable[PartitionId], epoch: int | None
) -> list[Record]:
    """Take from a member what it has given up; what it was not to give up stays its own.

    What it was given after the view that it answers to, it has not given up yet: this word is an old one.
    """
    has = group.assignments.get(member_id)
    revoking = has.revoking if has else {}
    given_up = {
        each
        for each in partitions
        if each in revoking and (epoch is None or revoking[each] <= epoch)
    }
    if not given_up:
        return []
    changes = GroupChanges(group)
    changes.release(member_id, given_up)
    return changes.records()


def beat(group: Group | None, member_id: str, attachment: int, now_ms: int) -> Beat:
    """Take note that a gateway has a live stream of a member."""
    member = group.members.get(member_id) if group else None
    if group is None or member is None or attachment > member.attachment:
        return Beat.UNKNOWN
    if attachment < member.attachment:
        return Beat.TAKEN_OVER
    presence = group.presence[member_id]
    if member.is_away or presence.stream is StreamState.DETACHED:
        return Beat.UNKNOWN
    presence.stream = StreamState.ATTACHED
    group.put_off(member_id, now_ms)
    return Beat.OK


def detached(group: Group | None, member_id: str, attachment: int) -> None:
    """Take note that a member's stream has ended without a leave; its time runs on."""
    member = group.members.get(member_id) if group else None
    if group is not None and member is not None and member.attachment == attachment:
        group.presence[member_id].stream = StreamState.DETACHED


def known(group: Group | None, group_id: str, member_id: str) -> tuple[Group, MemberValue]:
    """Return a group and a member of it.

    Raises:
        Refusal: UNKNOWN_MEMBER.
    """
    member = group.members.get(member_id) if group else None
    if group is None or member is None:
        raise unknown_member(group_id, member_id)
    return group, member


def speaking(
    group: Group | None, group_id: str, member_id: str, attachment: int | None
) -> tuple[Group, MemberValue]:
    """Return a group and the member of it for which a stream speaks.

    Raises:
        Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
    """
    group, member = known(group, group_id, member_id)
    if attachment is not None and attachment < member.attachment:
        raise taken_over(group_id, member_id, attachment, member.attachment)
    if attachment is not None and attachment > member.attachment:
        raise unknown_member(group_id, member_id)
    return group, member


def proven(group: Group | None, group_id: str, member_id: str, token: bytes) -> int:
    """Return the attachment of a member for which somebody without a stream of it speaks.

    Raises:
        Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER.
    """
    _, member = known(group, group_id, member_id)
    _check_token(member, group_id, member_id, token)
    return member.attachment


def unknown_member(group_id: str, member_id: str, why: str = "") -> Refusal:
    """Return the refusal where there is no such member, or not any more."""
    why = why or "it has left, was removed or was silent for too long"
    return Refusal(
        Reason.UNKNOWN_MEMBER,
        f"group {group_id!r} has no member {member_id[:80]!r}: {why}; start as a new member",
    )


def taken_over(group_id: str, member_id: str, attachment: int, newest: int) -> Refusal:
    """Return the refusal for a stream in whose place another one speaks."""
    return Refusal(
        Reason.MEMBER_TAKEN_OVER,
        f"stream {attachment} of member {member_id} of group {group_id!r} has been replaced by stream "
        f"{newest}; end it, and do not try again with this member id",
    )


def _attaching(group: Group, member_id: str, value: MemberValue, over: int | None) -> Attaching:
    record = MemberRecord(group.group_id, member_id, value)
    return Attaching(record, Attached(member_id, value.attachment, value.token), over)


def _check_token(member: MemberValue, group_id: str, member_id: str, token: bytes) -> None:
    if not hmac.compare_digest(member.token, token):
        raise Refusal(
            Reason.MEMBER_TAKEN_OVER,
            f"the token is not, or no longer, that of member {member_id} of group {group_id!r}: "
            "another process has taken its instance id; start as a new member",
        )


def _check_newest(member: MemberValue, group_id: str, wanted: Reattach) -> None:
    number = wanted.attachment
    if number is None or member.attachment <= number:
        return
    # An earlier try of the same, whose answer was lost, came from the same place.
    if wanted.address and member.address != wanted.address:
        raise taken_over(group_id, wanted.member_id, number, member.attachment)


def _check_not_held(group: Group, instance_id: str, member_id: str, now_ms: int) -> None:
    member, presence = group.members[member_id], group.presence[member_id]
    if member.is_away:
        return
    if presence.stream is StreamState.ATTACHED:
        until_ms = group.timers.sessions.get(MemberKey(group.group_id, member_id))
        assert until_ms is not None, member_id
        raise Refusal(
            Reason.INSTANCE_IN_USE,
            f"instance id {instance_id!r} of group {group.group_id!r} is that of member {member_id}, "
            f"which is at work from {member.address or 'an unknown address'}; give each instance its "
            f"own, or end that one (if it is dead, that is known in {max(until_ms - now_ms, 0)} ms)",
        )
    if presence.stream is StreamState.UNKNOWN and now_ms < presence.doubt_until_ms:
        raise Refusal(
            Reason.COORDINATOR_LOADING,
            f"whether instance id {instance_id!r} of group {group.group_id!r} is at work is known in "
            f"{presence.doubt_until_ms - now_ms} ms: its coordinator has just begun; ask again then",
        )
