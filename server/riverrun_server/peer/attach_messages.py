"""How a stream begins to speak for a member, and what the member has, as it stands on the wire, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.coordination_messages import partition_from_wire, unknown_kind
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import Attached, NewMember

ASSIGNORS: Final = {
    None: wire.PARTITION_ASSIGNOR_UNSPECIFIED,
    Assignor.UNIFORM: wire.PARTITION_ASSIGNOR_UNIFORM,
    Assignor.RANGE: wire.PARTITION_ASSIGNOR_RANGE,
}
ASSIGNORS_BY_NUMBER: Final[dict[int, Assignor | None]] = {
    number: assignor for assignor, number in ASSIGNORS.items()
}


def attach_to_wire(start: NewMember | Reattach) -> wire.AttachMember:
    """Return how a stream begins to speak for a member."""
    match start:
        case NewMember():
            new = wire.NewMember(
                member_id=start.member_id, token=start.token, said=join_to_wire(start.said)
            )
            return wire.AttachMember(join=new)
        case Reattach():
            known = wire.ReattachMember(
                member_id=start.member_id,
                token=start.token,
                address=start.address,
                attachment=start.attachment,
            )
            return wire.AttachMember(reattach=known)


def attach_from_wire(attach: wire.AttachMember) -> NewMember | Reattach:
    """Return how a stream wants to speak for a member.

    Raises:
        InvalidMessage
        Refusal: INVALID_REQUEST, for what only a newer version asks.
    """
    match attach.WhichOneof("start"):
        case "join":
            new = attach.join
            if new.said.assignor not in ASSIGNORS_BY_NUMBER:
                raise unknown_kind()
            return NewMember(
                member_id=named(new.member_id), token=new.token, said=join_from_wire(new.said)
            )
        case "reattach":
            known = attach.reattach
            return Reattach(
                member_id=named(known.member_id),
                token=known.token,
                address=known.address,
                attachment=known.attachment if known.HasField("attachment") else None,
            )
        case _:
            raise unknown_kind()


def join_to_wire(join: Join) -> wire.JoinGroup:
    """Return what a process says of itself."""
    return wire.JoinGroup(
        topics=join.topics,
        pattern=join.pattern,
        instance_id=join.instance_id,
        client_id=join.client_id,
        address=join.address,
        rack=join.rack,
        assignor=ASSIGNORS[join.assignor],
        session_timeout_ms=join.session_timeout_ms,
        revocation_timeout_ms=join.revocation_timeout_ms,
    )


def join_from_wire(join: wire.JoinGroup) -> Join:
    """Return what a process has said of itself; an assignor that is not known here is whichever."""
    has = join.HasField
    return Join(
        topics=tuple(join.topics),
        pattern=join.pattern,
        instance_id=join.instance_id,
        client_id=join.client_id,
        address=join.address,
        rack=join.rack,
        assignor=ASSIGNORS_BY_NUMBER.get(join.assignor),
        session_timeout_ms=join.session_timeout_ms if has("session_timeout_ms") else None,
        revocation_timeout_ms=join.revocation_timeout_ms if has("revocation_timeout_ms") else None,
    )


def attached_to_wire(call_id: int, attached: Attached) -> wire.CoordinatorAnswer:
    """Return that a stream speaks for a member."""
    said = wire.Attached(
        member_id=attached.member_id,
        attachment=attached.attachment,
        token=attached.token,
        session_timeout_ms=attached.session_timeout_ms,
        revocation_timeout_ms=attached.revocation_timeout_ms,
        view=view_to_wire(attached.view),
    )
    return wire.CoordinatorAnswer(call_id=call_id, attached=said)


def attached_from_wire(attached: wire.Attached) -> Attached:
    """Return for which member a stream speaks.

    Raises:
        InvalidMessage
    """
    return Attached(
        member_id=named(attached.member_id),
        attachment=count(attached.attachment),
        token=attached.token,
        session_timeout_ms=count(attached.session_timeout_ms),
        revocation_timeout_ms=count(attached.revocation_timeout_ms),
        view=view_from_wire(attached.view),
    )


def view_changed_to_wire(call_id: int, view: MemberView) -> wire.CoordinatorAnswer:
    """Return that a member has something else now."""
    return wire.CoordinatorAnswer(call_id=call_id, view_changed=view_to_wire(view))


def view_to_wire(view: MemberView) -> wire.MemberView:
    """Return what a member has."""
    return wire.MemberView(
        epoch=view.epoch, owned=held_to_wire(view.owned), revoking=held_to_wire(view.revoking)
    )


def view_from_wire(view: wire.MemberView) -> MemberView:
    """Return what a member has.

    Raises:
        InvalidMessage
    """
    owned, revoking = held_from_wire(view.owned), held_from_wire(view.revoking)
    if both := owned.keys() & revoking.keys():
        raise InvalidMessage(f"a member owns {min(both)} and is to give it up")
    return MemberView(epoch=count(view.epoch), owned=owned, revoking=revoking)


def held_to_wire(held: Mapping[PartitionId, int]) -> Iterable[wire.HeldPartitions]:
    """Return partitions with the epochs in which they were given, those that are alike together."""
    alike: dict[tuple[bytes, int], wire.HeldPartitions] = {}
    for (topic_id, partition), epoch in sorted(held.items()):
        together = alike.get((topic_id, epoch))
        if together is None:
            together = wire.HeldPartitions(topic_id=topic_id, assignment_epoch=epoch)
            alike[topic_id, epoch] = together
        together.partitions.append(partition)
    return alike.values()


def held_from_wire(held: Iterable[wire.HeldPartitions]) -> dict[PartitionId, int]:
    """Return partitions with the epochs in which they were given.

    Raises:
        InvalidMessage
    """
    found: dict[PartitionId, int] = {}
    for together in held:
        epoch = count(together.assignment_epoch)
        for number in together.partitions:
            partition = partition_from_wire(together.topic_id, number)
            if partition in found:
                raise InvalidMessage(f"{partition} is named twice")
            found[partition] = epoch
    return found


def named(member_id: str) -> str:
    """Return the id of a member.

    Raises:
        InvalidMessage: it is empty.
    """
    if not member_id:
        raise InvalidMessage("a message is about a member and does not name it")
    return member_id


def count(number: int) -> int:
    """Return a number that is none below 0.

    Raises:
        InvalidMessage: it is.
    """
    if number < 0:
        raise InvalidMessage(f"a message about a member counts {number}")
    return number
