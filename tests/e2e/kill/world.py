"""What producers and readers of one run share: the broker's address, the record, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping

import grpc.aio

from riverrun import RiverrunError
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from tests.e2e.kill.history import Ended, Failed, Outcome, Recorder, Written

TOPIC = "kill"
SHARED = (0, 1, 2)
"""Partitions that all producers write to."""
OWNED = 3
"""The partition of a single writer, who expects each offset."""
PARTITIONS = (*SHARED, OWNED)

CALL_TIMEOUT_S = 20.0
# How long a reader may take to come to the end after the last record was written.
END_TIMEOUT_S = 30.0
# A broker is back within a second or two, and channels must not sleep longer than that.
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.enable_retries", 0),
]


class World:
    """One run.

    Args:
        address: the broker's, the same after every restart.
        seed: what every random choice comes from.
        recorder: takes down what happens.
        topic: which is written and read.
        bootstrap: where the client library begins, if not at that broker alone.

    Attributes:
        stop: producers send nothing new once it is set.
        ends: where the logs end; known when all producers have stopped.
    """

    def __init__(
        self,
        address: str,
        seed: int,
        recorder: Recorder,
        *,
        topic: str = TOPIC,
        bootstrap: str = "",
    ) -> None:
        self.address = address
        self.bootstrap = bootstrap or address
        self.topic = topic
        self.seed = seed
        self.recorder = recorder
        self.stop = asyncio.Event()
        self.ends: asyncio.Future[dict[int, int]] = asyncio.get_running_loop().create_future()

    def rng(self, name: str) -> random.Random:
        """Return the dice of one actor, so that actors do not change each other's choices."""
        return random.Random(f"{self.seed}/{name}")

    def channel(self) -> grpc.aio.Channel:
        """Return a channel that comes back soon after the broker does."""
        return grpc.aio.insecure_channel(self.address, options=_CHANNEL_OPTIONS)

    async def pause(self, seconds: float) -> None:
        """Wait, but not past the end of producing."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass

    @contextlib.asynccontextmanager
    async def reading(self, reader: str) -> AsyncIterator[None]:
        """Bound how long a reader may take to its end, and take down that it should be there.

        The client's errors are not for readers: they live through a crash.
        """
        patience = asyncio.timeout(None)

        def last_orders(_: asyncio.Future[dict[int, int]]) -> None:
            patience.reschedule(asyncio.get_running_loop().time() + END_TIMEOUT_S)

        try:
            async with patience:
                self.ends.add_done_callback(last_orders)
                try:
                    yield
                finally:
                    self.ends.remove_done_callback(last_orders)
        except TimeoutError:
            pass
        except RiverrunError as error:
            self.failed(reader, error)
        for partition in PARTITIONS:
            self.recorder.add(Ended(reader, partition))

    def at_end(self, positions: Mapping[int, int]) -> bool:
        """Whether a reader has read everything there is, once that is known."""
        ends = self.ends.result() if self.ends.done() else None
        return ends is not None and all(positions.get(p, 0) >= end for p, end in ends.items())

    def failed(self, who: str, what: object) -> None:
        """Take down what must not happen."""
        self.recorder.add(Failed(who, str(what)))

    def sending(self, producer: str, partition: int, dice: random.Random) -> Sending:
        """Return a record about to be sent: its value names it and is unlike any other."""
        number = self.recorder.sending(producer, partition)
        # Now and then more than a block of the write-ahead log holds.
        padding = b"." * (dice.choice((0, 20, 100, 400)) if dice.random() < 0.995 else 70_000)
        return Sending(self, producer, partition, number, padding)


class Sending:
    """One record on its way; call `settled` once."""

    __slots__ = ("_world", "number", "partition", "producer", "value")

    def __init__(
        self, world: World, producer: str, partition: int, number: int, padding: bytes
    ) -> None:
        self._world = world
        self.producer = producer
        self.partition = partition
        self.number = number
        self.value = b"%s/%d/%d" % (producer.encode(), partition, number) + padding

    def settled(self, outcome: Outcome, offset: int | None = None, *, durable: bool = True) -> None:
        """Take down what became of it."""
        self._world.recorder.written(
            Written(
                self.producer, self.partition, self.number, self.value, outcome, offset, durable
            )
        )


def producers(channel: grpc.aio.Channel) -> ProducerServiceStub:
    """Return the calls of producers."""
    return ProducerServiceStub(channel)


def consumers(channel: grpc.aio.Channel) -> ConsumerServiceStub:
    """Return the calls of consumers."""
    return ConsumerServiceStub(channel)
