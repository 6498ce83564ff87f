"""Operators' changes beside a controller that runs, over a store that fails, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from riverrun_server.core.cluster import keys, partition_changes
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.preferred_elections import Target
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Step, Write
from riverrun_server.core.errors import Reason
from riverrun_server.core.limits import Limits
from riverrun_server.ports.metadata import MetadataUnavailable, UnknownOutcome
from riverrun_server.runtime.cluster_changes import drain, elect_leaders
from riverrun_server.runtime.metadata_changes import MetadataChanges
from riverrun_server.runtime.metadata_feed import Applied
from tests.core.cluster_world import make_id
from tests.runtime.catalog_world import refused
from tests.runtime.test_controlling import cluster
from tests.sim.loop import simulate


class Interfered:
    """A writer that lets something happen before, or instead of, each commit."""

    def __init__(self, writer):
        self._writer = writer
        self.before = []

    async def commit(self, steps):
        if self.before:
            happens = self.before.pop(0)
            if isinstance(happens, Exception):
                raise happens
            await happens()
        return await self._writer.commit(steps)


class Operated:
    """The changes of one broker of a cluster."""

    def __init__(self, broker):
        self.image = broker.image
        self.writer = Interfered(broker.writer)
        self.applied = Applied()
        self.changes = MetadataChanges(self.image, self.applied, self.writer, Limits())

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(each) for each in (self._publish(), self.changes.run())]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _publish(self):
        while True:
            self.applied.publish(self.image.revision)
            await asyncio.sleep(0.01)

    def partitions(self):
        return _partitions(self.image)

    async def write(self, changed):
        """Write partitions as somebody else would, at once and unasked."""
        [topic] = self.image.topics.values()
        found = self.image.partitions[topic.value.topic_id]
        writes = [
            Write(keys.partition(topic.value.topic_id, n), value, found[n].mod_revision)
            for n, value in changed.items()
        ]
        revision = await self.writer._writer.commit([Step(tuple(writes))])
        await self.applied.reached(revision)

    async def move(self, *numbers):
        """Let the second replica lead."""
        standing = Standing(self.image.brokers)
        values = self.partitions()
        await self.write(
            {
                n: partition_changes.elected(values[n], values[n].replicas[1], standing)
                for n in numbers
            }
        )


def _partitions(image):
    [topic] = image.topics.values()
    return [each.value for _, each in sorted(image.partitions[topic.value.topic_id].items())]


def preferred(value):
    return value.leader == value.replicas[0]


async def made(them, partitions=4):
    await them.brokers[1].create(NewTopic("t", partitions), make_id(0x500))
    await them.until(lambda: all(broker.image.topics for broker in them.brokers.values()))


@pytest.mark.parametrize("seed", range(5))
def test_a_broker_that_is_drained_by_any_other_is_left_with_nothing_and_nobody_is_offline(seed):
    async def scenario():
        async with cluster() as them:
            await made(them, 8)
            leaders = {value.leader for value in _partitions(them.brokers[1].image)}
            assert leaders == {1, 2, 3}
            drained = next(iter(them.controllers()))
            other = next(each for each in them.brokers if each != drained)
            async with Operated(them.brokers[other]) as operated:
                told = await drain(operated.changes, drained)
                assert told.changed
                assert not told.plan.cost.stranded
                took_s = await them.until(
                    lambda: all(
                        drained not in {value.leader, *(each.broker for each in value.isr)}
                        for value in operated.partitions()
                    )
                )
                assert took_s < 5
                assert all(len(value.isr) == 2 for value in operated.partitions())
                again = await drain(operated.changes, drained)
                assert not again.changed
                await drain(operated.changes, drained, undo=True)
                assert not operated.image.brokers[drained].value.draining

    simulate(scenario(), seed)


async def at_rest(them, operated):
    """Wait until the controller has nothing to prefer; it would come first otherwise."""
    await them.until(lambda: all(map(preferred, operated.partitions())))


def test_preferred_leaders_are_elected_at_once_whoever_else_elects():
    async def scenario():
        async with cluster() as them:
            await made(them, 40)
            async with Operated(them.brokers[1]) as operated:
                await at_rest(them, operated)
                await operated.move(*range(40))
                done = await elect_leaders(operated.changes, [], 1_000)
                assert not done.left
                assert all(map(preferred, operated.partitions()))
                assert len(done.after) > 16  # the controller alone moves no more in a round
                assert not [each.obstacle for each in done.after if each.obstacle]

    simulate(scenario(), 1)


def test_a_partition_that_others_change_meanwhile_is_planned_again_and_holds_up_no_other():
    async def scenario():
        async with cluster() as them:
            await made(them)
            async with Operated(them.brokers[1]) as operated:
                await at_rest(them, operated)
                for broker in them.brokers.values():
                    broker.controlling._controller._prefer_at = float("inf")
                await operated.move(0, 1)

                async def shrink():
                    value = operated.partitions()[1]
                    gone = next(
                        b for b in value.replicas if b not in (value.leader, value.replicas[0])
                    )
                    standing = Standing(operated.image.brokers)
                    changed = partition_changes.elected(value, value.leader, standing)
                    isr = tuple(each for each in changed.isr if each.broker != gone)
                    await operated.write({1: dataclasses.replace(changed, isr=isr)})

                operated.writer.before.append(shrink)
                done = await elect_leaders(operated.changes, [Target("t")], 1_000)
                assert not [each.obstacle for each in done.after if each.obstacle]
                assert all(map(preferred, operated.partitions()))
                assert len(operated.partitions()[1].isr) == 2

    simulate(scenario(), 1)


def test_a_partition_that_others_change_again_and_again_is_a_conflict_and_the_only_one():
    async def scenario():
        async with cluster() as them:
            await made(them)
            async with Operated(them.brokers[1]) as operated:
                await at_rest(them, operated)
                for broker in them.brokers.values():
                    broker.controlling._controller._prefer_at = float("inf")
                await operated.move(0, 1, 2)

                async def touch():
                    value = operated.partitions()[1]
                    epoch = value.partition_epoch + 1
                    await operated.write({1: dataclasses.replace(value, partition_epoch=epoch)})

                operated.writer.before += [touch] * 100
                done = await elect_leaders(operated.changes, [], 1_000)
                assert [each.partition for each in done.after] == [0, 1, 2]
                obstacles = [each.obstacle and each.obstacle.reason for each in done.after]
                assert obstacles == [None, Reason.CONFLICT, None]

    simulate(scenario(), 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MetadataUnavailable("away"), Reason.STORAGE_STALLED),
        (UnknownOutcome("lost"), Reason.STORAGE_FAILED),
    ],
)
def test_a_store_that_fails_is_told_for_the_partitions_that_it_failed_for(error, reason):
    async def scenario():
        async with cluster() as them:
            await made(them, 40)
            async with Operated(them.brokers[1]) as operated:
                await at_rest(them, operated)
                for broker in them.brokers.values():
                    broker.controlling._controller._prefer_at = float("inf")
                await operated.move(*range(40))

                async def nothing():
                    pass

                operated.writer.before += [nothing, error]
                done = await elect_leaders(operated.changes, [], 1_000)
                assert [each.obstacle is None for each in done.after] == [True] * 32 + [False] * 8
                assert {each.obstacle.reason for each in done.after[32:]} == {reason}
                assert sum(map(preferred, operated.partitions())) == 32

    simulate(scenario(), 1)


def test_a_drain_is_not_carried_over_to_a_process_that_began_meanwhile():
    async def scenario():
        async with cluster() as them:
            await made(them)
            async with Operated(them.brokers[1]) as operated:

                async def restart():
                    found = operated.image.brokers[3]
                    again = Write(
                        keys.broker(3),
                        dataclasses.replace(found.value, broker_epoch=0),
                        found.mod_revision,
                    )
                    await operated.writer._writer.commit([Step((again,))])

                operated.writer.before.append(restart)
                refusal = await refused(drain(operated.changes, 3))
                assert refusal.reason is Reason.CONFLICT
                assert not operated.image.brokers[3].value.draining

    simulate(scenario(), 1)
