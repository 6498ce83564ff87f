"""A reader machine and a broker in one seeded world: streams break, seeks race, partitions fail."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from riverrun._core.partition_reader import Asked, Delivered, PartitionReader, StartedPosition
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import Offset, TopicPartition
from riverrun.errors import Reason, RetriableError, UsageError

PLACES = [TopicPartition("t", number) for number in range(3)]
PREFETCH = 40
RETRIABLE = RetriableError("later", reason=Reason.PARTITION_OFFLINE)


def topic_id(place: TopicPartition) -> bytes:
    return bytes([place.partition]) * 16


@dataclass
class Served:
    """A partition as one stream serves it."""

    position: int
    paused: bool = False
    failed: bool = False


@dataclass
class Stream:
    control: deque = field(default_factory=deque)
    frames: deque = field(default_factory=deque)
    served: dict[TopicPartition, Served] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    credit: int = 0
    begun: bool = False
    asked: dict[TopicPartition, Asked] = field(default_factory=dict)


class World:
    """One consumer of three partitions. A batch is (first offset, offset behind the last)."""

    def __init__(self, seed: int, *, stop_at_end: bool = False) -> None:
        self.rng = random.Random(seed)
        self.machine: ReaderMachine = ReaderMachine(stop_at_end)
        self.logs = {place: self._log(self.rng.randrange(0, 60)) for place in PLACES}
        self.starts = dict.fromkeys(PLACES, 0)
        self.ends_at_first_start: dict[TopicPartition, int] = {}
        self.stream: Stream | None = None
        self.wanted: dict[TopicPartition, int] = {}
        self.jumps: dict[TopicPartition, set[tuple[int, int]]] = {place: set() for place in PLACES}
        self.returned = dict.fromkeys(PLACES, 0)
        self.retries: set[TopicPartition] = set()
        self.trouble = self.rng.choice([0.02, 0.1])
        self.events = 0

    def _log(self, size: int) -> list[tuple[int, int]]:
        log: list[tuple[int, int]] = []
        while not log or log[-1][1] < size:
            base = log[-1][1] if log else 0
            log.append((base, base + self.rng.randrange(1, 6)))
        return log

    def end(self, place: TopicPartition) -> int:
        return self.logs[place][-1][1]

    # What may happen.

    def step(self) -> None:
        kind = [self.open, self.serve, self.serve, self.hear, self.hear, self.take, self.take]
        if self.rng.random() < 0.1:
            kind = [self.append, self.retry]
        if self.rng.random() < self.trouble:
            kind = [self.break_stream, self.seek, self.pause, self.resume, self.fail, self.trim]
        self.rng.choice(kind)()

    def append(self) -> None:
        place = self.rng.choice(PLACES)
        end = self.end(place)
        self.logs[place].append((end, end + self.rng.randrange(1, 6)))

    def open(self) -> None:
        if self.stream is not None:
            return
        machine, stream = self.machine, Stream()
        stream.asked = machine.asked()
        stream.credit = machine.ahead.opening_credit(PREFETCH)
        places = {place: Offset(0) for place in PLACES}
        places.update({place: asked.at for place, asked in stream.asked.items()})
        started = []
        for place, at in places.items():
            stream.served[place] = Served(at.offset)
            stream.ends[place] = self.end(place)
            started.append(StartedPosition(place, topic_id(place), at.offset, self.end(place)))
        stream.frames.append(("started", started))
        self.stream = stream

    def serve(self) -> None:
        """Let the broker do one thing: obey, or deliver."""
        stream = self.stream
        if stream is None:
            return
        if stream.control:
            self._obey(stream, *stream.control.popleft())
            return
        if self.machine.stop_at_end and all(
            served.position >= stream.ends[place] for place, served in stream.served.items()
        ):
            stream.frames.append(("ended",))
            return
        ready = [
            place
            for place, served in stream.served.items()
            if not served.paused and not served.failed and served.position < self.end(place)
        ]
        if not ready or stream.credit <= 0:
            return
        place = self.rng.choice(ready)
        served = stream.served[place]
        if served.position < self.starts[place]:
            old, served.position = served.position, self.starts[place]
            self.jumps[place].add((old, served.position))
            stream.frames.append(("reset", self._at(place, served.position), old))
            return
        batches = [batch for batch in self.logs[place] if batch[1] > served.position]
        batches = batches[: self.rng.randrange(1, 4)]
        next_offset = batches[-1][1]
        delivery = Delivered(
            place, served.position, next_offset, self.end(place), 1, len(batches) * 3, batches
        )
        served.position = next_offset
        stream.credit -= delivery.charged_bytes
        stream.frames.append(("delivery", delivery))

    def _obey(self, stream: Stream, kind: str, *what) -> None:
        if kind == "credit":
            stream.credit += what[0]
        elif kind == "seek":
            place, seek_id, offset = what
            stream.served[place].position = offset
            stream.served[place].failed = False
            stream.frames.append(("sought", seek_id, self._at(place, offset)))
        else:
            stream.served[what[0]].paused = kind == "pause"

    def _at(self, place: TopicPartition, offset: int) -> StartedPosition:
        return StartedPosition(place, topic_id(place), offset, self.end(place))

    def hear(self) -> None:
        """Let the client take one frame."""
        stream, machine = self.stream, self.machine
        if stream is None or not stream.frames:
            return
        kind, *what = stream.frames.popleft()
        if kind == "started":
            stream.begun = True
            for at in what[0]:
                self.ends_at_first_start.setdefault(at.partition, at.high_watermark)
                self.wanted.setdefault(at.partition, at.offset)
            machine.started(what[0], stream.asked)
            for reader in machine.readers.values():
                if reader.paused:
                    stream.control.append(("pause", reader.partition))
        elif kind == "delivery":
            machine.delivered(what[0])
        elif kind == "sought":
            machine.sought(what[0], what[1])
        elif kind == "reset":
            machine.reset(what[0], what[1])
        elif kind == "ended":
            machine.stream_ended()
            self.stream = None
            return
        elif machine.failed(what[0], topic_id(what[0]), what[1]) == "ask again":
            self.retries.add(what[0])
        self._grant()

    def take(self) -> None:
        """Let the application have one batch, and look whether it is the right one."""
        taken = self.machine.ahead.take()
        if taken is not None:
            self._check(taken)
        self._grant()

    def _check(self, taken) -> None:
        place, (base, batch_end) = taken.reader.partition, taken.batch
        first, end = max(base, taken.first), min(batch_end, taken.end)
        next_offset = taken.next_offset if taken.next_offset >= 0 else end
        assert not taken.reader.paused, "a paused partition returned something"
        if first < end:
            wanted = self.wanted[place]
            assert self._leads(place, wanted, first), (
                f"{place}: offset {first} came where {wanted} is next"
            )
            self.returned[place] += end - first
            self.wanted[place] = end
        self.machine.advanced(taken.reader, max(next_offset, taken.reader.position))

    def _leads(self, place: TopicPartition, wanted: int, first: int) -> bool:
        """Whether `first` is next, perhaps by way of announced resets."""
        jumps = self.jumps[place]
        return wanted == first or any(
            self._leads(place, new, first) for old, new in jumps if old == wanted < new
        )

    def _grant(self) -> None:
        stream, machine = self.stream, self.machine
        if stream is not None and stream.begun and machine.ahead.credit_bytes() > 0:
            stream.control.append(("credit", machine.ahead.grant()))
            # All that is granted, queued or on its way is never more than was meant, but for the
            # overdraft of the last delivery.
            assert machine.ahead.queued_bytes <= PREFETCH + 9

    def seek(self) -> None:
        if not self.machine.readers:
            return
        place = self.rng.choice([*self.machine.readers])
        offset = self.rng.randrange(self.starts[place], self.end(place) + 1)
        self._say_seek(self.machine.seek(place, Offset(offset)))
        self.wanted[place] = offset

    def _say_seek(self, reader: PartitionReader) -> None:
        if self.stream is not None:
            self.stream.control.append(
                ("seek", reader.partition, reader.seek_id, reader.place.offset)
            )

    def pause(self) -> None:
        for reader in self.machine.pause(self.rng.sample(PLACES, 1)):
            if self.stream is not None:
                self.stream.control.append(("pause", reader.partition))

    def resume(self) -> None:
        self.resume_all(self.rng.sample(PLACES, 1))

    def resume_all(self, places) -> None:
        for reader, has_seek in self.machine.resume(places):
            if self.stream is not None:
                if has_seek:
                    self._say_seek(reader)
                self.stream.control.append(("resume", reader.partition))

    def fail(self) -> None:
        """Let a partition be out of reach for a while."""
        if self.stream is not None:
            place = self.rng.choice(PLACES)
            self.stream.served[place].failed = True
            self.stream.frames.append(("failed", place, RETRIABLE))

    def retry(self) -> None:
        for place in [*self.retries]:
            self.retries.discard(place)
            if place in self.machine.readers:
                self._say_seek(self.machine.ask_again(place))

    def trim(self) -> None:
        place = self.rng.choice(PLACES)
        starts = [base for base, _ in self.logs[place]]
        self.starts[place] = max(self.starts[place], self.rng.choice(starts))

    def break_stream(self) -> None:
        self.stream = None
        self.events += 1

    # The end, and what must hold.

    def settle(self) -> None:
        """End all trouble; everything that is there must come soon."""
        self.resume_all(PLACES)
        for _ in range(5000):
            self.open()
            self.serve()
            self.hear()
            self.take()
            self.retry()
            if self.machine.finished or self._all_read():
                return
        raise AssertionError(f"something never comes: {self.wanted}")

    def _all_read(self) -> bool:
        return bool(self.wanted) and all(
            wanted >= self.end(place) or self._leads(place, wanted, self.end(place))
            for place, wanted in self.wanted.items()
        )


class Unreadable(UsageError):
    """An error that asking again does not mend."""

    def __init__(self) -> None:
        super().__init__("gone", reason=Reason.OFFSET_OUT_OF_RANGE)
