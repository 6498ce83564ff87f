"""Consumers of one group on a real broker: they share partitions, and nothing is lost or read twice when they come and go."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import riverrun
from riverrun import TopicPartition
from riverrun.errors import Reason
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import ended

PARTITIONS = 4
GROUP = "g"


@pytest.fixture
def broker(tmp_path):
    """A broker of the test's own."""
    with ended(BrokerProcess(tmp_path)) as process:
        process.start()
        yield process


@pytest.fixture(autouse=True, params=[False, True], ids=["through_a_gateway", "direct"])
def way(request, monkeypatch):
    """How consumers read what they have."""
    monkeypatch.setattr(Reading, "direct", request.param)


@pytest.fixture
async def client(broker):
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic("t", partitions=PARTITIONS)
        yield client


async def produce(client, count, *, begin=0):
    async with client.producer() as producer:
        await asyncio.gather(
            *[
                producer.send("t", b"%d" % number, partition=number % PARTITIONS)
                for number in range(begin, begin + count)
            ]
        )


class Reading:
    """A consumer that reads in a task of its own, and what it has been given and told."""

    direct = False

    def __init__(self, client, **options):
        self.told = []
        self.values = []
        options = {"commit": "auto", "commit_interval_s": 0.1, "direct": self.direct, **options}
        self.consumer = client.consumer(
            "t",
            group=GROUP,
            on_assigned=lambda partitions: self.told.append(("assigned", numbers(partitions))),
            on_revoked=lambda partitions: self.told.append(("revoked", numbers(partitions))),
            on_lost=lambda partitions: self.told.append(("lost", numbers(partitions))),
            **options,
        )
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async for record in self.consumer:
            self.values.append(record.value)

    async def has(self, count):
        """Wait until it reads so many partitions, and return them."""
        async with asyncio.timeout(20):
            while True:
                owned = [
                    partition
                    for partition, reader in self.consumer._machine.readers.items()
                    if not reader.retired
                ]
                if len(owned) == count:
                    return sorted(numbers(owned))
                await asyncio.sleep(0.02)

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.consumer.close()


def numbers(partitions):
    return sorted(each.partition for each in partitions)


@contextlib.asynccontextmanager
async def reading(client, **options):
    one = Reading(client, **options)
    try:
        yield one
    finally:
        await one.close()


async def until(what, within_s=20):
    async with asyncio.timeout(within_s):
        while not what():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


async def committed(client):
    found = await client.admin().group_offsets(GROUP)
    return sorted(at.offset for at in found.values() if at)


async def test_consumers_share_partitions_and_only_what_moves_is_told(client):
    await produce(client, 40)
    async with reading(client) as a:
        assert await a.has(4) == [0, 1, 2, 3]
        await until(lambda: len(a.values) == 40)
        async with reading(client) as b:
            moved = await b.has(2)
            kept = await a.has(2)
            assert sorted(moved + kept) == [0, 1, 2, 3]
            assert a.told == [("assigned", [0, 1, 2, 3]), ("revoked", moved)]
            await produce(client, 40, begin=40)
            await until(lambda: len(a.values) + len(b.values) >= 80)
            assert sorted(map(int, a.values + b.values)) == [*range(80)]
        assert await a.has(4) == [0, 1, 2, 3]
    assert await committed(client) == [20] * 4


async def test_the_record_in_hand_is_finished_with_before_its_partition_goes(client):
    await produce(client, 8)
    # By one task, one record after the other: it holds what it was given until it asks for more.
    first = client.consumer("t", group=GROUP, commit="auto", commit_interval_s=60)
    in_hand = await anext(first)
    async with reading(client) as b:
        await asyncio.sleep(1)
        assert in_hand.partition not in numbers(b.consumer._machine.readers)
        rest = []
        async with asyncio.timeout(10):
            while len(rest) + len(b.values) < 7:
                rest += [record.value for record in await first.getmany(1, timeout_s=0.2)]
        assert sorted([in_hand.value, *rest, *b.values]) == sorted(b"%d" % n for n in range(8))
    await first.close()


async def test_what_was_read_ahead_of_a_partition_that_goes_is_read_by_its_next_member(client):
    await produce(client, 400)
    slow = client.consumer("t", group=GROUP, commit="auto", commit_interval_s=60)
    given = await slow.getmany(10)
    async with reading(client) as b:
        given += await slow.getmany(1, timeout_s=1)
        await b.has(2)
        async with asyncio.timeout(20):
            while len(given) + len(b.values) < 400:
                given += await slow.getmany(50, timeout_s=0.2)
        seen = sorted(int(each) for each in [*(r.value for r in given), *b.values])
        assert seen == [*range(400)]
    await slow.close()


async def test_nothing_of_a_partition_is_given_before_the_application_was_told_of_it(client):
    await produce(client, 40)
    await client.admin().commit_group_offsets(GROUP, {TopicPartition("t", 0): 3})
    order = []

    async def assigned(partitions):
        order.append("told")
        for partition in partitions:
            await consumer.seek(partition, 7)
        order.append("sought")

    consumer = client.consumer("t", group=GROUP, on_assigned=assigned)
    async with consumer:
        records = []
        while len(records) < 12:
            records += await consumer.getmany(12 - len(records), timeout_s=5)
            order.append("given")
    assert order[:3] == ["told", "sought", "given"]
    assert {record.offset for record in records} <= {7, 8, 9}


async def test_a_static_consumer_that_closes_and_comes_back_moves_nothing(client):
    await produce(client, 8)
    async with reading(client, instance_id="a") as a:
        await a.has(4)
        async with reading(client, instance_id="b") as b:
            had, others = await b.has(2), await a.has(2)
            told = list(a.told)
        async with reading(client, instance_id="b") as again:
            assert await again.has(2) == had
            assert await a.has(2) == others
            assert a.told == told


async def test_an_instance_id_that_is_at_work_is_an_error_that_says_so(client):
    async with reading(client, instance_id="a") as a:
        await a.has(4)
        second = client.consumer("t", group=GROUP, instance_id="a")
        with pytest.raises(riverrun.RiverrunError, match="instance id 'a'") as caught:
            await second.getmany(1, timeout_s=10)
        assert caught.value.reason is Reason.INSTANCE_IN_USE
        await second.close()
        assert a.task.done() is False


async def test_a_removed_consumer_is_told_what_it_lost_and_joins_again(client):
    await produce(client, 8)
    async with reading(client) as a:
        await a.has(4)
        await until(lambda: len(a.values) == 8)
        # As an operator does, or whoever leaves in its name.
        loop = a.consumer._loop
        member = loop.membership.member
        from riverrun.v1 import consumer_pb2 as pb  # noqa: PLC0415

        await client._connections.call(
            lambda connection, timeout_s: connection.consumer.LeaveGroup(
                pb.LeaveGroupRequest(
                    group_id=GROUP, member_id=member.member_id, token=member.token
                ),
                timeout=timeout_s,
            ),
            "leave",
        )
        await until(lambda: ("lost", [0, 1, 2, 3]) in a.told)
        assert await a.has(4) == [0, 1, 2, 3]
        assert loop.membership.member.member_id != member.member_id
        await produce(client, 4, begin=8)
        await until(lambda: {b"8", b"9", b"10", b"11"} <= set(a.values))


async def test_a_pattern_reads_topics_that_are_made_later(client):
    consumer = client.consumer(group=GROUP, topic_pattern="orders-.*")
    async with consumer:
        first = asyncio.create_task(consumer.getmany(1, timeout_s=20))
        await asyncio.sleep(0.3)
        await client.admin().create_topic("orders-1", partitions=1)
        async with client.producer() as producer:
            await producer.send("orders-1", b"x")
        assert [record.topic for record in await first] == ["orders-1"]


async def test_a_group_of_readers_to_the_end_reads_everything_once(client):
    await produce(client, 400)

    async def read():
        async with client.consumer("t", group=GROUP, commit="auto", stop_at_end=True) as consumer:
            return [record.value async for record in consumer]

    together = await asyncio.wait_for(asyncio.gather(read(), read()), 60)
    assert sorted(int(value) for values in together for value in values) == [*range(400)]
    assert await committed(client) == [100] * 4


async def test_the_death_of_the_broker_loses_nothing_and_gives_nothing_twice(broker):
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic("t", partitions=PARTITIONS)
        await produce(client, 40)
        async with reading(client, session_timeout_s=30) as a:
            await until(lambda: len(a.values) == 40)
            member = a.consumer._loop.membership.member
            await asyncio.to_thread(broker.kill9)
            await asyncio.to_thread(broker.restart)
            await produce(client, 40, begin=40)
            await until(lambda: len(a.values) == 80, 60)
            assert sorted(map(int, a.values)) == [*range(80)]
            assert a.consumer._loop.membership.member.member_id == member.member_id
            assert a.told == [("assigned", [0, 1, 2, 3])]


async def test_options_of_members_are_checked(client):
    for options, text in (
        ({"instance_id": ""}, "instance_id is ''"),
        ({"session_timeout_s": 0}, "session_timeout_s is 0"),
        ({"assignor": "best"}, "assignor is 'best'"),
        ({"on_lost": 3}, "on_lost is 3"),
    ):
        with pytest.raises(riverrun.UsageError, match=text):
            client.consumer("t", group=GROUP, **options)
    with pytest.raises(riverrun.UsageError, match="instance_id is for members of a group"):
        client.consumer("t", instance_id="a")
    with pytest.raises(riverrun.UsageError, match="rack is for members of a group"):
        client.consumer("t", group=GROUP, partitions=[0], rack="r")


async def test_who_commits_what_it_has_of_a_partition_that_goes_has_it_stored(client):
    await produce(client, 400)
    first = client.consumer("t", group=GROUP)
    given = await first.getmany(40)
    async with reading(client) as b:
        await asyncio.sleep(0.5)
        async with asyncio.timeout(20):
            while len(given) + len(b.values) < 400:
                # One after the other, as applications do: what is in hand is committed, and more is asked for.
                await first.commit()
                given += await first.getmany(40, timeout_s=0.2)
        seen = sorted(int(each) for each in [*(r.value for r in given), *b.values])
        assert seen == [*range(400)]
        await first.commit()
    await first.close()
    assert await committed(client) == [100] * 4


async def test_a_member_that_was_removed_has_nothing_to_leave(client, caplog):
    consumer = client.consumer("t", group=GROUP)
    await consumer.getmany(timeout_s=0.1)
    (member,) = (await client.admin().describe_group(GROUP)).members
    assert await client.admin().remove_member(GROUP, member_id=member.member_id) == member.member_id
    await consumer.close()
    assert "others wait" not in caplog.text


async def test_nothing_is_returned_while_others_may_have_what_it_was_given(client):
    await produce(client, 8)
    async with reading(client) as a:
        await until(lambda: len(a.values) == 8)
        lease = a.consumer._loop.membership.lease
        # As if nothing had been confirmed for a session timeout.
        lease._until_s = 0.0
        lease._sent.clear()
        deliveries = a.consumer.statistics().deliveries
        await produce(client, 8, begin=8)
        await until(lambda: a.consumer.statistics().deliveries > deliveries)
        assert len(a.values) == 8
        await until(lambda: len(a.values) == 16)
        assert not lease.is_over(asyncio.get_running_loop().time())
