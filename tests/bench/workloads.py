"""What is measured: each workload on each system that it is about, against whichever broker runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.rows import RATE, TIME, Samples
from tests.bench.sides import Side
from tests.bench.systems import ANSWERING, PRODUCING, READING, ROUND_TRIPS, System


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything a round has.

    Attributes:
        records: how many are written and read, by the size of their value in bytes.
        partitions: how many topics have.
        rates: records a second at which acknowledgements are timed, for `seconds` each.
        trips: round trips.
    """

    records: dict[int, int]
    partitions: tuple[int, ...]
    rates: tuple[int, ...]
    seconds: int
    trips: int


FULL = Scale({100: 1_000_000, 1_000: 150_000}, (1, 16), (1_000, 10_000), 6, 1_000)
QUICK = Scale({100: 200_000, 1_000: 20_000}, (1,), (1_000,), 3, 200)
_ANSWER_BYTES = 100


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement: its name for people, and what does it and notes the figures."""

    name: str
    run: Callable[[], None]


def steps(side: Side, scale: Scale, samples: Samples) -> Iterator[Step]:
    """Return everything to measure of a side in one round, in order."""
    for size, records in scale.records.items():
        for partitions in scale.partitions:
            load = f"{size:,} B, {_count(partitions, 'partition')}"
            for system in _of(side, PRODUCING):
                topic = f"load-{size}-{partitions}-{PRODUCING.index(system)}"
                count = int(records * system.share)
                produce = _Produce(side, system, topic, partitions, count, size, samples, load)
                yield Step(f"produce, {load}: {system.name}", produce)
            for system in _of(side, READING):
                topic = f"load-{size}-{partitions}-{PRODUCING.index(system)}"
                read = _Read(side, system, topic, int(records * system.share), samples, load)
                yield Step(f"read, {load}: {system.name}", read)
    for rate in scale.rates:
        for system in _of(side, ANSWERING):
            answer = _Answer(side, system, rate, scale.seconds, samples)
            yield Step(f"acknowledged at {rate:,}/s: {system.name}", answer)
    for system in _of(side, ROUND_TRIPS):
        yield Step(f"round trips: {system.name}", _RoundTrips(side, system, scale.trips, samples))


@dataclass(frozen=True, slots=True)
class _Produce:
    side: Side
    system: System
    topic: str
    partitions: int
    records: int
    size: int
    samples: Samples
    load: str

    def __call__(self) -> None:
        self.side.create_topic(self.topic, self.partitions, self.system)
        rate = self.side.produce(self.system, self.topic, self.records, self.size)
        self.samples.add(f"produce, {self.load}", self.system, RATE, rate)


@dataclass(frozen=True, slots=True)
class _Read:
    side: Side
    system: System
    topic: str
    records: int
    samples: Samples
    load: str

    def __call__(self) -> None:
        rate = self.side.read(self.topic, self.records)
        self.samples.add(f"read, {self.load}", self.system, RATE, rate)


@dataclass(frozen=True, slots=True)
class _Answer:
    side: Side
    system: System
    rate: int
    seconds: int
    samples: Samples

    def __call__(self) -> None:
        topic = f"answer-{self.rate}-{ANSWERING.index(self.system)}"
        self.side.create_topic(topic, 1, self.system)
        took = self.side.answer(self.system, topic, self.rate, self.seconds, _ANSWER_BYTES)
        for name, figure in (
            ("p50", took.p50_ms),
            ("p99", took.p99_ms),
            ("p99.9", took.p999_ms),
        ):
            self.samples.add(f"acknowledged at {self.rate:,}/s, {name}", self.system, TIME, figure)


@dataclass(frozen=True, slots=True)
class _RoundTrips:
    side: Side
    system: System
    trips: int
    samples: Samples

    def __call__(self) -> None:
        topic = f"trips-{ROUND_TRIPS.index(self.system)}"
        self.side.create_topic(topic, 1, self.system)
        figure = self.side.round_trip(topic, self.trips, _ANSWER_BYTES)
        self.samples.add("write and read one at a time, mean", self.system, TIME, figure)


def _of(side: Side, systems: tuple[System, ...]) -> list[System]:
    return [system for system in systems if system.broker == side.name]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
