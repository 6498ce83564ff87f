"""Members that have a place of their own in their group are restarted one by one, and nothing moves."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from tests.cluster.group_chaos.checks import History, anomalies
from tests.cluster.group_chaos.diary import Assigned, Joined, Processed, Released, now_s
from tests.cluster.group_chaos.load import Book, Looker
from tests.cluster.group_chaos.processes import MemberProcess, Terms, running
from tests.cluster.proof.members import members_of

PARTITIONS = 6
INSTANCES = ("first", "second", "third")
RATE = 200
# Longer than a restart takes on a machine that runs other tests beside.
SESSION_MS = 30_000
PATIENCE_S = 30.0
pytestmark = pytest.mark.timeout(180)


def had(diary):
    """Return what a process has in the end, and in which assignment epochs, where it worked on it."""
    epochs, worked_on = {}, set()
    for event in diary.events:
        match event:
            case Assigned():
                epochs |= {partition: epoch for partition, _, epoch in event.partitions}
            case Released():
                for partition in event.partitions:
                    epochs.pop(partition)
            case Processed():
                worked_on.add((event.partition, event.assignment_epoch))
    return worked_on & epochs.items()


async def read_all(*members):
    """Wait until each of some members works on its share."""
    until_s = now_s() + PATIENCE_S
    for member in members:
        while len(had(newest(member))) != PARTITIONS // len(INSTANCES):
            assert now_s() < until_s, (member.name, newest(member).events[-20:])
            await asyncio.sleep(0.1)


def newest(member):
    *_, diary = member.diaries()
    return diary


def who(diary):
    (member,) = {event.member for event in diary.events if isinstance(event, Joined)}
    return member


@pytest.mark.parametrize("how", ["leave", "kill9"])
async def test_members_with_places_are_restarted_one_by_one_and_no_partition_moves(
    how, shared_cluster, tmp_path
):
    cluster, topic = shared_cluster, f"rolled-{how}"
    terms = Terms(cluster.bootstrap, topic, topic, SESSION_MS, tmp_path)
    members = [MemberProcess(terms, name, n, name) for n, name in enumerate(INSTANCES)]
    async with members_of(cluster) as brokers, riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic(topic, partitions=PARTITIONS, replication_factor=3)
        await brokers.whole(topic)
        book, stop = Book(client.producer(), topic, PARTITIONS, RATE), asyncio.Event()
        with running(members):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(book.write(stop))
                try:
                    await read_all(*members)
                    before = {member.name: newest(member) for member in members}
                    for member in members:
                        await asyncio.to_thread(getattr(member, how))
                        await asyncio.to_thread(member.start)
                        await read_all(member)
                finally:
                    stop.set()
            ends = {each.partition: each.log_end_offset for each in await brokers.partitions(topic)}
            looker = Looker([cluster.brokers[1].address], topic, topic, PARTITIONS)
            until_s = now_s() + PATIENCE_S
            while (committed := await looker.committed(cluster.brokers[1].address)) != ends:
                assert now_s() < until_s, (committed, ends)
                await asyncio.sleep(0.1)
            after = {member.name: newest(member) for member in members}
            for member in members:
                await asyncio.to_thread(member.leave)
    diaries = [diary for member in members for diary in member.diaries()]
    assert not anomalies(History(diaries, book.acknowledged, looker.looks, ends, committed))
    for name in INSTANCES:
        assert who(after[name]) == who(before[name])
        # In the epochs in which they were given before: nobody has had them in between.
        assert had(after[name]) == had(before[name])
