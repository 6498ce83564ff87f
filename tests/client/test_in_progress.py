"""Records that are worked on side by side: a key's one after the other, and the first that is not finished with."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from riverrun import TopicPartition
from riverrun._core.in_progress import InProgress, first_of_each
from tests.client.test_processing import record


def test_records_of_one_key_are_ready_one_after_the_other():
    work = InProgress()
    first, second = record(0, key=b"k"), record(1, key=b"k")
    work.add(first)
    work.add(second)
    assert work.take() is first
    assert work.take() is None
    work.finished(first)
    assert work.take() is second


def test_records_of_other_keys_and_other_partitions_do_not_wait():
    work = InProgress()
    records = [record(0, key=b"k"), record(1, key=b"l"), record(0, key=b"k", partition=1)]
    for each in records:
        work.add(each)
    assert [work.take() for _ in records] == records


def test_records_without_a_key_are_in_order_in_their_partition():
    work = InProgress()
    work.add(record(0))
    work.add(record(1))
    assert work.take().offset == 0
    assert work.take() is None


def test_a_key_that_has_no_hash_is_a_key():
    work = InProgress()
    work.add(record(0, key={"a": 1}))
    work.add(record(1, key={"a": 1}))
    work.add(record(2, key={"a": 2}))
    assert [work.take().offset, work.take().offset, work.take()] == [0, 2, None]


def test_the_lower_one_of_each_partition():
    one, other, third = (TopicPartition("t", number) for number in range(3))
    assert first_of_each({one: 5, other: 1}, {one: 3, third: 7}) == {one: 3, other: 1, third: 7}


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, b"a", b"b"])), max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_lowest_is_the_first_that_is_not_finished_with_and_every_lane_is_in_order(rows, random):
    work, running, done = InProgress(), [], defaultdict(list)
    records, at = [], defaultdict(int)
    for partition, key in rows:
        records.append(record(at[partition], key=key, partition=partition))
        at[partition] += 1
    coming, left = list(records), list(records)
    while left:
        if coming and random.random() < 0.5:
            work.add(coming.pop(0))
        while random.random() < 0.7 and (each := work.take()) is not None:
            running.append(each)
        if running and random.random() < 0.5:
            each = running.pop(random.randrange(len(running)))
            work.finished(each)
            left.remove(each)
            done[each.topic_partition, each.key].append(each.offset)
        had = [each for each in left if each not in coming]
        assert len(work) == len(had)
        assert work.lowest() == {each.topic_partition: each.offset for each in reversed(had)}
    assert all(offsets == sorted(offsets) for offsets in done.values())
    assert sum(map(len, done.values())) == len(records)
