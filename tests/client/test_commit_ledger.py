"""What is stored for a group is known, or known not to be known; and nobody takes a commit back."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from riverrun import Reason, TopicPartition
from riverrun._net import group_commits
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
    real = group_commits.commit_group_offsets

    async def lost(*arguments):
        await real(*arguments)
        raise riverrun.TimedOutError("lost", reason=Reason.TIMED_OUT, outcome_known=False)

    def lose(*, answers: bool) -> None:
        monkeypatch.setattr(group_commits, "commit_group_offsets", lost if answers else real)

    return lose


def reading(client, **settings):
    return client.consumer(TOPIC, group=GROUP, partitions=[0], **settings)


def committed(broker: FakeBroker, place: TopicPartition = PLACE) -> int | None:
    return broker.commits.get((GROUP, *place), (None, ""))[0]


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
