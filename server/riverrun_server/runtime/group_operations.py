"""What operators ask of a coordinator, as it is carried out in a turn; see runtime/group_calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from riverrun_server.core.groups import group_views
from riverrun_server.core.groups.group import MemberKey, StreamState
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.groups.members import GroupValue, MemberValue
from riverrun_server.core.groups.membership import unknown_member
from riverrun_server.core.groups.offsets import CommittedOffsets, OffsetRecord
from riverrun_server.ports.coordination import (
    LISTED_MAX,
    GroupDescription,
    GroupListing,
    GroupPage,
    GroupQuery,
    MemberDescription,
    MemberName,
    MemberState,
)
from riverrun_server.runtime.call_queue import Act
from riverrun_server.runtime.group_calls import nothing
from riverrun_server.runtime.group_turn import Answer, Turn
from riverrun_server.runtime.member_feeds import MemberFeeds
from riverrun_server.runtime.resets import Resets


def describe(group_id: str, feeds: MemberFeeds) -> Act[GroupDescription]:
    """Tell everything about a group but its offsets."""

    def act(turn: Turn) -> Answer[GroupDescription]:
        found = turn.groups.operations.describe(group_id, turn.now_ms)
        value = _value(turn.groups, group_id)
        description = GroupDescription(
            found.listing.state,
            value.assignor if value else None,
            found.listing.epoch,
            [
                _member(member, feeds.gateway(MemberKey(group_id, member.member_id)))
                for member in found.members
            ],
        )
        return lambda: description

    return act


def list_groups(query: GroupQuery) -> Act[GroupPage]:
    """List groups by name, those that have only offsets included."""

    def act(turn: Turn) -> Answer[GroupPage]:
        page = _page(turn.groups, turn.offsets, query)
        return lambda: page

    return act


def remove_member(group_id: str, name: MemberName) -> Act[str]:
    """Throw a member out."""

    def act(turn: Turn) -> Answer[str]:
        member_id = name.member_id
        if not member_id:
            group = turn.groups.registry.get(group_id)
            found = group.instances.get(name.instance_id) if group else None
            if found is None:
                raise unknown_member(
                    group_id, name.instance_id, "nobody in it has this instance id"
                )
            member_id = found
        turn.write(turn.groups.remove_member(group_id, member_id))
        return lambda: member_id

    return act


def delete_group(group_id: str) -> Act[None]:
    """Delete a group that has no members, with its offsets; those are to be known."""

    def act(turn: Turn) -> Answer[None]:
        partitions = turn.offsets.committed(group_id)
        records = turn.groups.operations.delete_group(group_id, partitions)
        # What is last deletes the group.
        turn.store_each(group_id, [each for each in records if isinstance(each, OffsetRecord)])
        turn.write([each for each in records if not isinstance(each, OffsetRecord)])
        return nothing

    return act


def reset_offsets(
    group_id: str,
    records: Sequence[OffsetRecord],
    within_s: float,
    resets: Resets,
    done: asyncio.Future[None],
) -> Act[None]:
    """Have partitions given up and set their offsets; at once where nobody can have them.

    It answers `done` when it is written, and the call itself as soon as the partitions are held.
    """

    def act(turn: Turn) -> Answer[None]:
        groups = turn.groups
        if not groups.has_members(group_id):
            turn.store(group_id, records)
            turn.answer(done, nothing)
            return nothing
        until_ms = turn.now_ms + round(within_s * 1000)
        partitions = [record.partition for record in records]
        number = groups.operations.hold(group_id, partitions, until_ms)
        resets.add(group_id, number, records, done)
        return nothing

    return act


def _value(groups: Groups, group_id: str) -> GroupValue | None:
    group = groups.registry.get(group_id)
    return group.value if group else None


def _member(member: group_views.MemberDescription, gateway: int | None) -> MemberDescription:
    return MemberDescription(
        member.member_id,
        _said(member.value),
        _state(member),
        gateway,
        member.silent_in_ms,
        member.view,
        member.target,
    )


def _state(member: group_views.MemberDescription) -> MemberState:
    if member.value.is_away:
        return MemberState.AWAY
    if member.stream is StreamState.ATTACHED:
        return MemberState.ATTACHED
    return MemberState.DETACHED


def _said(value: MemberValue) -> Join:
    return Join(
        topics=value.topics,
        pattern=value.pattern,
        instance_id=value.instance_id,
        client_id=value.client_id,
        address=value.address,
        rack=value.rack,
        assignor=value.assignor,
        session_timeout_ms=value.session_timeout_ms,
        revocation_timeout_ms=value.revocation_timeout_ms,
    )


def _page(groups: Groups, offsets: CommittedOffsets, query: GroupQuery) -> GroupPage:
    names = sorted({*groups.registry.groups, *offsets.groups})
    limit = min(query.limit, LISTED_MAX)
    found: list[GroupListing] = []
    for name in names:
        if name <= query.after:
            continue
        listing = _listing(groups, name)
        if query.states and listing.state not in query.states:
            continue
        if len(found) == limit:
            return GroupPage(found, more=True)
        found.append(listing)
    return GroupPage(found, more=False)


def _listing(groups: Groups, name: str) -> GroupListing:
    group = groups.registry.get(name)
    if group is None:
        return GroupListing(name, GroupState.EMPTY, 0, None)
    listing = group_views.listing_of(group)
    assignor = group.value.assignor if group.value else None
    return GroupListing(name, listing.state, listing.members, assignor)
