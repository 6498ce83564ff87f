"""What is stored for a group is known, or known not to be known; and nobody takes a commit back."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from riverrun import Reason, TopicPartition
from riverrun._net import group_commits
from tests.client.commit_world import kill
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.filling import fill

TOPIC, GROUP = "t", "g"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
NEVER_S = 600.0


@pytest.fixture
async def broker():
    broker = FakeBroker()
    for log in broker.add_topic(TOPIC, 2).partitions:
        fill(log, 20)
    return broker


@pytest.fixture
async def client(broker):
    async with broker.serving() as address, impatient(address) as client:
        yield client


@pytest.fixture
def consumer(client):
    return reading(client, commit="auto", commit_interval_s=NEVER_S)


@pytest.fixture
def losing(monkeypatch):
    """Let commits be applied and their answers be lost."""
    real = group_commits.try_group_offsets

    async def lost(*arguments):
        await real(*arguments)
        raise riverrun.TimedOutError("lost", reason=Reason.TIMED_OUT, outcome_known=False)

    def lose(*, answers: bool) -> None:
        monkeypatch.setattr(group_commits, "try_group_offsets", lost if answers else real)

    return lose


def reading(client, **settings):
    return client.consumer(TOPIC, group=GROUP, partitions=[0], **settings)


def committed(broker: FakeBroker, place: TopicPartition = PLACE) -> int | None:
    return broker.commits.get((GROUP, *place), (None, ""))[0]


async def all_there(consumer) -> None:
    """Wait until everything has been read ahead."""
    await consumer.assignment()
    async with asyncio.timeout(5):
        while consumer._machine.readers[PLACE].expected < 20:
            await consumer._loop.change()


async def read(consumer, count: int) -> None:
    """Take so many at once."""
    taken = 0
    async with asyncio.timeout(5):
        while taken < count:
            taken += len(await consumer.getmany(count - taken))


async def test_a_commit_whose_answer_was_lost_is_not_mistaken_for_what_was_stored_before(
    consumer, broker, losing
):
    await read(consumer, 10)
    await consumer.commit()
    await read(consumer, 10)
    losing(answers=True)
    with pytest.raises(riverrun.TimedOutError):
        await consumer.commit()
    losing(answers=False)
    assert committed(broker) == 20
    await consumer.seek(PLACE, 10)
    await read(consumer, 3)
    await consumer.close()
    assert committed(broker) == 10


async def test_what_was_stored_beside_a_partition_that_refused_is_not_taken_for_known(
    consumer, broker
):
    await read(consumer, 10)
    await consumer.commit()
    unknown = TopicPartition(TOPIC, 7)
    with pytest.raises(riverrun.RiverrunError):
        await consumer.commit({PLACE: 15, unknown: 1})
    assert committed(broker) == 15
    await consumer.seek(PLACE, 10)
    await read(consumer, 3)
    await consumer.close()
    assert committed(broker) == 10


# With "auto" the application may commit too.


async def test_a_commit_without_offsets_says_that_the_application_is_through(consumer, broker):
    await read(consumer, 10)
    await consumer.commit()
    await consumer.close()
    assert committed(broker) == 10


async def test_the_background_does_not_take_a_commit_of_the_application_back(client, broker):
    async with reading(client, commit="auto", commit_interval_s=0.01) as consumer:
        await read(consumer, 10)
        await consumer.commit({PLACE: 7})
        calls = broker.calls.count("CommitOffset")
        await asyncio.sleep(0.1)
        assert committed(broker) == 7
        assert broker.calls.count("CommitOffset") == calls, "nothing new, and it commits"
        await consumer.getmany(1)
        await broker.until(lambda: committed(broker) == 10)


@pytest.mark.parametrize("place", [riverrun.CommittedOffset(3, "mine"), 3])
async def test_an_offset_behind_what_is_finished_stands_until_more_is_asked_for(
    consumer, broker, place
):
    for _ in range(10):
        await anext(consumer)
    await consumer.commit({PLACE: place})
    commits = broker.commits.copy()
    await consumer._commits.commit_due(consumer._finished)
    assert broker.commits == commits
    await anext(consumer)
    await consumer.close()
    assert committed(broker) == 10


async def test_a_commit_before_the_records_have_come_stands(consumer, broker):
    await read(consumer, 5)
    await consumer.commit({PLACE: 12})
    await read(consumer, 5)
    await consumer._commits.commit_due(consumer._finished)
    assert committed(broker) == 12
    await read(consumer, 5)
    await read(consumer, 1)
    await consumer.close()
    assert committed(broker) == 15


async def test_a_seek_behind_a_commit_of_the_application_is_committed(consumer, broker):
    await read(consumer, 10)
    await consumer.commit({PLACE: 8})
    await consumer.seek(PLACE, 2)
    await consumer.close()
    assert committed(broker) == 2


# With "at_most_once" nothing that was released comes again.


async def test_at_most_once_a_commit_takes_nothing_back_that_may_be_given(client, broker):
    consumer = reading(client, commit="at_most_once")
    await all_there(consumer)
    await read(consumer, 7)
    assert committed(broker) == 20
    await consumer.commit()
    assert committed(broker) == 20
    await read(consumer, 13)
    await consumer.seek(PLACE, 5)
    await consumer.commit()
    assert committed(broker) == 5
    await kill(consumer)


async def test_at_most_once_a_commit_beside_a_release_does_not_go_behind_it(client, broker):
    consumer = reading(client, commit="at_most_once")
    await all_there(consumer)
    first = asyncio.create_task(anext(consumer))
    await asyncio.sleep(0)
    await consumer.commit()
    assert (await first).offset == 0
    assert committed(broker) == 20
    await kill(consumer)
