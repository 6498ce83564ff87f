"""The streams of a gateway to all brokers that coordinate groups, apart from those of replication."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.joining import Reattach
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer import group_messages, member_messages
from riverrun_server.peer.attach_messages import attach_to_wire, attached_from_wire
from riverrun_server.peer.coordination_messages import (
    call_to_wire,
    records_to_wire,
    stored_from_wire,
    tell_to_wire,
    told_from_wire,
)
from riverrun_server.peer.coordinator_stream import CoordinatorStream, OpenCall, Parts
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.open_attach import OpenAttach
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import (
    Attached,
    BeatRefused,
    Detached,
    GroupDescription,
    GroupPage,
    GroupQuery,
    Home,
    Leave,
    MemberBeat,
    MemberCommit,
    MemberEvents,
    MemberName,
    NewMember,
    OffsetRefusals,
    Revoked,
)
from riverrun_server.ports.gateways import Origin

T = TypeVar("T")


class CoordinatorLinks:
    """Implements ports.coordinators.Coordinators.

    Nothing is connected before something is asked.

    Args:
        myself: introduces this broker.
    """

    def __init__(self, myself: Myself) -> None:
        self._myself = myself
        self._streams: dict[int, CoordinatorStream] = {}
        self._closing: set[asyncio.Task[None]] = set()
        # Until the member is detached, by group, member id and attachment.
        self._attached: dict[tuple[str, str, int], tuple[CoordinatorStream, OpenAttach]] = {}

    def reach(self, brokers: Mapping[int, str]) -> None:
        """Learn where the other brokers listen for each other, by id; streams to others end."""
        for broker, stream in [*self._streams.items()]:
            if brokers.get(broker) != stream.address:
                del self._streams[broker]
                closing = asyncio.create_task(stream.close(), name=f"leave coordinator {broker}")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        for broker, address in brokers.items():
            if address and broker not in self._streams and broker != self._myself.broker_id:
                self._streams[broker] = CoordinatorStream(broker, address, self._myself)

    async def close(self) -> None:
        """End all streams."""
        streams = list(self._streams.values())
        self._streams.clear()
        closing = [stream.close() for stream in streams]
        await asyncio.gather(*closing, *self._closing, return_exceptions=True)

    # Offsets.

    def commit(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Store offsets of a group; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.store.CopyFrom(wire.StoreOffsets(offsets=records_to_wire(records)))
        return self._ask(home, call, within_s, _nothing)

    def commit_for_member(
        self, home: Home, group_id: str, commit: MemberCommit, origin: Origin, within_s: float
    ) -> asyncio.Future[OffsetRefusals]:
        """Store offsets for a member; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.store_for_member.CopyFrom(member_messages.commit_to_wire(commit))
        return self._ask(home, call, within_s, lambda parts: stored_from_wire(parts[0].stored))

    async def committed(
        self,
        home: Home,
        group_id: str,
        origin: Origin,
        within_s: float,
        partitions: Collection[PartitionId] | None = None,
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.tell.CopyFrom(tell_to_wire(partitions))
        found = await self._ask(
            home, call, within_s, lambda parts: told_from_wire([each.told for each in parts])
        )
        if partitions is None:
            return found
        return {each: found[each] for each in partitions if each in found}

    # Members.

    def attach(
        self,
        home: Home,
        group_id: str,
        start: NewMember | Reattach,
        events: MemberEvents,
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[Attached]:
        """Let a stream at this broker speak for a member; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.attach.CopyFrom(attach_to_wire(start))
        stream = self._stream(home.leader)

        def given_up(attached: Attached) -> None:
            # Nobody speaks for it; its instance id is free at once.
            said = Detached(attached.member_id, attached.attachment)
            try:
                self.detached(home, group_id, said, origin, within_s)
            except Refusal:
                return  # it will be silent for too long

        opened = OpenAttach(events, given_up)

        def answer(parts: Parts) -> Attached:
            attached = attached_from_wire(parts[0].attached)
            key = (group_id, attached.member_id, attached.attachment)
            self._attached[key] = stream, opened
            opened.is_over_then(lambda: self._attached.pop(key, None))
            return attached

        return self._ask(home, call, within_s, answer, opened)

    def beat(
        self, home: Home, beats: Sequence[MemberBeat], within_s: float
    ) -> asyncio.Future[Sequence[BeatRefused]]:
        """Say that members are alive; see the port."""
        asked = []
        for said in member_messages.beats_to_wire(beats):
            call = call_to_wire(home, "", Origin())
            call.beat.CopyFrom(said)
            asked.append(self._ask(home, call, within_s, _beaten))
        return asyncio.ensure_future(_all_refused(asked))

    def revoked(
        self, home: Home, group_id: str, revoked: Revoked, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say what a member has given up; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.revoked.CopyFrom(member_messages.revoked_to_wire(revoked))
        return self._ask(home, call, within_s, _nothing)

    def leave(
        self, home: Home, group_id: str, leave: Leave, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that a member leaves; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.leave.CopyFrom(member_messages.leave_to_wire(leave))
        return self._ask(home, call, within_s, _nothing)

    def detached(
        self, home: Home, group_id: str, detached: Detached, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that the stream of a member has ended without a leave; see the port."""
        key = (group_id, detached.member_id, detached.attachment)
        if (found := self._attached.pop(key, None)) is not None:
            stream, opened = found
            stream.close_call(opened)
        call = call_to_wire(home, group_id, origin)
        call.detached.CopyFrom(member_messages.detached_to_wire(detached))
        return self._ask(home, call, within_s, _nothing)

    # Groups.

    def describe(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupDescription]:
        """Ask for everything about a group but its offsets; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.describe.CopyFrom(wire.DescribeGroup())
        return self._ask(home, call, within_s, _described)

    def list_groups(
        self, home: Home, query: GroupQuery, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupPage]:
        """Ask for groups of one partition of the offsets topic; see the port."""
        call = call_to_wire(home, "", origin)
        call.list.CopyFrom(group_messages.query_to_wire(query))
        return self._ask(
            home, call, within_s, lambda parts: group_messages.listed_from_wire(parts[0].listed)
        )

    def remove_member(
        self, home: Home, group_id: str, name: MemberName, origin: Origin, within_s: float
    ) -> asyncio.Future[str]:
        """Throw a member out; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.remove.CopyFrom(group_messages.remove_to_wire(name))
        return self._ask(home, call, within_s, lambda parts: parts[0].removed.member_id)

    def delete_group(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Delete a group that has no members; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.delete.CopyFrom(wire.DeleteGroup())
        return self._ask(home, call, within_s, _nothing)

    def reset_offsets(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Make a group go on elsewhere; see the port."""
        call = call_to_wire(home, group_id, origin)
        call.reset.CopyFrom(group_messages.reset_to_wire(records))
        return self._ask(home, call, within_s, _nothing)

    # Inside.

    def _ask(
        self,
        home: Home,
        call: wire.CoordinatorCall,
        within_s: float,
        answer: Callable[[Parts], T],
        opened: OpenCall | None = None,
    ) -> asyncio.Future[T]:
        """Ask, and make of the answer's parts what the caller wants to know."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        stream = self._stream(home.leader)

        def answered(asked: asyncio.Future[Parts]) -> None:
            error = None if asked.cancelled() else asked.exception()
            if asked.cancelled() or error is not None:
                if error is not None and not done.done():
                    done.set_exception(error)
                return
            if done.done():
                if opened is not None:
                    stream.close_call(opened)
                    opened.given_up(asked.result()[0])
                return
            try:
                done.set_result(answer(asked.result()))
            except InvalidMessage as invalid:
                done.set_exception(_cannot_be(home.leader, call.group_id, invalid))
                if opened is not None:
                    stream.close_call(opened)

        asked = stream.ask(call, within_s, opened)
        asked.add_done_callback(answered)
        # Whose caller is gone is not sent any more, if it has not been.
        done.add_done_callback(lambda _: asked.cancel())
        return done

    def _stream(self, broker: int) -> CoordinatorStream:
        stream = self._streams.get(broker)
        if stream is None:
            raise Refusal(
                Reason.NOT_READY,
                f"broker {broker}, which coordinates the group, has not said where it listens for other "
                "brokers; ask again",
            )
        return stream


async def _all_refused(
    asked: Sequence[asyncio.Future[Sequence[BeatRefused]]],
) -> Sequence[BeatRefused]:
    return [each for refused in await asyncio.gather(*asked) for each in refused]


def _beaten(parts: Parts) -> Sequence[BeatRefused]:
    return member_messages.beaten_from_wire(parts[0].beaten)


def _described(parts: Parts) -> GroupDescription:
    return group_messages.described_from_wire([each.described for each in parts])


def _nothing(_: Parts) -> None:
    return None


def _cannot_be(broker: int, group_id: str, invalid: InvalidMessage) -> Refusal:
    return Refusal(
        Reason.INTERNAL,
        f"broker {broker} told of group {group_id!r} what cannot be: {invalid}",
    )
