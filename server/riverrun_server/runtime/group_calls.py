"""What members and operators ask of a coordinator, as it is carried out in a turn.

Each of these returns what does it: it looks at the groups, writes records, and says what the answer will be
once they are committed. What is wrong is refused before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from riverrun_server.core.errors import Reason
from riverrun_server.core.groups.group import MemberKey
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.joining import Reattach
from riverrun_server.core.groups.membership import Beat
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.ports.coordination import (
    Attached,
    BeatRefused,
    Detached,
    Leave,
    MemberBeat,
    MemberCommit,
    MemberEvents,
    NewMember,
    OffsetRefusals,
    Revoked,
)
from riverrun_server.runtime.call_queue import Act
from riverrun_server.runtime.group_turn import Answer, Turn
from riverrun_server.runtime.member_feeds import MemberFeeds

_NOTHING = MemberView(0, {}, {})
_BEAT_REASONS = {
    Beat.UNKNOWN: Reason.UNKNOWN_MEMBER,
    Beat.TAKEN_OVER: Reason.MEMBER_TAKEN_OVER,
}


# What a record of an offset takes beside its texts, rather too much than too little.
_RECORD_BYTES = 100


def size_of(records: Sequence[OffsetRecord]) -> int:
    """Return how many bytes offsets take in the log, rather too many than too few."""
    return sum(
        _RECORD_BYTES
        + len(record.group_id.encode())
        + (len(record.value.metadata.encode()) if record.value else 0)
        for record in records
    )


def store(group_id: str, records: Sequence[OffsetRecord]) -> Act[None]:
    """Store offsets for nobody in particular; refused with GROUP_HAS_MEMBERS while there are some."""

    def act(turn: Turn) -> Answer[None]:
        turn.groups.check_commit(group_id, None, None, 0, ())
        turn.store(group_id, records)
        return nothing

    return act


def store_for_member(group_id: str, commit: MemberCommit) -> Act[OffsetRefusals]:
    """Store those offsets that a member may commit, all or none."""

    def act(turn: Turn) -> Answer[OffsetRefusals]:
        refused = turn.groups.check_commit(
            group_id,
            commit.member_id,
            commit.attachment,
            commit.epoch,
            [record.partition for record in commit.records],
        )
        turn.store(group_id, [each for each in commit.records if each.partition not in refused])
        return lambda: refused

    return act


def attach(
    group_id: str,
    start: NewMember | Reattach,
    gateway: int,
    events: MemberEvents,
    feeds: MemberFeeds,
    done: asyncio.Future[Attached],
) -> Act[Attached]:
    """Let a stream speak for a member; what it has is told from when that is committed."""

    def act(turn: Turn) -> Answer[Attached]:
        groups = turn.groups
        if isinstance(start, NewMember):
            wanted, member_id, token = start.said, start.member_id, start.token
            records, told = groups.attach(group_id, wanted, turn.now_ms, member_id, token)
        else:
            records, told = groups.attach(group_id, start, turn.now_ms, "", b"")
        turn.write(records)
        member = MemberKey(group_id, told.member_id)
        value = groups.registry.groups[group_id].members[told.member_id]

        def answer() -> Attached:
            feeds.open(member, told.attachment, gateway, events)
            return Attached(
                told.member_id,
                told.attachment,
                told.token,
                value.session_timeout_ms,
                value.revocation_timeout_ms,
                # Whoever was removed in the same turn is told so next.
                groups.view(*member) or _NOTHING,
            )

        def given_up(done: asyncio.Future[Attached]) -> None:
            # Nobody is there to speak for the member; whoever has its instance id may take its place.
            if done.cancelled():
                groups.detached(group_id, told.member_id, told.attachment)

        done.add_done_callback(given_up)
        return answer

    return act


def revoked(group_id: str, said: Revoked) -> Act[None]:
    """Take from a member what it has given up, where it still is what it was asked to."""

    def act(turn: Turn) -> Answer[None]:
        groups = turn.groups
        view = groups.view(group_id, said.member_id)
        revoking = view.revoking if view else {}
        # What it was given anew since it was asked, it has not given up.
        meant = [each for each, epoch in said.partitions.items() if revoking.get(each) == epoch]
        turn.write(groups.revoked(group_id, said.member_id, said.attachment, meant))
        return nothing

    return act


def leave(group_id: str, said: Leave) -> Act[None]:
    """Let a member go, for good or for a moment."""

    def act(turn: Turn) -> Answer[None]:
        groups, proof = turn.groups, said.proof
        attachment = (
            proof
            if isinstance(proof, int)
            else groups.attachment_of(group_id, said.member_id, proof)
        )
        turn.write(
            groups.leave(
                group_id, said.member_id, attachment, turn.now_ms, temporary=said.temporary
            )
        )
        return nothing

    return act


def detached(group_id: str, said: Detached) -> Act[None]:
    """Take note that a stream has ended without a leave."""

    def act(turn: Turn) -> Answer[None]:
        turn.groups.detached(group_id, said.member_id, said.attachment)
        return nothing

    return act


def take_beats(groups: Groups, beats: Sequence[MemberBeat], now_ms: int) -> list[BeatRefused]:
    """Take note of members that are alive, at once; return those whose beats did not count."""
    found = groups.beat(
        [(each.group_id, each.member_id, each.attachment) for each in beats], now_ms
    )
    return [
        BeatRefused(each, _BEAT_REASONS[beat])
        for each, beat in zip(beats, found, strict=True)
        if beat is not Beat.OK
    ]


def nothing() -> None:
    """Answer that it is done."""
