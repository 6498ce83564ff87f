"""Events of a watch become whole revisions, in order and once, and what is missing is noticed."""

from __future__ import annotations

import pytest

from riverrun_server.metadata.etcd.ordering import EventOrder
from riverrun_server.ports.metadata import Entry, Event, WatchInterrupted


def put(key, revision, *, created=None, version=1):
    entry = Entry(key, b"", created or revision, revision, version)
    return Event(key, entry, revision)


def deletion(key, revision):
    return Event(key, None, revision)


def told(batches):
    return [(batch.revision, [event.key for event in batch.events]) for batch in batches]


def test_events_of_one_response_are_split_by_revision():
    order = EventOrder(5)
    batches = order.take([put("a", 5), put("b", 5), put("c", 7)], unfinished=False)
    assert told(batches) == [(5, ["a", "b"]), (7, ["c"])]


def test_a_revision_in_several_fragments_is_told_once_it_is_whole():
    order = EventOrder(5)
    assert told(order.take([put("a", 5), put("b", 6)], unfinished=True)) == [(5, ["a"])]
    assert told(order.take([put("c", 6)], unfinished=True)) == []
    assert told(order.take([put("d", 6), put("e", 7)], unfinished=False)) == [
        (6, ["b", "c", "d"]),
        (7, ["e"]),
    ]


def test_what_was_told_before_or_is_older_than_the_start_is_left_out():
    order = EventOrder(5)
    assert told(order.take([put("old", 4), put("a", 5)], unfinished=False)) == [(5, ["a"])]
    again = [put("a", 5), put("b", 6)]
    assert told(order.take(again, unfinished=False)) == [(6, ["b"])]


def test_the_life_of_a_key_may_end_and_begin_anew():
    order = EventOrder(5)
    events = [
        put("a", 5, created=3, version=2),
        put("a", 6, created=3, version=3),
        deletion("a", 7),
        put("a", 8),
        put("a", 9, created=8, version=2),
        deletion("b", 10),
    ]
    assert len(order.take(events, unfinished=False)) == 6


@pytest.mark.parametrize(
    ("before", "then"),
    [
        (put("a", 5), put("a", 7, created=5, version=3)),  # a put
        (put("a", 5), put("a", 7)),  # the deletion
        (deletion("a", 5), deletion("a", 7)),  # the put between two deletions
        (deletion("a", 5), put("a", 7, created=6, version=2)),  # the first put of a new life
        (put("b", 5), put("a", 7, created=6, version=2)),  # the first put since the start
        (put("b", 6), put("a", 5)),  # told too late
    ],
)
def test_an_event_that_is_missing_or_late_interrupts_the_watch(before, then):
    order = EventOrder(5)
    order.take([before], unfinished=False)
    with pytest.raises(WatchInterrupted, match="'a'"):
        order.take([then], unfinished=False)


def test_a_key_from_before_the_start_is_taken_as_it_is():
    order = EventOrder(5)
    assert order.take([put("a", 6, created=2, version=9)], unfinished=False)


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten():
    order = EventOrder(1, remember=10)
    for revision in range(1, 101):
        order.take([put(f"k{revision}", revision)], unfinished=False)
        assert len(order._seen) <= 10
    assert order.take([put("k100", 101, created=100, version=2)], unfinished=False)
    # Nobody can say any more whether its changes were told: no reason to interrupt.
    assert order.take([put("k1", 102, created=1, version=7)], unfinished=False)
    with pytest.raises(WatchInterrupted):
        order.take([put("k100", 103, created=100, version=4)], unfinished=False)
