"""Producers that use the client library, with many records on their way at once."""

from __future__ import annotations

import asyncio
import functools

import riverrun
from riverrun import Reason, RiverrunError
from riverrun.producer import Acks
from tests.e2e.kill.history import Outcome
from tests.e2e.kill.world import SHARED, TOPIC, Sending, World

# What a producer without idempotence is told of records that were on their way.
_EXPECTED = {Reason.CONNECTION_LOST, Reason.BATCH_FAILED_BEFORE}
# More than the test lasts: an idempotent producer has to outlive every crash.
_DELIVERY_TIMEOUT_S = 90.0
_UNANSWERED_MAX = 200


async def pipelined(
    world: World, name: str, *, idempotent: bool = True, acks: Acks = "all"
) -> None:
    """Send records one by one in bursts through one producer, each with a future."""
    async with (
        riverrun.Client(world.address, connect_timeout_s=_DELIVERY_TIMEOUT_S) as client,
        client.producer(
            idempotent=idempotent, acks=acks, delivery_timeout_s=_DELIVERY_TIMEOUT_S
        ) as producer,
    ):
        bursts = _Bursts(world, name, idempotent=idempotent, durable=acks != "none")
        while not world.stop.is_set():
            await bursts.send(producer)


async def newcomers(world: World, name: str) -> None:
    """Do the same with a new producer every few bursts, which needs an id that nobody had before."""
    bursts = _Bursts(world, name, idempotent=True, durable=True)
    async with riverrun.Client(world.address, connect_timeout_s=_DELIVERY_TIMEOUT_S) as client:
        while not world.stop.is_set():
            async with client.producer(
                compression="gzip", linger_s=0.01, delivery_timeout_s=_DELIVERY_TIMEOUT_S
            ) as producer:
                for _ in range(4):
                    await bursts.send(producer)


class _Bursts:
    """Records sent some at a time, a bounded number unanswered, and what they were told."""

    def __init__(self, world: World, name: str, *, idempotent: bool, durable: bool) -> None:
        self._world = world
        self._name = name
        self._idempotent = idempotent
        self._durable = durable
        self._dice = world.rng(name)
        self._room = asyncio.Semaphore(_UNANSWERED_MAX)

    async def send(self, producer: riverrun.Producer) -> None:
        for _ in range(self._dice.randint(1, 40)):
            await self._room.acquire()
            sending = self._world.sending(self._name, self._dice.choice(SHARED), self._dice)
            future = producer.send_nowait(TOPIC, sending.value, partition=sending.partition)
            future.add_done_callback(functools.partial(self._settled, sending))
        await self._world.pause(self._dice.uniform(0.0, 0.08))

    def _settled(self, sending: Sending, future: asyncio.Future[riverrun.RecordMetadata]) -> None:
        self._room.release()
        error = future.exception()
        if error is None:
            sending.settled(Outcome.ACKED, future.result().offset, durable=self._durable)
            return
        assert isinstance(error, RiverrunError), error
        sending.settled(Outcome.REFUSED if error.outcome_known else Outcome.UNKNOWN)
        if self._idempotent or error.reason not in _EXPECTED:
            self._world.failed(self._name, error)


async def in_chunks(world: World, name: str) -> None:
    """Send whole chunks by `send_many`, which tells offsets of chunks and not of records."""
    dice = world.rng(name)
    async with (
        riverrun.Client(world.address, connect_timeout_s=_DELIVERY_TIMEOUT_S) as client,
        client.producer(
            batch_bytes=4096, compression="gzip", delivery_timeout_s=_DELIVERY_TIMEOUT_S
        ) as producer,
    ):
        while not world.stop.is_set():
            partition = dice.choice(SHARED)
            chunk = [world.sending(name, partition, dice) for _ in range(dice.randint(1, 120))]
            try:
                summary = await producer.send_many(
                    TOPIC, [sending.value for sending in chunk], partition=partition
                )
            except RiverrunError as error:
                world.failed(name, error)
                outcome = Outcome.UNKNOWN
            else:
                outcome = Outcome.ACKED
                if summary.records != len(chunk):
                    world.failed(name, f"{summary} for {len(chunk)} records")
            for sending in chunk:
                sending.settled(outcome)
            await world.pause(dice.uniform(0.0, 0.1))
