"""A member's stream over a broker's store: partitions come and go while their disk is read."""

from __future__ import annotations

import asyncio
import random

import pytest

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.reading.events import Delivery, Heartbeat, Started
from riverrun_server.core.reading.places import Place, PlaceKind
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.partition import LocalPartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.threads import PoolThreads
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.core.told_reader import ToldReader
from tests.rpc.fake_partitions import batch_of, records_of
from tests.rpc.members_world import Member
from tests.rpc.reading_world import World, until
from tests.runtime.manual import InlineThreads, StillClock
from tests.runtime.partition_world import NOW_MS
from tests.storage.world import SMALL, SeededDice

PARTITIONS = 3
BATCHES = 100
RECORDS = 5
END = BATCHES * RECORDS


def value(partition, offset):
    return b"%d:%d" % (partition, offset) * 40


async def filled(partition):
    """Append batches, and wait until all are committed."""
    number, answers = partition.id.partition, []
    for base in range(0, END, RECORDS):
        values = [value(number, base + each) for each in range(RECORDS)]
        partition.submit(Append(batch_of(records_of(*values)), Acks.ALL, answers.append))
    await until(lambda: partition.high_watermark == END)
    assert [each.error for each in answers] == [None] * BATCHES


@pytest.fixture
async def partitions(tmp_path):
    """Partitions on RocksDB of which nothing is in memory, read by threads."""
    store = open_store(
        tmp_path / "data",
        slots=PARTITIONS,
        broker_id=1,
        parse=stored_batch,
        scan=scan_batch,
        dice=SeededDice(),
        tuning=SMALL,
    )
    reads = PoolThreads(2, "read")
    flusher = Flusher(store, StillClock(), InlineThreads())
    running = asyncio.create_task(flusher.run())
    services = PartitionServices(store, flusher, lambda: NOW_MS, TailBudget(0), reads, lambda: None)
    made = [
        LocalPartition("t", PartitionId(b"t" * 16, number), TopicConfig(), 1, services)
        for number in range(PARTITIONS)
    ]
    for each in made:
        await each.open()
        await filled(each)
    yield made
    for each in made:
        await each.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await reads.close(10)
    store.close(clean=True)


class Judged(list):
    """What a member hears, judged as it comes."""

    def __init__(self):
        super().__init__()
        self.reader = ToldReader()

    def append(self, each):
        super().append(each)
        if isinstance(each, Delivery):
            self.reader.receive(each)
        elif not isinstance(each, Started | Heartbeat):
            self.reader.hear(each)


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_on_the_disk_comes_once_an_assignment_and_none_outside_of_it(
    partitions, seed
):
    dice, judged = random.Random(seed), Judged()
    world = World()
    world.directory.topics["t"] = partitions
    async with world:
        member = Member(world, frame_bytes=2_000)
        object.__setattr__(member.form, "heard", judged)
        given: set[int] = set()
        async with member.stream.running() as task:
            for _ in range(150):
                number = dice.randrange(PARTITIONS)
                access = partitions[number]
                if number not in given:
                    place = Place(PlaceKind.OFFSET, dice.randrange(END))
                    member.give(access, place=place)
                    given.add(number)
                elif dice.random() < 0.5:
                    member.lose(access)
                    given.remove(number)
                else:
                    if not member.revoke(access):
                        assert await member.assigned.settled()
                        assert access.id in judged.reader.revoking
                    member.release(access)
                    given.remove(number)
                for _ in range(dice.choice([0, 1, 5, 20])):
                    await asyncio.sleep(0)
            for number in given:
                member.lose(partitions[number])
            member.give(*partitions)
            await until(lambda: task.done() or set(judged.reader.next.values()) == {END})
            member.lose(*partitions)
            assert await member.assigned.settled()
            assert not task.done()
    assert any(len(member.spans(each)) > 10 for each in partitions)
    assert [each._wakes for each in partitions] == [set()] * PARTITIONS
    for delivery in member.stream.of("delivery"):
        for record in delivery.records:
            assert record.value == value(delivery.partition, record.offset)
