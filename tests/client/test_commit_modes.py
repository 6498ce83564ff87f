"""Who commits, and when: nothing is committed that was not finished, or nothing comes twice."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import riverrun
from riverrun import CommittedOffset, Offset, Reason, TopicPartition, consumer_commits
from riverrun._core.committing import front_of
from riverrun._core.partition_reader import Delivered, PartitionReader
from riverrun._core.read_ahead import ReadAhead
from riverrun.v1.records_pb2 import RecordBatch
from tests.client.commit_world import CommitWorld, kill
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.filling import fill

TOPIC, GROUP = "t", "g"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
SEEDED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NEVER_S = 600.0


def broker_with(*counts: int) -> FakeBroker:
    broker = FakeBroker()
    for log, count in zip(broker.add_topic(TOPIC, len(counts)).partitions, counts, strict=True):
        fill(log, count)
    return broker


def committed(broker: FakeBroker, place: TopicPartition = PLACE) -> int | None:
    return broker.commits.get((GROUP, *place), (None, ""))[0]


async def all_there(consumer, end: int = 20, place: TopicPartition = PLACE) -> None:
    """Wait until everything has been read ahead."""
    await consumer.assignment()
    async with asyncio.timeout(5):
        while consumer._machine.readers[place].expected < end:
            await consumer._loop.change()


async def some(consumer, count: int) -> list[riverrun.Record]:
    """Take so many at once."""
    await all_there(consumer)
    records = await consumer.getmany(count)
    assert len(records) == count
    return records


@pytest.fixture
async def broker():
    return broker_with(20)


@pytest.fixture
async def client(broker):
    async with broker.serving() as address, impatient(address) as client:
        yield client


def auto(client, **settings):
    settings = {"group": GROUP, "commit": "auto", "commit_interval_s": NEVER_S} | settings
    return client.consumer(TOPIC, **settings)


def at_most_once(client, **settings):
    return client.consumer(TOPIC, group=GROUP, commit="at_most_once", **settings)


# What holds whatever happens.


@given(seed=st.integers(0, 2**32))
@SEEDED
def test_auto_never_commits_what_is_not_finished_and_every_record_comes(seed):
    world = CommitWorld(seed, "auto", crashes=True)
    asyncio.run(asyncio.wait_for(world.run(), 60))
    assert world.all_committed
    assert all(world.times.values()), "a record never came"


@given(seed=st.integers(0, 2**32))
@SEEDED
def test_at_most_once_never_gives_a_record_twice(seed):
    world = CommitWorld(seed, "at_most_once", crashes=True)
    asyncio.run(asyncio.wait_for(world.run(), 60))
    assert world.all_committed
    assert max(world.times.values()) == 1


@pytest.mark.parametrize("mode", ["auto", "at_most_once"])
@given(seed=st.integers(0, 2**32))
@settings(SEEDED, max_examples=6)
def test_where_all_ends_are_in_order_every_record_comes_exactly_once(mode, seed):
    world = CommitWorld(seed, mode, crashes=False)
    asyncio.run(asyncio.wait_for(world.run(), 60))
    assert set(world.times.values()) == {1}


def test_the_worlds_have_many_lives_and_records_that_come_again():
    worlds = [CommitWorld(seed, "auto", crashes=True) for seed in range(8)]
    for world in worlds:
        asyncio.run(asyncio.wait_for(world.run(), 60))
    assert sum(world.in_the_middle for world in worlds) > 20
    assert any(count > 1 for world in worlds for count in world.times.values())


# At least once.


async def test_auto_commits_in_the_background_up_to_the_record_in_hand(client, broker):
    async with auto(client, commit_interval_s=0.01) as consumer:
        for _ in range(8):
            record = await anext(consumer)
        assert record.offset == 7
        await broker.until(lambda: committed(broker) == 7)
        calls = broker.calls.count("CommitOffset")
        await asyncio.sleep(0.1)
        assert committed(broker) == 7
        assert broker.calls.count("CommitOffset") == calls, "nothing new, and it commits"
        assert consumer.statistics().commits == calls


async def test_the_record_in_hand_is_committed_where_the_block_ends_in_order(client, broker):
    async with auto(client) as consumer:
        async for record in consumer:
            if record.offset == 7:
                break
    assert committed(broker) == 8


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_the_record_in_hand_is_not_committed_where_an_exception_leaves_the_block(
    client, broker, error
):
    async def work():
        async with auto(client) as consumer:
            async for record in consumer:
                if record.offset == 7:
                    raise error

    with pytest.raises(error):
        await work()
    assert committed(broker) == 7


async def test_closing_alone_does_not_commit_what_is_in_hand(client, broker):
    consumer = auto(client)
    await some(consumer, 12)
    await some(consumer, 3)
    await consumer.close()
    assert committed(broker) == 12


async def test_some_are_finished_with_when_one_more_is_asked_for():
    broker = broker_with(5, 15)
    async with broker.serving() as address, impatient(address) as client:
        consumer = auto(client)
        await all_there(consumer, 5)
        await all_there(consumer, 15, OTHER)
        places = {record.topic_partition for record in await consumer.getmany(8)}
        assert places == {PLACE, OTHER}
        record = await anext(consumer)
        assert (record.topic_partition, record.offset) == (OTHER, 3)
        await consumer.close()
        assert (committed(broker, PLACE), committed(broker, OTHER)) == (5, 3)


async def test_a_record_is_finished_with_as_soon_as_the_next_is_asked_for(client, broker):
    async with auto(client, commit_interval_s=0.01) as consumer:
        await some(consumer, 20)
        assert await consumer.getmany(timeout_s=0.3) == []
        assert committed(broker) == 20


async def test_what_is_in_hand_stays_there_when_its_partition_is_paused(client, broker):
    consumer = auto(client)
    for _ in range(8):
        await anext(consumer)
    consumer.pause()
    await consumer.close()
    assert committed(broker) == 7


async def test_what_is_in_hand_stays_there_when_a_seek_goes_on(client, broker):
    consumer = auto(client)
    for _ in range(8):
        await anext(consumer)
    await consumer.seek(PLACE, 15)
    await consumer.close()
    assert committed(broker) == 7


async def test_a_seek_backwards_is_committed(client, broker):
    async with auto(client) as consumer:
        await some(consumer, 20)
        await consumer.commit()
        assert committed(broker) == 20
        await consumer.seek(PLACE, 3)
    assert committed(broker) == 3


async def test_a_commit_that_fails_is_tried_again_and_told_once(client, broker, caplog):
    caplog.set_level(logging.INFO, "riverrun")
    broker.refuse["CommitOffset"] = [FakeRefusal("INTERNAL", "a bug") for _ in range(3)]
    async with auto(client, commit_interval_s=0.01) as consumer:
        await some(consumer, 20)
        await consumer.getmany(timeout_s=0)
        await broker.until(lambda: committed(broker) == 20)
    assert "committing works again" in caplog.text
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    assert told[0].startswith("group g: committing failed and is tried again: ")
    assert "a bug" in told[0]


async def test_a_last_commit_that_fails_is_raised_and_all_else_is_closed(client, broker):
    consumer = auto(client)
    await consumer.__aenter__()
    await anext(consumer)
    broker.refuse["CommitOffset"] = [FakeRefusal("INTERNAL", "a bug")]
    with pytest.raises(riverrun.FatalError, match="a bug"):
        await consumer.__aexit__(None, None, None)
    assert committed(broker) is None
    with pytest.raises(riverrun.ClosedError):
        await anext(consumer)


async def test_a_last_commit_that_fails_does_not_hide_the_applications_error(
    client, broker, caplog
):
    async def work():
        async with auto(client) as consumer:
            await anext(consumer)
            broker.refuse["CommitOffset"] = [FakeRefusal("INTERNAL", "a bug")]
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await work()
    assert "the last commit failed" in caplog.text


async def test_a_partition_that_fails_is_committed_up_to_its_failure(client, broker):
    broker.partition(TOPIC).batches[2].records = b"\xff"
    consumer = auto(client)
    for _ in range(10):
        await anext(consumer)
    with pytest.raises(riverrun.CorruptDataError):
        await anext(consumer)
    await consumer.close()
    assert committed(broker) == 10


async def test_leaving_the_client_commits_too(broker):
    async with broker.serving() as address:
        async with impatient(address) as client:
            consumer = auto(client)
            await some(consumer, 12)
            await some(consumer, 3)
        assert committed(broker) == 12


# At most once.


async def test_at_most_once_commits_before_it_gives_and_some_at_a_time(client, broker):
    consumer = at_most_once(client)
    assert len(await some(consumer, 20)) == 20
    assert (committed(broker), broker.calls.count("CommitOffset")) == (20, 1)
    await kill(consumer)


async def test_at_most_once_gives_nothing_that_could_not_be_committed(client, broker):
    broker.refuse["CommitOffset"] = [FakeRefusal("INTERNAL", "a bug")]
    async with at_most_once(client) as consumer:
        with pytest.raises(riverrun.FatalError, match="a bug"):
            await anext(consumer)
        assert await consumer.position(PLACE) == 0
        assert (await anext(consumer)).offset == 0
        assert committed(broker) is not None


@pytest.mark.parametrize("timeout_s", [0, 1e-6])
async def test_at_most_once_comes_to_who_asks_often_and_waits_for_nothing(
    client, broker, timeout_s
):
    async with at_most_once(client) as consumer:
        await all_there(consumer)
        broker.refuse["CommitOffset"] = [FakeRefusal("INTERNAL", "a bug")]
        seen, errors = [], 0
        async with asyncio.timeout(10):
            while len(seen) < 20:
                try:
                    seen += [record.offset for record in await consumer.getmany(7, timeout_s)]
                except riverrun.FatalError:
                    errors += 1
                await asyncio.sleep(0.001)
        assert (seen, errors) == ([*range(20)], 1)
    assert broker.calls.count("CommitOffset") == 2


async def test_who_leaves_in_trouble_is_not_kept_by_the_last_commit(
    client, broker, caplog, monkeypatch
):
    monkeypatch.setattr(consumer_commits, "_HURRIED_COMMIT_S", 0.05)

    async def work():
        async with auto(client) as consumer:
            await anext(consumer)
            refusal = FakeRefusal("STORAGE_STALLED", retry_safe=True, retry_after_s=1)
            broker.refuse["CommitOffset"] = [refusal] * 100
            raise ValueError("its own")

    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="its own"):
            await work()
    assert "the last commit was given up, it had no answer within 0.05 s" in caplog.text
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not [name for name in names if name.startswith("riverrun")]


async def test_closing_the_client_waits_for_a_consumer_that_is_closing(broker):
    async with broker.serving() as address:
        client = impatient(address)
        consumer = auto(client)
        await some(consumer, 12)
        await some(consumer, 3)
        await asyncio.gather(consumer.close(), client.close())
        assert committed(broker) == 12


async def test_at_most_once_gives_back_at_an_orderly_end_what_nobody_has_seen(client, broker):
    async with at_most_once(client) as consumer:
        await all_there(consumer)
        await some(consumer, 7)
        assert committed(broker) == 20
    assert committed(broker) == 7


async def test_at_most_once_commits_anew_behind_a_seek(client, broker):
    consumer = at_most_once(client)
    await some(consumer, 20)
    await consumer.seek(PLACE, 3)
    await all_there(consumer)
    assert (await anext(consumer)).offset == 3
    assert committed(broker) == 20
    assert broker.calls.count("CommitOffset") == 2
    await kill(consumer)


async def test_at_most_once_commits_no_further_than_the_end_that_was_asked_for(broker):
    async with broker.serving() as address, impatient(address) as client:
        consumer = at_most_once(client, stop_at_end=True)
        await consumer.assignment()
        fill(broker.partition(TOPIC), 5)
        await broker.notify()
        assert len([record async for record in consumer]) == 20
        assert committed(broker) == 20
        await consumer.close()


def test_what_is_gone_is_released_without_a_commit_and_holds_nothing_up():
    ahead: ReadAhead = ReadAhead(gated=True)
    gone, other = (PartitionReader(place, b"", 0, 0) for place in (PLACE, OTHER))
    gone.error = riverrun.TopicNotFoundError("gone", reason=Reason.TOPIC_NOT_FOUND)
    for reader in (gone, other):
        batch = RecordBatch(base_offset=0, last_offset_delta=4, record_count=5, leader_epoch=3)
        ahead.add(reader, Delivered(reader.partition, 0, 9, 9, 3, 1, [batch]))
    assert ahead.take() is None
    front = front_of(ahead)
    assert front.positions == {OTHER: CommittedOffset(9, leader_epoch=3)}
    ahead.release(front.batches)
    assert [taken.reader for taken in iter(ahead.take, None)] == [gone, other]


def test_batches_are_released_up_to_a_new_position_and_no_more_than_needed():
    ahead: ReadAhead = ReadAhead(gated=True)
    reader = PartitionReader(PLACE, b"", 0, 0)
    batches = [
        RecordBatch(base_offset=at, last_offset_delta=4, record_count=5) for at in range(0, 20, 5)
    ]
    ahead.add(reader, Delivered(PLACE, 0, 20, 20, 0, 1, batches))
    ahead.add_position(reader, 3)
    ahead.add(reader, Delivered(PLACE, 3, 8, 20, 0, 1, batches[:1]))
    first = front_of(ahead, 6)
    assert (len(first.batches), first.positions[PLACE].offset) == (2, 10)
    ahead.release(first.batches)
    assert [taken.batch.base_offset for taken in iter(ahead.take, None)] == [0, 5]
    rest = front_of(ahead)
    assert (len(rest.batches), rest.positions[PLACE].offset) == (2, 20)
    ahead.release(rest.batches)
    assert len([*iter(ahead.take, None)]) == 2
    assert reader.position == 3
    assert front_of(ahead).positions[PLACE].offset == 8


def test_what_was_purged_before_its_release_is_not_released_when_it_comes_again():
    ahead: ReadAhead = ReadAhead(gated=True)
    reader = PartitionReader(PLACE, b"", 0, 0)
    delivery = Delivered(PLACE, 0, 5, 5, 0, 1, [RecordBatch(last_offset_delta=4, record_count=5)])
    ahead.add(reader, delivery)
    front = front_of(ahead)
    ahead.purge(reader)
    ahead.add(reader, delivery)
    ahead.release(front.batches)
    assert ahead.take() is None


# Asked for.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"commit": "auto"}, 'commit "auto" needs a group'),
        ({"commit": "at_most_once"}, 'commit "at_most_once" needs a group'),
        ({"commit": "sometimes", "group": "g"}, 'use "manual", "auto" or "at_most_once"'),
        ({"commit": "auto", "group": "g", "commit_interval_s": 0}, "a number of seconds, above 0"),
    ],
)
async def test_commit_settings_that_make_no_sense_are_refused(client, settings, said):
    with pytest.raises(riverrun.UsageError, match=said):
        client.consumer(TOPIC, **settings)


async def test_manual_commits_nothing_by_itself(client, broker):
    async with client.consumer(TOPIC, group=GROUP) as consumer:
        await some(consumer, 20)
        await consumer.getmany(timeout_s=0)
    assert committed(broker) is None


async def test_commits_are_stored_in_the_order_in_which_they_were_made(client, broker):
    async with client.consumer(TOPIC, group=GROUP) as consumer:
        await consumer.assignment()
        first = asyncio.create_task(consumer.commit({PLACE: 5}))
        await asyncio.sleep(0)
        first.cancel()
        await consumer.commit({PLACE: CommittedOffset(3, "mine")})
        assert broker.commits[GROUP, TOPIC, 0] == (3, "mine")
    assert broker.calls.count("CommitOffset") == 2, "a commit that was begun came to no end"
    assert broker.commits[GROUP, TOPIC, 0] == (3, "mine")


async def test_positions_out_of_range_are_no_news_for_the_group(client, broker):
    consumer = auto(client, partitions={PLACE: Offset(99)}, offset_reset="error")
    await consumer.assignment()
    await consumer.close()
    assert committed(broker) is None


async def test_of_a_commit_that_one_partition_refuses_the_others_count(client, broker):
    consumer = auto(client)
    await some(consumer, 10)
    with pytest.raises(riverrun.TopicNotFoundError):
        await consumer.commit({TopicPartition(TOPIC, 9): 1, PLACE: 4})
    assert committed(broker) == 4
    # Asked for more, it is through with these; its own commits do not go back behind what was said.
    await consumer._commits.commit_due(consumer._finished)
    assert committed(broker) == 4
    await consumer.close()
    assert committed(broker) == 4


async def test_at_most_once_what_one_partition_refuses_is_not_released_and_the_others_are(
    monkeypatch,
):
    broker = broker_with(5, 5)
    find = broker.find

    def refusing(topic, topic_id, partition):
        if partition == OTHER.partition:
            raise FakeRefusal("INVALID_REQUEST", "not this one")
        return find(topic, topic_id, partition)

    async with broker.serving() as address, impatient(address) as client:
        consumer = at_most_once(client)
        await all_there(consumer, 5, PLACE)
        await all_there(consumer, 5, OTHER)
        monkeypatch.setattr(broker, "find", refusing)
        with pytest.raises(riverrun.UsageError, match="not this one"):
            await consumer.getmany(1)
        released = [*consumer._machine.ahead.released()]
        assert {upcoming.reader.partition for upcoming in released} == {PLACE}
        assert (committed(broker, PLACE), committed(broker, OTHER)) == (5, None)
        monkeypatch.undo()
        assert len(await consumer.getmany(5)) + len(await consumer.getmany(5)) == 10
