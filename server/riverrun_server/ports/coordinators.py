"""Coordinators of groups: what this broker does as one, and how others are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from riverrun_server.core.groups.joining import Reattach
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
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


class Coordinating(Protocol):
    """This broker, as the coordinator of the groups whose partition of the offsets topic it leads.

    What is asked takes effect in the order in which it is asked. Every method raises, and every future
    may have, NOT_LEADER, COORDINATOR_LOADING, FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH, with which
    nothing happened, and a reason that is not definite where nobody knows what became of an append.
    `leader_epoch` is that in which a caller on another broker believes this one to lead; None is whichever.
    A future that its caller cancels may or may not have had an effect.
    """

    def commit(
        self,
        home: PartitionId,
        group_id: str,
        records: Sequence[OffsetRecord],
        leader_epoch: int | None = None,
    ) -> asyncio.Future[None]:
        """Store offsets for nobody in particular, all or none; the future says when they are committed.

        Raises:
            Refusal: OVERLOADED, LIMIT_EXCEEDED; the future also has GROUP_HAS_MEMBERS.
        """
        ...

    async def committed(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed.

        Raises:
            Refusal
        """
        ...

    def attach(
        self,
        home: PartitionId,
        group_id: str,
        start: NewMember | Reattach,
        gateway: int,
        events: MemberEvents,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[Attached]:
        """Let a stream at broker `gateway` speak for a member, once that is committed.

        `events` is called from when the future is done, also before whoever awaits it has run, until it was
        told the end, or the stream was `detached` or has left. Where the caller cancels the future nothing
        is told.

        Raises:
            Refusal: OVERLOADED; the future has what core/groups raises.
        """
        ...

    def beat(
        self, home: PartitionId, beats: Sequence[MemberBeat], leader_epoch: int | None = None
    ) -> asyncio.Future[Sequence[BeatRefused]]:
        """Take note of members that are alive; the future has those whose beats did not count.

        It is done only once this broker has made sure that it still led the partition when it took the
        beats: a deposed coordinator must not prolong the lease of anybody.
        """
        ...

    def revoked(
        self, home: PartitionId, group_id: str, revoked: Revoked, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Take from a member what it has given up; done once that is committed."""
        ...

    def leave(
        self, home: PartitionId, group_id: str, leave: Leave, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Let a member go; done once its partitions are free."""
        ...

    def detached(
        self, home: PartitionId, group_id: str, detached: Detached, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Take note that the stream of a member has ended without a leave."""
        ...

    def commit_for_member(
        self,
        home: PartitionId,
        group_id: str,
        commit: MemberCommit,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[OffsetRefusals]:
        """Store offsets for a member, all that are not refused or none; done once they are committed."""
        ...

    def describe(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> asyncio.Future[GroupDescription]:
        """Tell everything about a group but its offsets; the future may have GROUP_NOT_FOUND."""
        ...

    def list_groups(
        self, home: PartitionId, query: GroupQuery, leader_epoch: int | None = None
    ) -> asyncio.Future[GroupPage]:
        """List groups of one partition of the offsets topic, those that have only offsets included."""
        ...

    def remove_member(
        self, home: PartitionId, group_id: str, name: MemberName, leader_epoch: int | None = None
    ) -> asyncio.Future[str]:
        """Throw a member out; the future has its id once its partitions are free."""
        ...

    def delete_group(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Delete a group that has no members; the future may have GROUP_HAS_MEMBERS, GROUP_NOT_FOUND."""
        ...

    def reset_offsets(
        self,
        home: PartitionId,
        group_id: str,
        records: Sequence[OffsetRecord],
        within_s: float,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[None]:
        """Have partitions given up, set their offsets, and give them again; a group without members, too.

        Where they are not given up within `within_s` nothing is written, they go back to where they
        were, and the future has CONFLICT.
        """
        ...


class Coordinators(Protocol):
    """Other brokers, as those that coordinate groups.

    What is asked of one broker arrives in the order in which it was asked, or not at all: nothing of
    an earlier call can take effect behind a later one, also where the earlier one was given up. What
    arrives later than `within_s` is passed over. All raise OVERLOADED, LIMIT_EXCEEDED and NOT_READY, and
    every future may also have InDoubt (the stream between the brokers ended: what was asked has happened,
    or will before anything that is asked from now on, or never), NOT_READY (the broker was not
    reached), and what `Coordinating` says.
    """

    def commit(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Store offsets of a group, all or none; the future says when they are committed.

        Args:
            home: of the group.
            group_id: the group.
            records: of this group.
            origin: who asks.
            within_s: how long the caller waits; what arrives later than that is passed over.

        Raises:
            Refusal: OVERLOADED, LIMIT_EXCEEDED. The future also has InDoubt (the stream ended: they are
                stored, or will be before anything that is asked from now on, or never), NOT_READY (the
                broker was not reached), and what the coordinator says.
        """
        ...

    async def committed(
        self,
        home: Home,
        group_id: str,
        origin: Origin,
        within_s: float,
        partitions: Collection[PartitionId] | None = None,
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed, in these partitions or in all.

        Raises:
            Refusal: as `commit`, and what the future has.
        """
        ...

    def attach(
        self,
        home: Home,
        group_id: str,
        start: NewMember | Reattach,
        events: MemberEvents,
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[Attached]:
        """Let a stream at this broker speak for a member.

        `events` is called as by `Coordinating.attach`; when the stream between the brokers ends it is told
        the end, with InDoubt.
        """
        ...

    def beat(
        self, home: Home, beats: Sequence[MemberBeat], within_s: float
    ) -> asyncio.Future[Sequence[BeatRefused]]:
        """Say that members are alive."""
        ...

    def revoked(
        self, home: Home, group_id: str, revoked: Revoked, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say what a member has given up."""
        ...

    def leave(
        self, home: Home, group_id: str, leave: Leave, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that a member leaves."""
        ...

    def detached(
        self, home: Home, group_id: str, detached: Detached, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that the stream of a member has ended without a leave."""
        ...

    def commit_for_member(
        self, home: Home, group_id: str, commit: MemberCommit, origin: Origin, within_s: float
    ) -> asyncio.Future[OffsetRefusals]:
        """Store offsets for a member."""
        ...

    def describe(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupDescription]:
        """Ask for everything about a group but its offsets."""
        ...

    def list_groups(
        self, home: Home, query: GroupQuery, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupPage]:
        """Ask for groups of one partition of the offsets topic."""
        ...

    def remove_member(
        self, home: Home, group_id: str, name: MemberName, origin: Origin, within_s: float
    ) -> asyncio.Future[str]:
        """Throw a member out; the future has its id."""
        ...

    def delete_group(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Delete a group that has no members."""
        ...

    def reset_offsets(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Make a group go on elsewhere; its members give the partitions up within `within_s`."""
        ...
