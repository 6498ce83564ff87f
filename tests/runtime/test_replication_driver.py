"""What the driver of replicas carries out: changes of the metadata that are asked for, and syncs."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.replication.messages import Envelope
from riverrun_server.ports.metadata import StoreEnded, UnknownOutcome
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.metadata_writer import PlanOutdated
from riverrun_server.runtime.replication.driver import ReplicationDriver
from riverrun_server.runtime.replication.outbox import Outcome
from tests.runtime.replication_world import ready


class Writer:
    """Answers with what a test has put there; waits where it has put nothing."""

    def __init__(self):
        self.asked = []
        self.answers = asyncio.Queue()

    async def commit(self, steps):
        self.asked.append(steps)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Syncs:
    def __init__(self):
        self.touched = 0

    def touch(self, who):
        self.touched += 1


class Driven:
    """A driver of a leader that wants a change of its ISR again and again, and what it is told of it."""

    def __init__(self):
        world = self.world = ready(min_isr=1)
        world.shrink(1, 2)
        world.settle(0)
        self.replicas = world[1].replicas
        self.told = []
        self.replicas.outcome = self._note
        self.writer, self.syncs = Writer(), Syncs()
        self.driver = ReplicationDriver(
            self.replicas, self.syncs, self.writer, lambda _: None, lambda: world.now
        )
        world.tick()
        world.run()
        world.tick()
        world.collect()
        ((_, self.proposal),) = world.proposals

    def _note(self, proposal, outcome, now, *, revision):
        self.told.append((outcome, revision))


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (7, (Outcome.APPLIED, 7)),
        (PlanOutdated(9), (Outcome.REFUSED, 0)),
        (UnknownOutcome("no answer"), (Outcome.UNKNOWN, 0)),
        # An answer that shows another store is thrown away with what it said of the transaction.
        (StoreEnded("etcd is another one"), (Outcome.UNKNOWN, 0)),
        (ValueError("a bug"), (Outcome.UNKNOWN, 0)),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_what_became_of_a_change_is_told_as_far_as_it_is_known(answer, outcome):
    driven = Driven()
    driven.driver._propose(driven.proposal)
    await driven.writer.answers.put(answer)
    await turns()
    assert driven.told == [outcome]


async def test_a_bug_while_a_change_is_asked_for_ends_the_driver():
    driven = Driven()
    driven.driver._propose(driven.proposal)
    await driven.writer.answers.put(ValueError("a bug"))
    await turns()
    with pytest.raises(ValueError, match="a bug"):
        await driven.driver.run()


@pytest.mark.parametrize("what", ["receive", "connected", "disconnected", "take"])
async def test_a_bug_that_shows_on_a_stream_ends_the_driver(what):
    """Whoever calls would go on without: a stream's task, or a call of the loop."""
    driven = Driven()

    def fails(*_):
        raise ValueError("a bug")

    setattr(driven.replicas, what, fails)
    driven.driver.receive(Envelope(2, 7, 1, ()))
    driven.driver.connected(2)
    driven.driver.disconnected(2)
    await turns()
    with pytest.raises(ValueError, match="a bug"):
        await driven.driver.run()


async def test_one_change_of_a_partition_is_asked_for_at_a_time():
    driven = Driven()
    driven.driver._propose(driven.proposal)
    await turns()
    driven.driver._propose(driven.proposal)
    await turns()
    assert len(driven.writer.asked) == 1
    assert driven.told == [(Outcome.REFUSED, 0)]
    await driven.writer.answers.put(7)
    await turns()
    assert driven.told[1:] == [(Outcome.APPLIED, 7)]
    driven.driver._propose(driven.proposal)
    await turns()
    assert len(driven.writer.asked) == 2
    await driven.driver.close()


async def test_a_sync_that_proved_everything_is_not_followed_by_one_that_proves_nothing():
    world, syncs = ready(), Syncs()
    driver = ReplicationDriver(
        world[1].replicas, syncs, Writer(), lambda _: None, lambda: world.now
    )
    world[1].append(b"a", acks=Acks.LEADER)
    driver.carry_out_soon()
    await turns()
    assert syncs.touched == 1
    points = driver.sync_point()
    world[1].store.sync()
    driver.synced(points)
    await turns()
    assert world[1].replica.log.is_synced
    assert syncs.touched == 1
