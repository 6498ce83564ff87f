"""What `consume` writes and commits, with a consumer that the test plays."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from riverrun import (
    CommittedOffset,
    OffsetAndTimestamp,
    Reason,
    Record,
    RiverrunError,
    TopicPartition,
)
from riverrun.cli.committing import Committer
from riverrun.cli.consume import ConsumeOptions
from riverrun.cli.consuming import Reading
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.places import AtOffset, AtTime
from riverrun.cli.rendering import value_renderer
from riverrun.cli.stdout import StandardOutput

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Batch(list):
    """Records of one partition, as a consumer gives them."""

    def __init__(self, where, first, times, next_offset=None):
        super().__init__(
            Record(*where, first + at, at_ms, None, b"%d.%d" % (where.partition, first + at))
            for at, at_ms in enumerate(times)
        )
        self.topic, self.partition = where
        self.offsets = range(first, first + len(times))
        self.leader_epoch = 4
        self.next_offset = first + len(times) if next_offset is None else next_offset

    def values(self):
        """Give their values."""
        return [record.value for record in self]

    def timestamps_ms(self):
        """Give their timestamps."""
        return [record.timestamp_ms for record in self]


class PlayedConsumer:
    """A consumer of two partitions that gives the test's batches, then waits or ends."""

    def __init__(self, batches, *, ends=None, found=None, positions=None, endless=True):
        self.given = batches
        self.ends = ends or {}
        self.found = found or {}
        self.positions = positions or {}
        self.endless = endless
        self.commits = []
        self.paused = set()
        self.waiting = asyncio.Event()

    async def batches(self):
        """Give all batches."""
        for batch in self.given:
            if isinstance(batch, Exception):
                raise batch
            yield batch
        self.waiting.set()
        if self.endless:
            await asyncio.Event().wait()

    async def assignment(self):
        """Name both partitions."""
        return (P0, P1)

    async def position(self, where):
        """Tell the test's position."""
        return self.positions.get(where, 0)

    async def end_offsets(self, _partitions=None):
        """Tell the test's high watermarks."""
        return {P0: self.ends.get(P0, 0), P1: self.ends.get(P1, 0)}

    async def offsets_for_times(self, times_ms):
        """Tell the test's offsets."""
        return {where: self.found.get(where) for where in times_ms}

    def pause(self, partitions=()):
        """Note what is paused; none named would be all."""
        assert partitions
        self.paused |= set(partitions)

    async def commit(self, offsets):
        """Note what is committed."""
        self.commits.append({where: position.offset for where, position in offsets.items()})


def options(**given):
    """Ask for something, everything else by default."""
    plain = {
        "topic": "t",
        "group": None,
        "start": None,
        "until": None,
        "partitions": (),
        "max_records": None,
        "exit_at_end": False,
        "template": None,
        "delimiter": b"\n",
        "null_value": b"",
    }
    return ConsumeOptions(**plain | given)


async def lines_of(consumer, asked, tmp_path):
    """Read to the end and return the lines written."""
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    output = StandardOutput(descriptor)
    reading = Reading(consumer, (P0, P1), asked, value_renderer(b"\n"), output)
    try:
        async with asyncio.timeout(20):
            await reading.read()
    finally:
        await reading.finish(None)
        os.close(descriptor)
    return path.read_text().split()


async def test_it_ends_where_the_consumer_ends(tmp_path):
    consumer = PlayedConsumer([Batch(P0, 0, [1, 2]), Batch(P1, 5, [3])], endless=False)
    assert await lines_of(consumer, options(), tmp_path) == ["0.0", "0.1", "1.5"]
    assert consumer.commits == []


async def test_max_cuts_a_batch_and_commits_what_was_written(tmp_path):
    consumer = PlayedConsumer([Batch(P0, 0, [1, 2, 3]), Batch(P1, 0, [1, 2, 3])])
    asked = options(max_records=4, group="g")
    assert await lines_of(consumer, asked, tmp_path) == ["0.0", "0.1", "0.2", "1.0"]
    assert consumer.commits == [{P0: 3, P1: 1}]


async def test_the_position_behind_a_batch_is_committed_also_where_it_lies_behind_a_gap(tmp_path):
    consumer = PlayedConsumer([Batch(P0, 0, [1], next_offset=9)], endless=False)
    await lines_of(consumer, options(group="g"), tmp_path)
    assert consumer.commits == [{P0: 9}]


async def test_what_is_committed_already_is_not_committed_again():
    consumer = PlayedConsumer([])
    committer = Committer(consumer)
    committer.written[P0] = CommittedOffset(5)
    await committer.finish()
    await committer.finish()
    committer.written[P1] = CommittedOffset(2)
    await committer.finish()
    assert consumer.commits == [{P0: 5}, {P1: 2}]


async def test_until_an_offset_ends_each_partition_there(tmp_path):
    consumer = PlayedConsumer(
        [Batch(P0, 0, [1] * 4), Batch(P0, 4, [1]), Batch(P1, 2, [1] * 4)], positions={P1: 2}
    )
    consumer.given.insert(2, Batch(P0, 5, [], next_offset=9))
    asked = options(until=AtOffset(3), group="g")
    assert await lines_of(consumer, asked, tmp_path) == ["0.0", "0.1", "0.2", "1.2"]
    assert consumer.paused == {P0, P1}
    assert consumer.commits == [{P0: 3, P1: 3}]


async def test_partitions_that_are_past_the_end_already_are_not_waited_for(tmp_path):
    consumer = PlayedConsumer([], positions={P0: 7, P1: 5})
    assert await lines_of(consumer, options(until=AtOffset(5)), tmp_path) == []


async def test_until_and_exit_at_end_stop_at_whichever_comes_first(tmp_path):
    consumer = PlayedConsumer([Batch(P0, 0, [1] * 10), Batch(P1, 0, [1] * 2)], ends={P0: 10, P1: 2})
    asked = options(until=AtOffset(4), exit_at_end=True)
    lines = await lines_of(consumer, asked, tmp_path)
    assert lines == ["0.0", "0.1", "0.2", "0.3", "1.0", "1.1"]


async def test_until_a_time_in_the_past_ends_at_the_first_later_record_or_the_high_watermark(
    tmp_path,
):
    consumer = PlayedConsumer(
        [Batch(P0, 0, [10, 20, 30, 15]), Batch(P1, 0, [10, 12])],
        found={P0: OffsetAndTimestamp(2, 30)},
        ends={P0: 4, P1: 2},
    )
    lines = await lines_of(consumer, options(until=AtTime(25)), tmp_path)
    assert lines == ["0.0", "0.1", "1.0", "1.1"]


async def test_until_a_time_to_come_ends_when_it_has_come(tmp_path):
    soon_ms = time.time_ns() // 1_000_000 + 300
    consumer = PlayedConsumer(
        [Batch(P0, 0, [5, soon_ms + 1]), Batch(P1, 0, [5])], ends={P1: 1}, positions={P1: 1}
    )
    assert await lines_of(consumer, options(until=AtTime(soon_ms)), tmp_path) == ["0.0", "1.0"]
    assert time.time_ns() // 1_000_000 >= soon_ms


async def test_an_error_comes_after_what_was_read_before_it_is_written_and_committed(tmp_path):
    error = RiverrunError("gone", reason=Reason.OFFSET_OUT_OF_RANGE)
    consumer = PlayedConsumer([Batch(P0, 0, [1, 2]), error])
    with pytest.raises(RiverrunError, match="gone"):
        await lines_of(consumer, options(group="g"), tmp_path)
    assert (tmp_path / "out").read_text() == "0.0\n0.1\n"
    assert consumer.commits == [{P0: 2}]


async def test_what_could_not_be_written_is_not_committed():
    reader, writer = os.pipe()
    os.close(reader)
    consumer = PlayedConsumer([Batch(P0, 0, [1, 2])])
    output = StandardOutput(writer)
    reading = Reading(consumer, (P0, P1), options(group="g"), value_renderer(b"\n"), output)
    working = asyncio.create_task(reading.read())
    await consumer.waiting.wait()
    with pytest.raises(BrokenPipeError):
        await reading.finish(None)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    os.close(writer)
    assert consumer.commits == []


async def test_a_commit_that_nobody_answers_is_given_up_in_time_and_its_outcome_is_unknown(
    tmp_path,
):
    consumer = PlayedConsumer([])

    async def commit(_offsets):
        await asyncio.Event().wait()

    consumer.commit = commit
    with (tmp_path / "out").open("wb") as out:
        output = StandardOutput(out.fileno())
        asked = options(group="g")
        reading = Reading(consumer, (P0,), asked, value_renderer(b"\n"), output)
        await reading._take(Batch(P0, 0, [1, 2]))
        with pytest.raises(Complaint, match="no broker has stored the offsets of group g") as told:
            await reading.finish(0.05)
    assert told.value.code is Exit.UNKNOWN_OUTCOME
    assert reading.printed == 2


async def test_a_pipe_that_nobody_reads_is_given_up_in_time():
    reader, writer = os.pipe()
    consumer = PlayedConsumer([Batch(P0, 0, [1] * 200_000)])
    output = StandardOutput(writer)
    reading = Reading(consumer, (P0, P1), options(group="g"), value_renderer(b"\n"), output)
    working = asyncio.create_task(reading.read())
    for _ in range(10):
        await asyncio.sleep(0)
    await reading.finish(0.05)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert consumer.commits == []
    os.close(reader)
    os.close(writer)
