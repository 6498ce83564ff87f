"""Records of small calls share a batch; each call is told its own offsets, and fails as it would alone."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, Stamp
from riverrun_server.ports.partitions import Acks, Appended
from riverrun_server.rpc.gathering import Gathering
from riverrun_server.wire.ingress import IngressLimits, pack_records

NOW_MS = 1_700_000_000_000
LIMITS = IngressLimits(1 << 20)


class Partition:
    """Takes appends, and answers when it is told to."""

    def __init__(self, max_batch_bytes=1 << 20):
        self.max_batch_bytes = max_batch_bytes
        self.appends = []
        self.end = 0
        self._came = asyncio.Event()

    def submit(self, append):
        self.appends.append(append)
        self._came.set()

    async def has(self, records):
        """Wait until so many records have come."""
        while sum(each.batch.header.record_count for each in self.appends) < records:
            self._came.clear()
            await self._came.wait()

    def answer(self, error=None):
        for append in self.appends:
            count = append.batch.header.record_count
            base, self.end = self.end, self.end + count
            append.done(Appended(None if error else base, count, 0, error=error))

    def values(self):
        """What each append would store."""
        found = []
        for append in self.appends:
            count = append.batch.header.record_count
            stamp = Stamp(0, count - 1, 1, NOW_MS, NOW_MS)
            batch = RecordBatch.FromString(append.batch.stamped(PartitionId(bytes(16), 0), stamp))
            records = RecordSet.FromString(batch.records).records
            assert batch.record_count == len(records) == count
            found.append([record.value for record in records])
        return found


def packed(*values, timestamp_ms=None):
    return pack_records(
        [Record(value=v, timestamp_ms=timestamp_ms) for v in values], LIMITS, NOW_MS
    )


@pytest.fixture
def gathering():
    return Gathering(lambda: NOW_MS)


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_calls_of_one_turn_share_a_batch_and_each_is_told_its_own_offsets(gathering):
    partition, told = Partition(), []
    partition.end = 100
    gathering.add(partition, packed(b"a"), Acks.ALL, told.append)
    gathering.add(partition, packed(b"b", b"c"), Acks.ALL, told.append)
    gathering.add(partition, packed(b"d"), Acks.ALL, told.append)
    assert not partition.appends
    await turn()
    assert partition.values() == [[b"a", b"b", b"c", b"d"]]
    partition.answer()
    assert [(each.base_offset, each.record_count) for each in told] == [
        (100, 1),
        (101, 2),
        (103, 1),
    ]


async def test_a_call_that_comes_alone_is_appended_at_the_end_of_the_turn(gathering):
    partition = Partition()
    for value in (b"a", b"b"):
        gathering.add(partition, packed(value), Acks.ALL, lambda _: None)
        await turn()
    assert partition.values() == [[b"a"], [b"b"]]


async def test_partitions_and_ack_conditions_are_kept_apart(gathering):
    one, other = Partition(), Partition()
    gathering.add(one, packed(b"a"), Acks.ALL, lambda _: None)
    gathering.add(one, packed(b"b"), Acks.NONE, lambda _: None)
    gathering.add(other, packed(b"c"), Acks.ALL, lambda _: None)
    await turn()
    assert sorted(one.values()) == [[b"a"], [b"b"]]
    assert other.values() == [[b"c"]]
    assert {append.acks for append in one.appends} == {Acks.ALL, Acks.NONE}


async def test_what_does_not_fit_begins_a_new_batch_and_keeps_its_order(gathering):
    partition = Partition(max_batch_bytes=300)
    for letter in (b"a", b"b", b"c"):
        gathering.add(partition, packed(letter * 120), Acks.ALL, lambda _: None)
    await turn()
    assert [[value[:1] for value in values] for values in partition.values()] == [
        [b"a", b"b"],
        [b"c"],
    ]


async def test_a_refusal_of_the_batch_is_told_to_each_call_as_it_is(gathering):
    partition, told = Partition(), []
    for value in (b"a", b"b"):
        gathering.add(partition, packed(value), Acks.ALL, told.append)
    await turn()
    full = Refusal(Reason.STORAGE_FULL, "no room")
    partition.answer(full)
    assert [(each.base_offset, each.record_count, each.error) for each in told] == [
        (None, 1, full),
        (None, 1, full),
    ]


async def test_a_batch_has_the_latest_time_of_all_and_none_where_one_record_has_none(gathering):
    timed, mixed = Partition(), Partition()
    gathering.add(timed, packed(b"a", timestamp_ms=5), Acks.ALL, lambda _: None)
    gathering.add(timed, packed(b"b", timestamp_ms=3), Acks.ALL, lambda _: None)
    gathering.add(mixed, packed(b"a", timestamp_ms=5), Acks.ALL, lambda _: None)
    gathering.add(mixed, packed(b"b"), Acks.ALL, lambda _: None)
    await turn()
    assert timed.appends[0].batch.header.max_timestamp_ms == 5
    assert mixed.appends[0].batch.header.max_timestamp_ms == 0


async def test_many_calls_wait_for_one_another_and_not_once_there_are_enough(gathering):
    partition = Partition()
    now_s = time.perf_counter()
    pace = gathering._pace(partition, Acks.ALL, now_s - 1)
    for _ in range(20):
        pace.came()
    pace.closed(now_s, time.thread_time() + 1)
    for _ in range(20):
        pace.left()
    gathering.add(partition, packed(b"0"), Acks.ALL, lambda _: None)
    await turn()
    assert not partition.appends
    for n in range(1, pace.aim):
        gathering.add(partition, packed(b"%d" % n), Acks.ALL, lambda _: None)
    await turn()
    assert partition.values() == [[b"%d" % n for n in range(pace.aim)]]
    assert not gathering._open


async def test_a_bug_while_appending_answers_every_call_with_an_unknown_outcome(gathering):
    class Broken(Partition):
        def submit(self, append):
            raise AssertionError("a bug")

    told = []
    for value in (b"a", b"b"):
        gathering.add(Broken(), packed(value), Acks.ALL, told.append)
    await turn()
    assert [each.error.reason for each in told] == [Reason.INTERNAL] * 2
    assert not any(each.error.meaning.definite for each in told)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.booleans()),
        max_size=20,
    )
)
def test_every_record_is_stored_once_in_order_where_its_call_was_told(calls):
    async def scenario():
        gathering, partition, told = Gathering(lambda: NOW_MS), Partition(120), []
        for values, ends_turn in calls:
            gathering.add(
                partition,
                packed(*values),
                Acks.ALL,
                lambda answer, v=values: told.append((v, answer)),
            )
            if ends_turn:
                await asyncio.sleep(0)
        # Calls as fast as these wait for one another.
        await partition.has(sum(len(values) for values, _ in calls))
        partition.answer()
        return [value for values in partition.values() for value in values], told

    log, told = asyncio.run(scenario())
    assert log == [value for values, _ in calls for value in values]
    assert len(told) == len(calls)
    for values, answer in told:
        assert log[answer.base_offset : answer.base_offset + answer.record_count] == values
