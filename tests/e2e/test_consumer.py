"""Consumers against a real broker: going anywhere, being late, committing, and dying on the way."""

from __future__ import annotations

import asyncio
import collections
import os
import shutil
import signal
import sys
import time

import pytest

import riverrun
from riverrun import Last, Offset, Reason, Time, TopicPartition
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import ended

FIRST_MS = 1_700_000_000_000


@pytest.fixture
async def client(shared_broker):
    async with riverrun.Client(shared_broker.address) as client:
        yield client


async def fill(client, topic, count=20, partition=0):
    """Write records valued by their number, each a second later, some in a batch."""
    async with client.producer() as producer:
        records = [
            riverrun.NewRecord(b"%d" % number, timestamp_ms=FIRST_MS + 1000 * number)
            for number in range(count)
        ]
        for at in range(0, count, 6):
            await producer.send_many(topic, records[at : at + 6], partition=partition)


# Going anywhere.


@pytest.mark.parametrize(
    ("to", "first"),
    [
        (12, 12),
        (Offset(0), 0),
        (Time(FIRST_MS + 13_500), 14),
        (Last(3), 17),
        (Last(999), 0),
        ("earliest", 0),
        ("committed", 9),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [0, 7])
async def test_a_seek_goes_anywhere(client, topic, to, first, before):
    place = TopicPartition(topic, 0)
    await client.admin().create_topic(topic)
    await fill(client, topic)
    async with client.consumer(topic, group=topic) as consumer:
        await consumer.commit({place: 9})
        await consumer.seek(place, 2)
        for _ in range(before):
            await anext(consumer)
        await consumer.seek(place, to)
        assert await consumer.position(place) == first
        assert await consumer.lag() == {place: 20 - first}
        assert (await anext(consumer)).offset == first


async def test_all_partitions_go_to_their_ends_and_back(client, topic):
    await client.admin().create_topic(topic, partitions=3)
    for partition, count in enumerate((20, 0, 7)):
        await fill(client, topic, count, partition)
    places = [TopicPartition(topic, partition) for partition in range(3)]
    async with client.consumer(topic) as consumer:
        await consumer.seek_to_end()
        assert await consumer.positions() == dict(zip(places, (20, 0, 7), strict=True))
        assert await consumer.getmany(timeout_s=0.1) == []
        await fill(client, topic, 1, partition=1)
        assert (await anext(consumer)).partition == 1
        await consumer.seek_to_beginning(*places[:2])
        await consumer.seek(places[2], Last(1))
        seen = collections.Counter()
        while seen.total() < 22:
            seen.update(record.partition for record in await consumer.getmany(timeout_s=5))
        assert seen == {0: 20, 1: 1, 2: 1}
        assert set((await consumer.lag()).values()) == {0}


# What was there is gone.


async def trimmed_below(client, topic, settings):
    """Return a consumer that stands at 4 where the partition now begins at 15."""
    place = TopicPartition(topic, 0)
    await client.admin().create_topic(topic)
    await fill(client, topic)
    await client.admin().commit_group_offsets(topic, {place: 4})
    await client.admin().trim_topic(topic, {0: 15})
    return client.consumer(topic, **settings)


@pytest.mark.parametrize(
    ("reset", "group", "new"),
    [("earliest", True, 15), (None, True, 15), ("latest", True, 20), ("earliest", False, 15)],
)
async def test_a_position_that_was_trimmed_away_is_reset_and_told(
    client, topic, caplog, reset, group, new
):
    told = []
    settings = {"group": topic} if group else {"partitions": {TopicPartition(topic, 0): Offset(4)}}
    settings |= {"offset_reset": reset, "on_reset": told.append}
    async with await trimmed_below(client, topic, settings) as consumer:
        await fill_once_at(client, topic, new, consumer)
        assert (await anext(consumer)).offset == new
    assert [(t.partition, t.old_offset, t.new_offset) for t in told] == [((topic, 0), 4, new)]
    assert told[0].cause.reason is Reason.OFFSET_OUT_OF_RANGE
    assert told[0].cause.available == (15, 20)
    assert f"{topic}[0]: position 4 is out of range, reading goes on at {new}" in caplog.text


async def fill_once_at(client, topic, new, consumer):
    """Where reading goes on at the end, write something once it stands there."""
    if new == 20:
        assert await consumer.getmany(timeout_s=0.3) == []
        await fill(client, topic, 1)


@pytest.mark.parametrize("settings", [{"offset_reset": "error"}, {}], ids=str)
async def test_a_position_that_was_trimmed_away_is_an_error_until_a_seek(client, topic, settings):
    place = TopicPartition(topic, 0)
    settings = {"partitions": {place: Offset(4)}} | settings
    async with await trimmed_below(client, topic, settings) as consumer:
        with pytest.raises(riverrun.OffsetOutOfRangeError) as caught:
            await anext(consumer)
        assert (caught.value.reason, caught.value.available) == (
            Reason.OFFSET_OUT_OF_RANGE,
            (15, 20),
        )
        await consumer.seek(place, caught.value.available.earliest)
        assert (await anext(consumer)).offset == 15
        assert await consumer.beginning_offsets() == {place: 15}


async def test_a_reader_that_is_overtaken_by_retention_goes_on_and_says_so(tmp_path):
    environ = {"RIVERRUN_RETENTION_CHECK_INTERVAL_S": "0.1"}
    broker, told, place = BrokerProcess(tmp_path, environ=environ), [], TopicPartition("t", 0)
    with ended(broker):
        await asyncio.to_thread(broker.start)
        async with riverrun.Client(broker.address) as client, client.producer() as producer:
            await client.admin().create_topic("t", configs={"retention.bytes": "1"})
            consumer = client.consumer("t", offset_reset="earliest", on_reset=told.append)
            consumer.pause([place])
            async with asyncio.timeout(30):
                while (begin := (await consumer.beginning_offsets())[place]) < 5:
                    await producer.send("t", bytes(300_000))
            consumer.resume()
            record = await anext(consumer)
            assert record.offset >= begin
    assert [(reset.old_offset, reset.new_offset) for reset in told] == [(0, record.offset)]


async def test_a_log_that_lost_what_was_read_is_told_as_such_and_not_reset(
    broker_process, tmp_path
):
    place = TopicPartition("t", 0)
    broker, other = broker_process, BrokerProcess(tmp_path / "other")
    await asyncio.to_thread(broker.start)
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic("t")
        await fill(client, "t", 6)
        await asyncio.to_thread(broker.term)
        # A copy goes another way from here.
        shutil.copytree(broker.data_dir, other.data_dir)
        with ended(other):
            await asyncio.to_thread(other.start)
            async with riverrun.Client(other.address) as stranger:
                await fill(stranger, "t", 1)
        await asyncio.to_thread(broker.restart)
        await fill(client, "t", 6)
        consumer = client.consumer(
            "t", group="g", partitions=[0], offset_reset="earliest", commit="auto"
        )
        seen = [(await anext(consumer)).offset for _ in range(12)]
        assert seen == [*range(12)]
        await asyncio.to_thread(broker.kill9)
        shutil.rmtree(broker.data_dir)
        shutil.move(other.data_dir, broker.data_dir)
        await asyncio.to_thread(broker.restart)
        with pytest.raises(riverrun.OffsetOutOfRangeError) as caught:
            await asyncio.wait_for(anext(consumer), 30)
        error = caught.value
        assert (error.reason, error.available.latest) == (Reason.LOG_TRUNCATED, 7)
        assert error.diverging_offset == 7
        await consumer.seek(place, error.diverging_offset)
        await fill(client, "t", 1)
        assert (await anext(consumer)).offset == 7


# Dying on the way.

PROGRAM = """
import asyncio, sys
import riverrun

async def main(address, topic, mode):
    async with riverrun.Client(address) as client:
        consumer = client.consumer(
            topic, group=topic, commit=mode, commit_interval_s=0.05, value_deserializer="str"
        )
        async for record in consumer:
            print(record.partition, record.offset, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main(*sys.argv[1:]))
"""


async def read_and_die(address, topic, mode, lines):
    """Consume in a process that is killed after so many records; return what it was given."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, address, topic, mode),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert program.stdout is not None
    given = []
    async with asyncio.timeout(30):
        while len(given) < lines and (line := await program.stdout.readline()):
            given.append(line)
        program.send_signal(signal.SIGKILL)
        rest = await program.stdout.read()
        await program.wait()
    given += [line + b"\n" for line in rest.split(b"\n")[:-1]]
    return [tuple(map(int, line.split())) for line in given]


async def read_out(client, topic, mode):
    """Consume what is left for the group."""
    async with client.consumer(topic, group=topic, commit=mode, stop_at_end=True) as consumer:
        return [(record.partition, record.offset) async for record in consumer]


@pytest.mark.parametrize("mode", ["auto", "at_most_once"])
async def test_what_a_killed_consumer_was_given(client, shared_broker, topic, mode):
    await client.admin().create_topic(topic, partitions=2)
    for partition in range(2):
        await fill(client, topic, 900, partition)
    times = collections.Counter()
    for lines in (150, 280):
        times.update(await read_and_die(shared_broker.address, topic, mode, lines))
    died_after = times.total()
    times.update(await read_out(client, topic, mode))
    everything = {(partition, offset) for partition in range(2) for offset in range(900)}
    assert died_after >= 430
    if mode == "auto":
        assert set(times) == everything, "something never came"
        assert times.total() < 1800 + died_after, "nothing was committed on the way"
    else:
        assert set(times) <= everything
        assert max(times.values()) == 1, "something came twice"
        assert times.total() > 900, "more is lost than was released"
    place = TopicPartition(topic, 0)
    committed = await client.admin().group_offsets(topic)
    assert committed[place].offset == 900
    assert time.time() * 1000 - committed[place].commit_time_ms < 60_000
