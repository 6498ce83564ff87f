"""Commits of a stream in virtual time: said by its reader, or made by the broker on delivery."""

import asyncio

from riverrun.v1 import errors_pb2
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.reading.control import Commit, PartitionName, Seek
from riverrun_server.core.reading.places import COMMITTED
from tests.rpc.reading_world import simulated

T0 = PartitionName("t", b"", 0)


@simulated
async def test_commits_on_the_stream_are_answered_when_they_are_durable(world, t0, t1):
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    offsets.commits_at_once = False
    t0.append(b"a")
    stream = world.stream(t0, group_id="g")
    async with stream.running():
        await asyncio.sleep(1)
        await stream.say(
            Commit(5, [OffsetCommit("t", b"", 0, 1, 1, "note"), OffsetCommit("t", b"", 9, 1)])
        )
        await asyncio.sleep(1)
        assert "commit_result" not in stream.kinds()
        offsets.commit()
        await asyncio.sleep(1)
    (result,) = stream.of("commit_result")
    assert result.commit_id == 5
    assert [each.error.reason for each in result.results] == [
        0,
        errors_pb2.ERROR_REASON_PARTITION_NOT_FOUND,
    ]
    committed = await world.offsets.committed("g")
    assert (committed[t0.id].offset, committed[t0.id].metadata) == (1, "note")


@simulated
async def test_a_commit_without_a_group_is_refused_offset_by_offset(world, t0, t1):
    stream = world.stream(t0)
    async with stream.running():
        await stream.say(Commit(1, [OffsetCommit("t", b"", 0, 0)]))
        await asyncio.sleep(1)
    (result,) = stream.of("commit_result")
    assert "group" in result.results[0].error.message


@simulated
async def test_too_many_commits_wait_their_turn_and_all_are_answered(world, t0, t1):
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    offsets.commits_at_once = False
    stream = world.stream(t0, group_id="g")

    async def commit_many():
        for n in range(100):
            await stream.say(Commit(n, [OffsetCommit("t", b"", 0, 0)]))

    async with stream.running():
        talking = asyncio.create_task(commit_many())
        await asyncio.sleep(5)
        assert not talking.done()
        assert len(stream.reader.control._commits) == world.services.limits.commits_waiting
        offsets.commits_at_once = True
        offsets.commit()
        await asyncio.sleep(5)
        await talking
    assert sorted(each.commit_id for each in stream.of("commit_result")) == list(range(100))


@simulated
async def test_on_delivery_a_position_is_stored_before_its_records_are_sent(world, t0, t1):
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    offsets.commits_at_once = False
    t0.append(b"a", b"b")
    stream = world.stream(t0, group_id="g", commit_on_delivery=True)
    async with stream.running():
        await asyncio.sleep(1)
        assert stream.values() == []
        offsets.commit()
        await asyncio.sleep(1)
        assert stream.values() == [b"a", b"b"]
        assert (await world.offsets.committed("g"))[t0.id].offset == 2


@simulated
async def test_a_position_that_cannot_be_stored_is_not_delivered(world, t0, t1):
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    t0.append(b"a", b"b")
    offsets.answers = [Refusal(Reason.STORAGE_FULL, "full")]
    stream = world.stream(t0, group_id="g", commit_on_delivery=True)
    async with stream.running():
        await asyncio.sleep(1)
        assert stream.values() == []
        (error,) = stream.of("partition_error")
        assert error.error.reason == errors_pb2.ERROR_REASON_STORAGE_FULL
        await stream.say(Seek(1, T0, COMMITTED))
        await asyncio.sleep(1)
        assert stream.values() == [b"a", b"b"]


@simulated
async def test_records_delivered_once_with_commits_on_delivery_do_not_come_again(world, t0, t1):
    t0.append(*[b"%d" % n for n in range(10)])
    seen = []
    for _ in range(3):
        stream = world.stream(
            t0,
            place=COMMITTED,
            group_id="g",
            commit_on_delivery=True,
            max_records=4,
            stop_at_end=True,
        )
        await asyncio.wait_for(stream.run(), 5)
        seen += stream.values()
    assert seen == [b"%d" % n for n in range(10)]
