"""What a member is told of partitions that change while it is not known where they begin."""

from __future__ import annotations

import asyncio

from riverrun_server.core.gateway.membership import Given, Lost, Revoking
from riverrun_server.core.reading import events
from riverrun_server.core.reading.places import EARLIEST
from riverrun_server.runtime.member_partitions import MemberPartitions
from tests.rpc.members_world import Member
from tests.rpc.reading_world import simulated


class Begun:
    """A member whose stream has just been told of partitions, and does not know yet where they begin."""

    def __init__(self, world, *accesses):
        self.member = Member(world)
        self.acknowledged = []
        self.partitions = MemberPartitions(
            self.member.assigned,
            self.member.stream.machine.events.append,
            world.directory,
            EARLIEST,
            lambda partitions, epoch: self.acknowledged.append(([*partitions], epoch)),
        )
        self.partitions.begin(5, [Given(5, {each.id: 3 for each in accesses})])

    def told(self):
        """Return what was told since it began, by partition."""
        return [
            (type(each).__name__, [named.id for named in each.partitions])
            for each in self.member.heard
            if isinstance(each, events.Assigned | events.Revoking | events.Lost)
        ]


@simulated
async def test_what_is_coming_is_given_up_by_the_member_and_by_nobody_in_its_place(world, t0, t1):
    begun = Begun(world, t0, t1)
    begun.partitions.revoke(Revoking(6, frozenset({t0.id})))
    async with begun.member.stream.running():
        await asyncio.sleep(1)
        assert begun.told() == [
            ("Assigned", []),
            ("Revoking", [t0.id]),
            ("Assigned", [t1.id]),
        ]
        assert begun.acknowledged == []
        begun.partitions.release([t0.id])
        begun.partitions.give(Given(7, {t0.id: 7}))
        await asyncio.sleep(1)
        assert begun.told()[-1] == ("Assigned", [t0.id])


@simulated
async def test_what_is_coming_and_lost_is_told(world, t0, t1):
    begun = Begun(world, t0, t1)
    begun.partitions.lose(Lost(6, frozenset({t0.id})))
    async with begun.member.stream.running():
        await asyncio.sleep(1)
        assert begun.told() == [("Assigned", []), ("Lost", [t0.id]), ("Assigned", [t1.id])]


@simulated
async def test_what_is_coming_given_up_and_then_lost_is_told_twice(world, t0, t1):
    begun = Begun(world, t0, t1)
    begun.partitions.revoke(Revoking(6, frozenset({t0.id})))
    begun.partitions.lose(Lost(7, frozenset({t0.id})))
    async with begun.member.stream.running():
        await asyncio.sleep(1)
        assert begun.told() == [
            ("Assigned", []),
            ("Revoking", [t0.id]),
            ("Lost", [t0.id]),
            ("Assigned", [t1.id]),
        ]


@simulated
async def test_what_is_given_later_and_was_never_told_is_acknowledged_for_the_member(world, t0, t1):
    begun = Begun(world, t0, t1)
    async with begun.member.stream.running():
        await asyncio.sleep(1)
        begun.partitions.lose(Lost(6, frozenset({t0.id})))
        begun.partitions.revoke(Revoking(7, frozenset({t1.id})))
        begun.partitions.release([t1.id])
        await asyncio.sleep(1)
        before = begun.told()
        begun.partitions.give(Given(8, {t0.id: 8, t1.id: 8}))
        begun.partitions.revoke(Revoking(9, frozenset({t0.id, t1.id})))
        assert [(sorted(each), epoch) for each, epoch in begun.acknowledged] == [
            (sorted([t0.id, t1.id]), 9)
        ]
        await asyncio.sleep(1)
        assert begun.told() == before
