"""Dispatcher and partitions in one seeded world: streams that break, answers that get lost, ghosts.

A ghost is an append that was on the wire when its stream broke and reaches the partition later, when
the client may long have opened another stream.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from riverrun._core.backoff import Backoff, BackoffConfig
from riverrun._core.dispatch import Append, Dispatcher, StreamLimits
from riverrun._core.leader_map import ANY
from riverrun._core.outgoing import OutgoingBatch, Resolution
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, RiverrunError
from riverrun.v1.records_pb2 import RecordBatch
from tests.client.fake_log import FakeRefusal, ProducerState, RefusingLane

WINDOW = 5
# "refuse late" is a failure that is known only after later batches have been let in.
KINDS = ["refuse", "refuse late", "unknown before", "unknown after"]


# Where nothing else writes and nothing is lost, no record may fail with these.
NEEDLESS = {Reason.OUT_OF_ORDER_SEQUENCE, Reason.PRODUCER_FENCED, Reason.PRECEDING_FAILED}


@dataclass
class Request:
    partition: TopicPartition
    tag: int
    attempt: int
    batch: RecordBatch
    names: tuple[int, ...]
    poison: bool


@dataclass
class Stream:
    requests: deque[Request] = field(default_factory=deque)
    answers: deque[tuple[int, int | None, RiverrunError | None]] = field(default_factory=deque)
    lanes: dict[TopicPartition, RefusingLane] = field(default_factory=dict)
    broker_id: int = ANY


@dataclass
class Fate:
    """What became of one record."""

    partition: TopicPartition
    offset: int | None = None
    error: RiverrunError | None = None
    resolved: int = 0


class ModelPartition:
    """Sequences and a list of names, as the protocol has it; nothing is encoded."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.max_records = 10
        self.producers: dict[int, ProducerState] = {}

    def append(self, batch: RecordBatch, names: tuple[int, ...]) -> int | None:
        first, last = batch.base_sequence, batch.base_sequence + len(names) - 1
        if batch.producer_id:
            state = self.producers.get(1)
            if state is None or batch.producer_epoch > state.epoch:
                if first:
                    raise FakeRefusal("UNKNOWN_PRODUCER")
                state = self.producers[1] = ProducerState(batch.producer_epoch)
            if batch.producer_epoch < state.epoch:
                raise FakeRefusal("PRODUCER_FENCED")
            if last <= state.last_sequence:
                return next((at for seq, _, at in state.batches if seq == first), None)
            if first != state.last_sequence + 1:
                raise FakeRefusal(
                    "OUT_OF_ORDER_SEQUENCE", expected_sequence=state.last_sequence + 1
                )
            state.last_sequence = last
            state.batches.append((first, len(names), len(self.log)))
        offset = len(self.log)
        self.log += names
        return offset


class World:
    """One producer, a few partitions, and everything that can go wrong in between."""

    def __init__(self, seed: int, *, idempotent: bool) -> None:
        self.rng = random.Random(seed)
        self.idempotent = idempotent
        self.now = 0.0
        self.dispatcher = Dispatcher(self._lane)
        self.partitions = {TopicPartition("t", n): ModelPartition() for n in range(2)}
        self.stream: Stream | None = None
        self.ghosts: list[tuple[Stream, Request]] = []
        self.fates: dict[int, Fate] = {}
        self.names: dict[int, list[int]] = {}
        self.trouble = self.rng.choice([0.0, 0.1, 0.3, 0.5])
        self.timeout = self.rng.choice([0.1, 0.3, 1.0, 5.0])
        self.steps = 0

    def _lane(self, partition: TopicPartition) -> PartitionLane:
        backoff = Backoff(self.rng.random, BackoffConfig(0.01, 0.1))
        return PartitionLane(
            partition,
            idempotent=self.idempotent,
            window=WINDOW,
            backoff=backoff,
            split=self._split,
        )

    def _split(self, batch: OutgoingBatch) -> tuple[OutgoingBatch, OutgoingBatch] | None:
        if batch.record_count == 1:
            return None
        half = batch.record_count // 2
        parts = []
        for skipped, count in ((0, half), (half, batch.record_count - half)):
            part = OutgoingBatch(
                batch.partition, batch.records[skipped : skipped + count], count, 0, 0,
                batch.deadline_s, 0, batch.receipt, batch.first_index + skipped,
            )  # fmt: skip
            parts.append(part)
        return parts[0], parts[1]

    # What may happen.

    def step(self) -> None:
        self.steps += 1
        self.now += self.rng.random() * 0.02
        choices = [self.submit, self.send, self.serve, self.hear, self.send, self.serve, self.hear]
        choices += [self.connect, self.ghost, self.forget]
        if self.rng.random() < 0.01:
            choices = [self.lower_limit]
        if self.rng.random() < self.trouble:
            choices = [self.lose_stream, self.ghost, self.expire, self.serve]
        self.rng.choice(choices)()

    def submit(self) -> None:
        partition = self.rng.choice([*self.partitions])
        count = self.rng.randrange(1, 5)
        names = [len(self.fates) + index for index in range(count)]
        for name in names:
            self.fates[name] = Fate(partition)
        receipt = Receipt(self, names)
        deadline = self.now + self.timeout
        batch = OutgoingBatch(partition, bytes(count), count, 0, 0, deadline, 0, receipt)
        self.deliver(self.dispatcher.submit(batch))

    def connect(self) -> None:
        if self.stream is None:
            self.stream = Stream()
            self.dispatcher.stream_started(StreamLimits(WINDOW, 1 << 20))

    def send(self) -> None:
        if self.stream is None:
            return
        self.dispatcher.release_held(self.now)
        append = self.dispatcher.next(self.now)
        if append is None:
            return
        self.stream.requests.append(wire_request(append, idempotent=self.idempotent))
        waiting = [b for b in self.dispatcher.lane(append.batch.partition).batches() if b.tag]
        assert len(waiting) <= WINDOW, "more wait for their answer than may"

    def serve(self) -> None:
        if self.stream is not None and self.stream.requests:
            self.process(self.stream, self.stream.requests.popleft())

    def ghost(self) -> None:
        """Let the oldest append of a broken stream arrive; streams keep their own order."""
        if self.ghosts:
            stream = self.rng.choice([stream for stream, _ in self.ghosts])
            index = next(i for i, (of, _) in enumerate(self.ghosts) if of is stream)
            self.process(*self.ghosts.pop(index))

    def lower_limit(self) -> None:
        """Let a partition take smaller batches only, as when somebody alters the topic."""
        self.rng.choice([*self.partitions.values()]).max_records = 2

    def forget(self) -> None:
        """Let a partition forget its producers, as it does when they have been idle for long."""
        for place, partition in self.partitions.items():
            under_way = [request for _, request in self.ghosts]
            under_way += self.stream.requests if self.stream is not None else ()
            if any(request.partition == place for request in under_way):
                continue
            if not self.dispatcher.lane(place).in_flight:
                partition.producers.clear()

    def process(self, stream: Stream, request: Request) -> None:
        lane = stream.lanes.setdefault(request.partition, RefusingLane())
        partition = self.partitions[request.partition]
        trouble = self.rng.random() < self.trouble / 2
        kind = self.rng.choice(KINDS) if trouble else ""
        try:
            lane.check(request.batch, request.attempt)
            offset = self._append(partition, request, kind)
        except FakeRefusal as refusal:
            starts_nothing = refusal.reason in ("PRECEDING_FAILED", "OUT_OF_ORDER_SEQUENCE")
            if not starts_nothing and kind != "refuse late":
                lane.failed(request.batch, request.attempt)
            stream.answers.append((request.tag, None, from_proto(refusal.proto)))
        else:
            stream.answers.append((request.tag, offset, None))

    def _append(self, partition: ModelPartition, request: Request, kind: str) -> int | None:
        if len(request.names) > (1 if request.poison else partition.max_records):
            raise FakeRefusal("BATCH_TOO_LARGE")
        if request.poison:
            raise FakeRefusal("INVALID_RECORD")
        if kind in ("refuse", "refuse late"):
            raise FakeRefusal("STORAGE_STALLED", retry_safe=True)
        if kind == "unknown before":
            raise FakeRefusal("REQUEST_TIMED_OUT", known=False)
        offset = partition.append(request.batch, request.names)
        if kind == "unknown after":
            raise FakeRefusal("REQUEST_TIMED_OUT", known=False)
        return offset

    def hear(self) -> None:
        if self.stream is not None and self.stream.answers:
            tag, offset, error = self.stream.answers.popleft()
            self.deliver(self.dispatcher.answered(tag, offset, error, self.now))

    def lose_stream(self) -> None:
        if self.stream is not None:
            kept = self.rng.randrange(len(self.stream.requests) + 1)
            self.ghosts += [(self.stream, r) for r in list(self.stream.requests)[:kept]]
            self.stream = None
            self.deliver(self.dispatcher.stream_lost())

    def expire(self) -> None:
        self.deliver(self.dispatcher.expired(self.now, "too late"))

    def deliver(self, resolutions: list[Resolution]) -> None:
        for resolution in resolutions:
            resolution.deliver()

    # The end, and what must hold.

    def settle(self) -> None:
        """End all trouble; everything must be resolved soon."""
        self.trouble = 0.0
        for _ in range(20_000):
            self.now += 0.01
            self.connect()
            self.send()
            self.serve()
            self.hear()
            if not any(lane.unresolved for lane in self.dispatcher.lanes()):
                break
        else:
            raise AssertionError("something is never resolved")
        while self.ghosts:
            self.ghost()

    def check(self) -> None:
        for place, partition in self.partitions.items():
            log = partition.log
            assert len(set(log)) == len(log), f"written twice: {place} {log}"
            if self.idempotent:
                assert log == sorted(log), f"out of order: {place} {log}"
            assert all(self.fates[name].partition == place for name in log)
        for name, fate in self.fates.items():
            log = self.partitions[fate.partition].log
            assert fate.resolved == 1, f"record {name} was resolved {fate.resolved} times"
            if fate.error is None:
                assert name in log, f"acknowledged and lost: {name}"
                if fate.offset is not None:
                    assert log[fate.offset] == name, f"told a wrong offset: {name}"
                continue
            assert fate.error.reason not in NEEDLESS, f"given up needlessly: {name}: {fate.error}"
            if fate.error.outcome_known:
                assert name not in log, f"said to be not written and is: {name}: {fate.error}"


def wire_request(append: Append, *, idempotent: bool) -> Request:
    """Return an append as it goes over the wire."""
    out = append.batch
    batch = RecordBatch(record_count=out.record_count)
    if idempotent:
        batch.producer_id = 1
        batch.producer_epoch, batch.base_sequence = out.epoch, out.base_sequence
    names = out.receipt.names[out.first_index : out.first_index + out.record_count]
    return Request(out.partition, out.tag, append.attempt, batch, tuple(names), names[0] % 17 == 3)


class Receipt:
    def __init__(self, world: World, names: list[int]) -> None:
        self.world = world
        self.names = names

    def acknowledged(self, first: int, count: int, base_offset: int | None) -> None:
        for index, name in enumerate(self.names[first : first + count]):
            fate = self.world.fates[name]
            fate.resolved += 1
            fate.offset = None if base_offset is None else base_offset + index

    def failed(self, first: int, count: int, error: RiverrunError) -> None:
        for name in self.names[first : first + count]:
            fate = self.world.fates[name]
            fate.resolved += 1
            fate.error = error
