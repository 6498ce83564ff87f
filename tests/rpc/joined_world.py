"""One partition of the offsets topic, its coordinator, and members that are told what they have, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.ports.coordination import (
    Detached,
    Leave,
    MemberBeat,
    MemberCommit,
    NewMember,
    Revoked,
)
from riverrun_server.runtime.offsets import GroupOffsetsSettings
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from tests.rpc.fake_partitions import NOW_MS, FakeDirectory
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

G = "g"
LIMITS = GroupsLimits(pause_us_per_member=0)


class Stream:
    """A stream that speaks for a member: what it was told, in order, and why it is over."""

    def __init__(self, world, group=G):
        self.world = world
        self.group = group
        self.attached = None
        self.views = []
        self.why = None
        self.refused = None

    # ports.coordination.MemberEvents

    def changed(self, view):
        assert self.why is None, "nothing is told behind the end"
        self.views.append(view)

    def ended(self, why):
        assert self.why is None, "the end is told once"
        assert isinstance(why, Refusal)
        self.why = why

    @property
    def view(self):
        return self.views[-1] if self.views else self.attached.view

    @property
    def owned(self):
        return sorted(partition.partition for partition in self.view.owned)

    @property
    def revoking(self):
        return sorted(partition.partition for partition in self.view.revoking)

    @property
    def member(self):
        return self.attached.member_id

    async def join(self, member_id, *, token=b"token", gateway=1, **said):
        said = Join(**{"topics": ("t",), **said})
        await self.attach(NewMember(member_id, token, said), gateway)
        return self

    async def reattach(self, other, *, gateway=1, token=None):
        again = Reattach(member_id=other.member, token=token or other.attached.token)
        await self.attach(again, gateway)
        return self

    async def attach(self, start, gateway=1):
        self.attached = await self.world.coordinator.attach(
            self.world.home, self.group, start, gateway, self
        )

    async def beat(self):
        beat = MemberBeat(self.group, self.member, self.attached.attachment)
        return [each.reason for each in await self.world.coordinator.beat(self.world.home, [beat])]

    async def acknowledge(self, partitions=None):
        view = self.view
        wanted = view.revoking if partitions is None else partitions
        given_up = {each: view.revoking[each] for each in wanted}
        said = Revoked(self.member, self.attached.attachment, given_up)
        await self.world.coordinator.revoked(self.world.home, self.group, said)

    async def leave(self, *, temporary=False, proof=None):
        proof = self.attached.attachment if proof is None else proof
        said = Leave(self.member, proof, temporary)
        await self.world.coordinator.leave(self.world.home, self.group, said)

    async def detach(self):
        said = Detached(self.member, self.attached.attachment)
        await self.world.coordinator.detached(self.world.home, self.group, said)

    async def commit(self, offsets, *, epoch=None, attachment=True):
        """Commit offsets by number of partition; return the reasons of those that did not count."""
        records = self.world.records(offsets, self.group)
        commit = MemberCommit(
            self.member,
            self.attached.attachment if attachment else None,
            self.view.epoch if epoch is None else epoch,
            records,
        )
        refused = await self.world.coordinator.commit_for_member(
            self.world.home, self.group, commit
        )
        return {each.partition: why.reason for each, why in refused.items()}


class Members(World):
    """A broker with a topic `t` of four partitions, and one partition for offsets, that it coordinates."""

    def __init__(self, directory, log_settings=None, peers=None):
        log_settings = log_settings or OffsetsLogSettings(groups=LIMITS)
        settings = GroupOffsetsSettings(partitions=1, log=log_settings)
        super().__init__(directory, offsets_settings=settings, peers=peers, now_ms=self.now_ms)
        self.log = directory.topics[OFFSETS_TOPIC][0]
        self.home = self.log.id

    @property
    def coordinator(self):
        return self.offsets.coordinator

    def now_ms(self):
        return NOW_MS + round(asyncio.get_running_loop().time() * 1000)

    def stream(self, group=G):
        return Stream(self, group)

    async def joined(self, *names, **said):
        """Return a stream for each member, all of which have joined and got what they should have."""
        streams = [await self.stream().join(name, **said) for name in names]
        await self.settled(*streams)
        return streams

    async def settled(self, *streams):
        """Let partitions change hands until nobody has to give anything up."""
        await asyncio.sleep(0.01)
        while any(stream.view.revoking for stream in streams):
            for stream in streams:
                if stream.view.revoking:
                    await stream.acknowledge()
            await asyncio.sleep(0.01)

    def part(self, number, topic="t"):
        return self.directory.topics[topic][number].id

    def records(self, offsets, group=G):
        return [
            OffsetRecord(
                group,
                self.part(number),
                None if at is None else CommittedOffset(at, None, "", self.now_ms()),
            )
            for number, at in offsets.items()
        ]

    async def committed(self, group=G):
        found = await self.coordinator.committed(self.home, group)
        return {each.partition: value.offset for each, value in found.items()}


def directory_of(partitions=4):
    directory = FakeDirectory()
    for access in directory.create("t", partitions):
        access.append(*[b"x"] * 1000)
    directory.create(OFFSETS_TOPIC, 1)
    return directory


def with_members(scenario=None, *, log_settings=None, seeds=3):
    """Run a scenario with a `Members`."""
    if scenario is None:
        return functools.partial(with_members, log_settings=log_settings, seeds=seeds)

    def test():
        async def run():
            async with Members(directory_of(), log_settings) as world:
                await scenario(world)

        for seed in range(seeds):
            simulate(run(), seed)

    test.__name__ = scenario.__name__
    return test


@contextlib.asynccontextmanager
async def beating(*streams, every_s=1.0):
    """Let streams beat all the time."""

    async def beat():
        while True:
            for stream in streams:
                if stream.why is None:
                    await stream.beat()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
