"""What is handed to a thread that is interrupted comes again: once, and to whoever asks next."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun import TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.filling import fill

COUNT = 3000


class InBetween:
    """A lock behind whose release another thread takes something, and then an interrupt comes, once."""

    def __init__(self, lock, meanwhile):
        self._lock, self._meanwhile = lock, meanwhile
        self._thread = threading.current_thread()

    def acquire(self, **how):
        return self._lock.acquire(**how)

    def release(self):
        self._lock.release()
        if self._meanwhile and threading.current_thread() is self._thread:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
            raise KeyboardInterrupt

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self.release()


@pytest.fixture
def topic(client, own_topic):
    client.admin().create_topic(own_topic, partitions=1)
    with client.producer() as producer:
        for first in range(0, COUNT, 1000):
            producer.send_many(own_topic, [b"%d" % n for n in range(first, first + 1000)])
    return own_topic


def taking(consumer, way):
    """Return what takes some records in that way, and returns their offsets."""
    batches = consumer.batches()
    if way == "batches":
        return lambda: list(next(batches).offsets)
    if way == "getmany":
        return lambda: [record.offset for record in consumer.getmany(1200)]
    return lambda: [next(consumer).offset]


def interrupted(consumer, take, lock, other):
    """Have an interrupt come behind the hand-over to this thread; return what the other took meanwhile."""
    given = []
    with ThreadPoolExecutor(1) as thread:
        real = getattr(consumer._direct, lock)
        between = InBetween(real, lambda: given.extend(thread.submit(other).result(10)))
        setattr(consumer._direct, lock, between)
        try:
            with pytest.raises(KeyboardInterrupt):
                take()
        finally:
            setattr(consumer._direct, lock, real)
    return given


WAYS = [("next", "lock"), ("next", "taking"), ("getmany", "taking"), ("batches", "taking")]


@pytest.mark.parametrize("other", ["next", "getmany", "batches"])
@pytest.mark.parametrize(("way", "lock"), WAYS)
@pytest.mark.parametrize("commit", ["manual", "auto", "at_most_once"])
def test_no_record_comes_twice_though_another_thread_took_later_ones_meanwhile(
    client, topic, way, lock, other, commit
):
    with client.consumer(topic, group=topic, commit=commit, stop_at_end=True) as consumer:
        given = []
        if lock == "lock":
            # The short way, on which the calling thread takes the record itself.
            given += taking(consumer, "next")()
        elif commit != "at_most_once":
            given += taking(consumer, "getmany")()
        given += interrupted(consumer, taking(consumer, way), lock, taking(consumer, other))
        assert len(given) > 0
        rest = [record.offset for record in consumer]
    assert sorted(given + rest) == list(range(COUNT))
    assert rest[0] < max(given), "the interrupt came before anything was handed over"


@pytest.mark.parametrize(("way", "lock"), WAYS)
def test_with_nobody_else_the_order_is_kept_and_nothing_is_committed_that_was_not_returned(
    client, topic, way, lock
):
    place = TopicPartition(topic, 0)
    with client.consumer(topic, group=topic, stop_at_end=True) as consumer:
        given = taking(consumer, "next")()
        if lock == "taking":
            # Any other call ends the short way.
            consumer.paused()
        interrupted(consumer, taking(consumer, way), lock, list)
        # At once, the short way too: what is put back comes before what is ready behind it.
        given += taking(consumer, "next")()
        assert given == [0, 1]
        assert consumer.position(place) == 2
        interrupted(consumer, taking(consumer, "getmany"), "taking", list)
        consumer.commit()
        assert consumer.committed()[place].offset == 2
        given += chain.from_iterable(iter(taking(consumer, "getmany"), []))
    assert given == list(range(COUNT))


def test_a_position_stays_before_what_was_put_back_until_that_is_returned(client, topic):
    place = TopicPartition(topic, 0)
    with client.consumer(topic, group=topic, commit="auto", commit_interval_s=3600) as consumer:
        take, many = taking(consumer, "next"), taking(consumer, "getmany")
        assert take() == [0]
        assert interrupted(consumer, take, "lock", take) == [2]
        assert consumer.positions() == {place: 1}
        consumer.commit()
        assert consumer.committed()[place].offset == 1
        assert take() == [1]
        assert consumer.position(place) == 3
        assert many()[0] == 3
    assert client.admin().group_offsets(topic)[place].offset == 1203


def test_who_goes_elsewhere_is_not_given_what_was_put_back_of_the_old_place(client, topic):
    place = TopicPartition(topic, 0)
    with client.consumer(topic, stop_at_end=True) as consumer:
        take = taking(consumer, "next")
        take()

        def elsewhere():
            consumer.seek(place, 2990)
            return [-1]

        interrupted(consumer, take, "lock", elsewhere)
        assert take() == [2990]
        consumer.paused()
        interrupted(consumer, take, "taking", take)
        consumer.seek(place, 2995)
        assert [record.offset for record in consumer] == list(range(2995, 3000))


def test_who_waits_for_records_is_given_what_another_thread_puts_back(client, topic):
    place = TopicPartition(topic, 0)
    with client.consumer(topic) as consumer, ThreadPoolExecutor(1) as waiting:
        consumer.seek(place, COUNT - 1)
        take = taking(consumer, "next")
        waits = []

        def begin():
            waits.append(waiting.submit(take))
            while not consumer._direct._under_way:
                pass
            return []

        interrupted(consumer, take, "taking", begin)
        assert waits[0].result(10) == [COUNT - 1]


class Life:
    """A consumer of which some never return what they were given, and put it back at some time."""

    def __init__(self, rng, consumer, every):
        self.rng, self.consumer, self.every = rng, consumer, every
        self.handing_out = consumer._handing_out
        self.returned, self.limbo = [], []

    async def act(self):
        """Do something; return whether anything was left to do."""
        what = self.rng.choice(["one", "many", "batch", "put back", "put back", "pause"])
        if what == "pause":
            self.consumer.pause(self.rng.sample(PLACES, 1))
            while self.limbo and self.rng.random() < 0.5:
                self.put_back()
            self.consumer.resume()
        elif what != "put back":
            return await self.take(what)
        elif self.limbo:
            self.put_back()
        return True

    def put_back(self):
        _, given = self.limbo.pop(self.rng.randrange(len(self.limbo)))
        self.consumer._put_back(given)

    async def take(self, what):
        if what == "one":
            record = await anext(self.consumer, None)
            some = [] if record is None else [record]
            given = [self.handing_out.given_one(self.handing_out.taken, r, 0) for r in some]
        elif what == "many":
            some = await self.consumer.getmany(self.rng.randrange(1, 20))
            given = self.handing_out.given_by_call()
        else:
            view = await anext(self.consumer.batches(), None)
            some = [] if view is None else view.to_records()
            given = self.handing_out.given_by_call()
        places = [(record.partition, record.offset) for record in some]
        if places and self.rng.random() < 0.4:
            self.limbo.append((places, given))
        else:
            self.returned += places
        return bool(places or self.limbo)

    def check(self):
        """No position is behind what is still to come; what is in limbo may be returned yet."""
        gone = {*self.returned, *chain.from_iterable(places for places, _ in self.limbo)}
        for reader in self.consumer._machine.readers.values():
            to_come = {at for of, at in self.every - gone if of == reader.partition.partition}
            assert self.handing_out.position(reader) <= min(to_come, default=10**6)


PLACES = [TopicPartition("t", number) for number in range(2)]


async def test_what_is_put_back_during_a_pause_comes_once_and_behind_it():
    broker = FakeBroker()
    fill(broker.add_topic("t").partitions[0], 90, batch=9)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.consumer("t", stop_at_end=True) as consumer,
    ):
        assert len(await consumer.getmany(5)) == 5
        given = consumer._handing_out.given_by_call()
        consumer.pause()
        consumer._put_back(given)
        assert await consumer.getmany(timeout_s=0.05) == []
        consumer.resume()
        assert [record.offset async for record in consumer] == list(range(90))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
async def test_whatever_is_put_back_and_when_each_record_is_returned_once(seed):
    rng = random.Random(seed)
    broker = FakeBroker()
    for log, size in zip(broker.add_topic("t", 2).partitions, (90, 60), strict=True):
        fill(log, size, batch=rng.randrange(1, 9), gap=rng.choice([0, 0, 2]))
    every = {
        (log.partition, batch.base_offset + at)
        for log in broker.topics["t"].partitions
        for batch in log.batches
        for at in range(batch.record_count)
    }
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.consumer("t", stop_at_end=True, prefetch_bytes=300) as consumer,
    ):
        life = Life(rng, consumer, every)
        async with asyncio.timeout(20):
            while await life.act():
                life.check()
        assert consumer.statistics().records == len(every)
    assert sorted(life.returned) == sorted(every)
