"""A stream in virtual time: what is delivered, in which order, and what it holds meanwhile."""

import asyncio
import contextlib

import pytest

from riverrun.v1 import errors_pb2
from riverrun.v1.records_pb2 import RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.reading.control import (
    Broken,
    Commit,
    Grant,
    PartitionName,
    Pause,
    Resume,
    Seek,
)
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import LATEST, Place, PlaceKind, ResetPolicy
from riverrun_server.wire import codecs, forms
from riverrun_server.wire.stored import scan_batch
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World, simulated
from tests.sim.loop import simulate

T0 = PartitionName("t", b"", 0)


def offset(value, leader_epoch=None):
    return Place(PlaceKind.OFFSET, value, leader_epoch)


@simulated
async def test_records_arrive_with_their_offsets_in_order(world, t0, t1):
    t0.append(b"a", b"b")
    t0.append(b"c")
    stream = world.stream(t0)
    async with stream.running():
        await asyncio.sleep(1)
        t0.append(b"d")
        await asyncio.sleep(1)
    assert stream.values() == [b"a", b"b", b"c", b"d"]
    assert stream.spans() == [(0, 3), (3, 4)]
    records = stream.of("delivery")[0].records
    assert [record.offset for record in records] == [0, 1, 2]
    assert stream.kinds()[0] == "started"


@simulated
async def test_nothing_at_or_above_the_high_watermark_is_delivered(world, t0, t1):
    t0.commits_at_once = False
    t0.append(b"a")
    t0.append(b"b")
    stream = world.stream(t0)
    async with stream.running():
        await asyncio.sleep(1)
        assert stream.values() == []
        t0.commit(1)
        await asyncio.sleep(1)
        assert stream.values() == [b"a"]


@simulated
async def test_batches_travel_as_they_are_stored(world, t0, t1):
    t0.append(b"a", codec=codecs.ZSTD)
    t0.append(b"b")
    stream = world.stream(t0, form=forms.batches(codecs.NAMES))
    async with stream.running():
        await asyncio.sleep(1)
    (delivery,) = stream.of("delivery")
    assert [each.SerializeToString() for each in delivery.batches] == [
        each.data for each in t0.batches
    ]
    assert delivery.charged_bytes == sum(len(each.data) for each in t0.batches)
    assert world.threads.calls == 0


@simulated
async def test_batches_in_a_codec_that_the_reader_lacks_are_expanded_and_checked(world, t0, t1):
    t0.append(b"a", b"b", codec=codecs.ZSTD)
    t0.append(b"c", codec=codecs.GZIP)
    stream = world.stream(t0, form=forms.batches([codecs.GZIP]))
    async with stream.running():
        await asyncio.sleep(1)
    first, second = [batch for each in stream.of("delivery") for batch in each.batches]
    assert [each.value for each in RecordSet.FromString(first.records).records] == [b"a", b"b"]
    assert first.codec == codecs.NONE
    scan_batch(t0.id, first.SerializeToString())
    assert second.codec == codecs.GZIP
    assert world.threads.calls > 0


@simulated
async def test_compressed_batches_are_taken_apart_in_a_thread_and_small_plain_ones_are_not(
    world, t0, t1
):
    t0.append(b"a")
    t1.append(b"b", codec=codecs.GZIP)
    stream = world.stream(t0)
    async with stream.running():
        await asyncio.sleep(1)
    assert (stream.values(), world.threads.calls) == ([b"a"], 0)
    stream = world.stream(t1)
    async with stream.running():
        await asyncio.sleep(1)
    assert (stream.values(), world.threads.calls) == ([b"b"], 1)


@simulated
async def test_damaged_records_stop_their_partition_and_no_other(world, t0, t1):
    t0.append(b"a")
    damaged = RecordBatch.FromString(t0.batches[0].data)
    damaged.records = b"x" + damaged.records[1:]
    t0.batches[0] = t0.batches[0]._replace(data=damaged.SerializeToString())
    t1.append(b"b")
    stream = world.stream(t0, t1)
    async with stream.running():
        await asyncio.sleep(1)
    assert stream.values() == [b"b"]
    (error,) = stream.of("partition_error")
    assert error.error.reason == errors_pb2.ERROR_REASON_CORRUPT_DATA
    assert error.partition == 0


@simulated
async def test_a_chunk_that_is_taken_apart_in_steps_has_no_gap_and_no_repeat(world, t0, t1):
    big = [bytes([n]) * 90_000 for n in range(10)]
    t0.append(*big)
    t0.append(b"end")
    stream = world.stream(t0, frame_bytes=200_000)
    async with stream.running():
        await asyncio.sleep(1)
    assert stream.values() == [*big, b"end"]
    assert all(len(each.SerializeToString()) <= 200_600 for each in stream.of("delivery"))
    assert len(stream.spans()) > 4
    assert all(a[1] == b[0] for a, b in zip(stream.spans(), stream.spans()[1:], strict=False))


@simulated
async def test_a_subscriber_that_never_reads_holds_one_message_and_disturbs_nobody(world, t0, t1):
    for n in range(200):
        t0.append(bytes([n]) * 100_000)
    stuck = world.stream(t0, form=forms.batches(codecs.NAMES))
    stuck.flowing.clear()
    other = world.stream(t0, form=forms.batches(codecs.NAMES))
    async with stuck.running(), other.running():
        await asyncio.sleep(1)
        before = t0.takes
        for n in range(50):
            t0.append(bytes([n]) * 100)
            await asyncio.sleep(1)
        assert other.spans()[-1][1] == 250
        assert stuck.writing == 1
        assert stuck.frames == []
        stuck.flowing.set()
        await asyncio.sleep(1)
        assert stuck.spans()[-1][1] == 250
    assert before > 0


@simulated
async def test_credit_is_obeyed_and_refilled_by_grants(world, t0, t1):
    t0.append(*[b"x"] * 10)
    stream = world.stream(t0, credit_records=3)
    async with stream.running():
        await asyncio.sleep(1)
        assert len(stream.values()) == 3
        await stream.say(Grant(4, None))
        await asyncio.sleep(1)
        assert len(stream.values()) == 7
        await stream.half_close()
        await asyncio.sleep(1)
        assert len(stream.values()) == 10


@simulated
async def test_pause_and_resume(world, t0, t1):
    stream = world.stream(t0, t1)
    async with stream.running():
        await stream.say(Pause([T0]))
        await asyncio.sleep(1)
        t0.append(b"a")
        t1.append(b"b")
        await asyncio.sleep(1)
        assert stream.values() == [b"b"]
        await stream.say(Resume([]))
        await asyncio.sleep(1)
        assert stream.values() == [b"b", b"a"]
        await stream.say(Pause([]))
        await asyncio.sleep(1)
        t0.append(b"c")
        t1.append(b"d")
        await asyncio.sleep(1)
        assert len(stream.values()) == 2


@simulated
async def test_nothing_from_the_old_position_comes_after_seek_done(world, t0, t1):
    t0.append(*[b"%d" % n for n in range(1000)])
    stream = world.stream(t0, frame_bytes=300)
    async with stream.running():
        await stream.say(Seek(7, T0, offset(990)))
        await asyncio.sleep(1)
    done = stream.kinds().index("seek_done")
    answer = stream.frames[done].seek_done
    assert (answer.seek_id, answer.position.offset) == (7, 990)
    after = [each.delivery for each in stream.frames[done:] if each.HasField("delivery")]
    assert after[0].first_offset == 990
    assert [record.offset for each in after for record in each.records] == list(range(990, 1000))


@simulated
async def test_a_seek_that_makes_no_sense_stops_its_partition_until_the_next(world, t0, t1):
    stream = world.stream(t0, t1)
    async with stream.running():
        await stream.say(Seek(1, T0, Refusal(Reason.INVALID_REQUEST, "negative")))
        await asyncio.sleep(1)
        t0.append(b"a")
        t1.append(b"b")
        await asyncio.sleep(1)
        assert stream.values() == [b"b"]
        (error,) = stream.of("partition_error")
        assert (error.error.message, error.seek_id) == ("negative", 1)
        await stream.say(Seek(2, T0, offset(0)))
        await asyncio.sleep(1)
        assert stream.values() == [b"b", b"a"]


@simulated
async def test_control_over_a_partition_that_the_stream_does_not_read_is_an_error(world, t0, t1):
    stream = world.stream(t0)
    async with stream.running():
        await stream.say(Seek(1, PartitionName("t", b"", 1), offset(0)))
        await stream.say(Pause([PartitionName("nope", b"", 0)]))
        t0.append(b"a")
        await asyncio.sleep(1)
    first, second = stream.of("partition_error")
    assert first.error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    assert (first.seek_id, second.seek_id) == (1, 0)
    assert second.error.reason == errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND
    assert stream.values() == [b"a"]


@simulated
async def test_a_reader_out_of_range_is_reset_with_an_announcement(world, t0, t1):
    t0.append(*[b"x"] * 10)
    await t0.trim(4)
    stream = world.stream(t0, place=offset(2), reset=ResetPolicy.EARLIEST)
    async with stream.running():
        await asyncio.sleep(1)
    (reset,) = stream.of("position_reset")
    assert (reset.old_offset, reset.position.offset) == (2, 4)
    assert reset.cause.reason == errors_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE
    assert stream.spans()[0] == (4, 10)


@simulated
async def test_a_reset_to_the_latest_skips_what_is_there(world, t0, t1):
    t0.append(b"a")
    stream = world.stream(t0, place=offset(50), reset=ResetPolicy.LATEST)
    async with stream.running():
        await asyncio.sleep(1)
        t0.append(b"b")
        await asyncio.sleep(1)
    assert stream.of("position_reset")[0].position.offset == 1
    assert stream.values() == [b"b"]


@simulated
async def test_without_a_policy_a_position_out_of_range_is_an_error_with_what_there_is(
    world, t0, t1
):
    t0.append(b"a")
    stream = world.stream(t0, place=offset(50))
    async with stream.running():
        await asyncio.sleep(1)
    (error,) = stream.of("partition_error")
    assert error.error.reason == errors_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE
    assert (error.error.available.earliest, error.error.available.latest) == (0, 1)


@simulated
async def test_between_watermark_and_log_end_a_reader_waits(world, t0, t1):
    t0.commits_at_once = False
    t0.append(b"a", b"b")
    stream = world.stream(t0, place=offset(1), reset=ResetPolicy.EARLIEST)
    async with stream.running():
        await asyncio.sleep(1)
        assert "position_reset" not in stream.kinds()
        t0.commit()
        await asyncio.sleep(1)
    assert stream.values() == [b"b"]


@simulated
async def test_a_truncated_position_is_told_and_never_reset(world, t0, t1):
    t0.append(*[b"x"] * 10)
    t0.truncate(0, leader_epoch=2)
    t0.append(*[b"y"] * 20)
    stream = world.stream(t0, place=offset(10, 1), reset=ResetPolicy.EARLIEST)
    async with stream.running():
        await asyncio.sleep(1)
    (error,) = stream.of("partition_error")
    assert error.error.reason == errors_pb2.ERROR_REASON_LOG_TRUNCATED
    assert error.error.diverging_offset == 0
    assert stream.values() == []


@simulated
async def test_stop_at_end_delivers_what_was_committed_at_the_start_and_ends(world, t0, t1):
    t0.append(b"a")
    stream = world.stream(t0, t1, stop_at_end=True)
    stream.on_write = lambda _: t0.append(b"later")
    await asyncio.wait_for(stream.run(), 1)
    assert stream.values() == [b"a"]


@simulated
async def test_an_end_within_a_chunk_lets_the_other_partitions_go_on(world, t0, t1):
    t0.append(b"a")
    t1.append(b"b")
    stream = world.stream(t0, t1, stop_at_end=True)

    def grow(_):
        # Small as stored and too large for one step: behind the end is more of the same chunk.
        if not stream.of("delivery"):
            for partition in (t0, t1):
                for _ in range(3):
                    partition.append(bytes(200_000), codec=codecs.ZSTD)

    stream.on_write = grow
    await asyncio.wait_for(stream.run(), 1)
    assert sorted(stream.values()) == [b"a", b"b"]


@simulated
async def test_stop_at_end_on_an_empty_topic_ends_at_once(world, t0, t1):
    stream = world.stream(t0, t1, stop_at_end=True)
    await asyncio.wait_for(stream.run(), 1)
    assert stream.kinds() == ["started", "caught_up", "caught_up"]


@simulated
async def test_max_records_ends_the_stream_in_the_middle_of_a_batch(world, t0, t1):
    t0.append(*[b"%d" % n for n in range(10)])
    for form in (forms.RECORDS, forms.batches(codecs.NAMES)):
        stream = world.stream(t0, max_records=3, form=form)
        await asyncio.wait_for(stream.run(), 1)
        assert stream.spans() == [(0, 3)]


@simulated
async def test_caught_up_is_told_for_each_partition_behind_its_records(world, t0, t1):
    t0.append(b"a")
    stream = world.stream(t0, t1)
    async with stream.running():
        await asyncio.sleep(1)
        t0.append(b"b")
        await asyncio.sleep(1)
    caught_up = [each.position.partition for each in stream.of("caught_up")]
    assert sorted(caught_up) == [0, 1]
    kinds = stream.kinds()
    assert kinds.index("delivery") < max(at for at, kind in enumerate(kinds) if kind == "caught_up")


@simulated
async def test_heartbeats_come_at_their_interval_with_fresh_lags(world, t0, t1):
    stream = world.stream(t0, t1, credit_records=0)
    async with stream.running():
        await asyncio.sleep(1)
        t0.append(b"a", b"b")
        await asyncio.sleep(9)
    beats = stream.of("heartbeat")
    assert len(beats) == 3
    assert [(lag.position, lag.high_watermark) for lag in beats[0].lags] == [(0, 2), (0, 0)]
    assert beats[0].credit_left.records == 0
    assert not beats[0].credit_left.HasField("bytes")
    assert stream.of("started")[0].heartbeat_interval.seconds == 3


@simulated
async def test_streams_that_are_opened_at_once_do_not_beat_at_once(world, t0, t1):
    streams = [world.stream(t0, credit_records=0) for _ in range(12)]
    async with contextlib.AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(stream.running())
        # The first one comes between half an interval and all of it.
        await asyncio.sleep(1.4)
        assert not any(stream.of("heartbeat") for stream in streams)
        await asyncio.sleep(0.85)
        assert 2 < sum(bool(stream.of("heartbeat")) for stream in streams) < 10
        await asyncio.sleep(0.85)
        assert all(len(stream.of("heartbeat")) == 1 for stream in streams)


@simulated
async def test_a_heartbeat_that_falls_due_while_a_message_is_written_follows_it(world, t0, t1):
    stream = world.stream(t0, credit_records=0)

    def block_behind_started(frame):
        if frame.HasField("started"):
            stream.flowing.clear()

    stream.on_write = block_behind_started
    async with stream.running():
        await asyncio.sleep(4)
        assert stream.kinds() == ["started"]
        stream.flowing.set()
        await asyncio.sleep(0.1)
        assert stream.kinds() == ["started", "caught_up", "heartbeat"]


@simulated
async def test_a_partition_that_cannot_answer_does_not_keep_others_from_starting(world, t0, t1):
    t0.broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    t1.append(b"b")
    stream = world.stream(t0, t1)
    async with stream.running():
        await asyncio.sleep(10)
        assert stream.values() == [b"b"]
        assert len(stream.of("started")[0].positions) == 1
        assert len(stream.of("partition_error")) == 1
        assert stream.of("heartbeat")
        t0.broken = None
        t0.append(b"a")
        await stream.say(Seek(1, T0, offset(0)))
        await asyncio.sleep(1)
        assert stream.values() == [b"b", b"a"]


@simulated
async def test_a_stream_without_control_ends_with_the_failure_when_nothing_can_be_read(
    world, t0, t1
):
    t0.broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    stream = world.stream(t0)
    async with stream.running() as task:
        await asyncio.sleep(5)
        assert not task.done()
        await stream.half_close()
        with pytest.raises(Refusal, match="damaged"):
            await task
    assert stream.kinds().count("partition_error") == 1


@simulated
async def test_breaking_the_rules_ends_the_stream_behind_what_was_said_before(world, t0, t1):
    stream = world.stream(t0)
    async with stream.running() as task:
        await stream.say(Pause([]))
        await stream.say(Broken(Refusal(Reason.INVALID_REQUEST, "a second start")))
        with pytest.raises(Refusal, match="a second start"):
            await task
    assert t0.cursors == []


@simulated
async def test_a_broker_that_goes_away_says_so_and_ends_in_order(world, t0, t1):
    stream = world.stream(t0)
    async with stream.running() as task:
        await asyncio.sleep(1)
        stream.reader.leave("shutting down")
        await asyncio.wait_for(task, 1)
    assert stream.kinds()[-1] == "going_away"
    assert t0.cursors == []


@simulated
async def test_a_cancelled_stream_lets_go_of_its_cursors_and_commits(world, t0, t1):
    world.directory.create("__consumer_offsets", 1)[0].commits_at_once = False
    stream = world.stream(t0, t1, group_id="g")
    async with stream.running():
        await stream.say(Commit(1, [OffsetCommit("t", b"", 0, 0)]))
        await asyncio.sleep(1)
        assert len(t0.cursors) == 1
    assert t0.cursors == t1.cursors == []


@simulated
async def test_latest_delivers_only_what_comes_from_now_on(world, t0, t1):
    t0.append(b"old")
    stream = world.stream(t0, place=LATEST)
    async with stream.running():
        await asyncio.sleep(1)
        t0.append(b"new")
        await asyncio.sleep(1)
    assert stream.values() == [b"new"]


def test_all_cursors_of_a_stream_together_read_ahead_only_so_much():
    async def run():
        directory = FakeDirectory()
        many = directory.create("t", 256)
        sizes = []
        for each in many:
            for _ in range(3):
                each.append(b"x" * 100_000)
            read = each.read
            each.read = lambda at, size, read=read: (sizes.append(size), read(at, size))[1]
        async with World(directory) as world:
            stream = world.stream(*many, form=forms.batches(codecs.NAMES))
            async with stream.running():
                await asyncio.sleep(1)
        assert len(stream.of("delivery")) >= 256
        return sizes

    limits = ReadingLimits()
    sizes = simulate(run(), 1)
    assert sizes[0] <= max(limits.chunk_bytes_min, limits.read_ahead_bytes // 256)


def test_everyone_in_a_stream_gets_records_while_one_partition_has_a_large_backlog():
    async def run():
        directory = FakeDirectory()
        big, *small = directory.create("t", 4)
        for _ in range(50):
            big.append(b"x" * 900_000)
        for each in small:
            each.append(b"hello")
        async with World(directory) as world:
            stream = world.stream(big, *small)
            async with stream.running():
                await asyncio.sleep(1)
            deliveries = stream.of("delivery")
            return [
                next(at for at, each in enumerate(deliveries) if each.partition == n)
                for n in range(4)
            ]

    assert max(simulate(run(), 1)) < 8
