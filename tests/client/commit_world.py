"""Lives of consumers of one group, one after the other, against a model of what each was given."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import riverrun
from riverrun import Consumer, Record, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.faults import Fault, Plan
from tests.client.filling import fill

TOPIC, GROUP = "t", "g"
PLACES = [TopicPartition(TOPIC, number) for number in range(2)]
SIZES = [90, 60]


class _Crash(Exception):
    """The application fails."""


@dataclass
class Given:
    """What one life was given: what it may still be busy with, and what it is through with."""

    in_hand: list[Record] = field(default_factory=list)
    finished: set[tuple[int, int]] = field(default_factory=set)

    def asks(self) -> None:
        self.finished |= {(record.partition, record.offset) for record in self.in_hand}
        self.in_hand = []


class CommitWorld:
    """Reads two partitions to their ends in as many lives as it takes.

    Args:
        mode: how the group's offsets are committed.
        crashes: whether lives may end without a word; else all of them end in order.
    """

    def __init__(self, seed: int, mode: riverrun.CommitMode, *, crashes: bool) -> None:
        self.rng = random.Random(seed)
        self.mode = mode
        self.crashes = crashes
        self.broker = FakeBroker(Plan.seeded(seed, 20, kinds=[Fault.DROP_BEFORE]))
        for log, size in zip(self.broker.add_topic(TOPIC, 2).partitions, SIZES, strict=True):
            fill(log, size, batch=self.rng.randrange(1, 9), gap=self.rng.choice([0, 0, 2]))
        self.times = {
            (log.partition, batch.base_offset + at): 0
            for log in self.broker.topics[TOPIC].partitions
            for batch in log.batches
            for at in range(batch.record_count)
        }
        self.finished: set[tuple[int, int]] = set()
        self.lives = 0
        self.in_the_middle = 0

    @property
    def all_committed(self) -> bool:
        return all(self.committed(p) == self.broker.partition(*p).end for p in PLACES)

    def committed(self, place: TopicPartition) -> int:
        return self.broker.commits.get((GROUP, *place), (0, ""))[0]

    async def run(self) -> None:
        async with self.broker.serving() as address:
            while not self.all_committed and self.lives < 200:
                self.lives += 1
                await self._live(address)

    async def _live(self, address: str) -> None:
        given = Given()
        async with impatient(address) as client:
            consumer = client.consumer(
                TOPIC,
                group=GROUP,
                commit=self.mode,
                commit_interval_s=self.rng.choice([0.001, 60]),
                prefetch_bytes=self.rng.choice([1, 300, 10**6]),
                stop_at_end=True,
            )
            try:
                async with consumer:
                    await self._use(consumer, given)
            except _Crash:
                pass
            else:
                given.asks()
            self.finished |= given.finished
            self._check(given)

    async def _use(self, consumer: Consumer, given: Given) -> None:
        for _ in range(self.rng.randrange(1, 30)):
            if not await self._act(consumer, given):
                return
            self._check(given)
        self.in_the_middle += 1
        if self.crashes and self.rng.random() < 0.7:
            if self.rng.random() < 0.5:
                raise _Crash
            await kill(consumer)
            raise _Crash

    async def _act(self, consumer: Consumer, given: Given) -> bool:
        """Do something; return whether the end has not been reached."""
        what = self.rng.choice(["one", "one", "one", "many", "batch", "pause", "wait"])
        if what == "pause":
            consumer.pause(self.rng.sample(PLACES, 1))
            consumer.resume()
            return True
        if what == "wait":
            await asyncio.sleep(0.003)
            return True
        given.asks()
        if what == "one":
            record = await anext(consumer, None)
            some = [] if record is None else [record]
        elif what == "many":
            some = await consumer.getmany(self.rng.randrange(1, 20))
        else:
            view = await anext(consumer.batches(), None)
            some = [] if view is None else view.to_records()
        given.in_hand = some
        for record in some:
            self.times[record.partition, record.offset] += 1
        return bool(some)

    def _check(self, given: Given) -> None:
        """Compare what is committed with what may be."""
        done = self.finished | given.finished
        for place in PLACES:
            behind = [at for at in self.times if at[0] == place.partition]
            behind = [at for at in behind if at[1] < self.committed(place)]
            if self.mode == "auto":
                assert done.issuperset(behind), f"{place}: more is committed than was finished"
        if self.mode == "at_most_once":
            for record in given.in_hand:
                place = TopicPartition(TOPIC, record.partition)
                assert self.committed(place) > record.offset, "given before it was committed"


async def kill(consumer: Consumer) -> None:
    """End a consumer as the death of its process does: it says and commits nothing more."""
    consumer._closed = True
    consumer._let_go.set()
    await consumer._loop.close()
    if consumer._commits._task is not None:
        consumer._commits._task.cancel()
    under_way = [*consumer._commits._under_way]
    if consumer._releasing is not None:
        under_way.append(consumer._releasing)
    await asyncio.gather(*under_way, return_exceptions=True)
