"""Who commits for a blocking consumer, and when: the promises of each mode, in one thread and in many."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import pytest

import riverrun.blocking
from riverrun import TopicPartition
from riverrun.blocking.hands import Hands

NEVER_S = 3600.0


@pytest.fixture
def topic(client, own_topic):
    """One partition with 3,000 records in three batches: most are taken in the calling thread."""
    client.admin().create_topic(own_topic, partitions=1)
    with client.producer() as producer:
        for first in (0, 1000, 2000):
            producer.send_many(own_topic, [b"%d" % n for n in range(first, first + 1000)])
    return own_topic


def committed(client, topic):
    """Return how far the group with the topic's name has come; None where it never committed."""
    place = client.admin().group_offsets(topic).get(TopicPartition(topic, 0))
    return None if place is None else place.offset


def read(consumer, count):
    return [int(next(consumer).value) for _ in range(count)]


def test_auto_commits_what_was_finished_and_not_what_is_in_hand(client, topic):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    assert read(consumer, 700)[-1] == 699
    consumer.close()
    assert committed(client, topic) == 699


def test_leaving_the_block_in_order_finishes_what_is_in_hand_and_an_exception_does_not(
    client, topic
):
    with (
        suppress(ZeroDivisionError),
        client.consumer(topic, group=topic, commit="auto") as consumer,
    ):
        read(consumer, 10)
        raise ZeroDivisionError
    assert committed(client, topic) == 9
    with client.consumer(topic, group=topic, commit="auto") as consumer:
        assert read(consumer, 1) == [9]
    assert committed(client, topic) == 10


def test_auto_never_commits_more_than_was_asked_for_while_a_thread_takes_records(client, topic):
    asked, seen, over = 0, set(), threading.Event()

    def watch():
        while not over.is_set():
            at = committed(client, topic)
            if at is not None:
                seen.add(at)
                assert at <= asked, "a record was committed while it was in hand"

    with ThreadPoolExecutor(1) as watching:
        watched = watching.submit(watch)
        try:
            with client.consumer(
                topic, group=topic, commit="auto", commit_interval_s=0.001, stop_at_end=True
            ) as consumer:
                for record in consumer:
                    sum(range(3000))
                    asked = record.offset + 1
        finally:
            over.set()
        watched.result()
    assert len(seen) > 5, "it committed on the way"


@pytest.mark.parametrize("way", ["next", "getmany", "batches"])
def test_auto_keeps_what_each_thread_has_in_hand_until_that_thread_asks_again(client, topic, way):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    batches = consumer.batches()

    def take():
        if way == "next":
            return next(consumer).offset
        if way == "getmany":
            return consumer.getmany(10)[0].offset
        return next(batches).offsets[0]

    with ThreadPoolExecutor(1) as slow, ThreadPoolExecutor(1) as quick:
        read(consumer, 3)
        held = slow.submit(take).result()
        for _ in range(5):
            behind = quick.submit(read, consumer, 1).result()[0]
        assert behind > held
        consumer.close()
    # This thread's own third record is before theirs, and it never asked again.
    assert committed(client, topic) == 2


def test_a_record_is_finished_when_the_thread_that_has_it_asks_for_more(client, topic):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    with ThreadPoolExecutor(1) as slow, ThreadPoolExecutor(1) as quick:
        assert slow.submit(read, consumer, 1).result() == [0]
        assert quick.submit(read, consumer, 5).result() == [1, 2, 3, 4, 5]
        assert slow.submit(read, consumer, 1).result() == [6]
        consumer.close()
    assert committed(client, topic) == 5


def test_leaving_the_block_in_order_finishes_what_all_threads_have(client, topic):
    with (
        client.consumer(topic, group=topic, commit="auto") as consumer,
        ThreadPoolExecutor(2) as threads,
    ):
        list(threads.map(lambda _: read(consumer, 20), range(2)))
    assert committed(client, topic) == 40


def test_at_most_once_commits_a_record_before_any_thread_has_it(client, topic):
    consumer = client.consumer(topic, group=topic, commit="at_most_once")

    def take(_):
        taken = []
        for number in range(300):
            [offset] = read(consumer, 1)
            taken.append(offset)
            if number % 50 == 0:
                assert committed(client, topic) > offset
        return taken

    with ThreadPoolExecutor(3) as threads:
        taken = sorted(chain.from_iterable(threads.map(take, range(3))))
    assert taken == list(range(900))
    consumer.close()
    assert committed(client, topic) == 900, "what nobody was given is the group's again"
    with client.consumer(topic, group=topic, commit="at_most_once") as consumer:
        assert read(consumer, 1) == [900]


@pytest.mark.parametrize("way", ["next", "getmany"])
def test_a_commit_says_that_this_thread_is_through_with_what_it_has(client, topic, way):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    taken = len(consumer.getmany(10)) if way == "getmany" else len(read(consumer, 10))
    consumer.commit()
    consumer.close()
    assert committed(client, topic) == taken


def test_an_offset_that_a_thread_commits_stands_though_others_ask_for_more(client, topic):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    with ThreadPoolExecutor(1) as other:
        read(consumer, 10)
        consumer.commit({TopicPartition(topic, 0): 4})
        other.submit(read, consumer, 3).result()
        consumer.close()
    assert committed(client, topic) == 4


def test_a_thread_that_only_commits_holds_back_nothing_that_others_finish(client, topic):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    with ThreadPoolExecutor(1) as committing:
        read(consumer, 10)
        committing.submit(consumer.commit, {TopicPartition(topic, 0): 4}).result()
        read(consumer, 3)
        consumer.close()
    assert committed(client, topic) == 12


def test_threads_that_have_ended_leave_their_lowest_places_and_one_word_of_it(caplog):
    hands, place, other = Hands(threading.Lock()), TopicPartition("t", 0), TopicPartition("t", 1)

    def take(places):
        thread = threading.Thread(target=lambda: hands.hold(threading.current_thread(), places))
        thread.start()
        thread.join()

    for offset in range(50, 0, -1):
        take({place: offset, other: 100 - offset})
    assert hands.places() == {place: 1, other: 50}
    assert len(hands._held) <= 1, "it grows with every thread"
    assert hands.places() == {place: 1, other: 50}
    assert caplog.text.count("a thread has ended and never asked for more") == 1
    assert "t[0] from offset 1" in caplog.text
    hands.finish()
    assert hands.places() == {}


def test_of_a_commit_that_one_partition_refuses_what_a_thread_said_of_the_others_counts(
    client, topic
):
    consumer = client.consumer(topic, group=topic, commit="auto", commit_interval_s=NEVER_S)
    read(consumer, 10)
    with pytest.raises(riverrun.TopicNotFoundError):
        consumer.commit({TopicPartition(topic, 9): 1, TopicPartition(topic, 0): 4})
    with ThreadPoolExecutor(1) as other:
        other.submit(read, consumer, 3).result()
        consumer.close()
    assert committed(client, topic) == 4
