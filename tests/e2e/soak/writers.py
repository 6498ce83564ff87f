"""Writers: steady ones, one in chunks, one on stubs alone, and ones that come and go."""

from __future__ import annotations

import asyncio
import functools
import random
import time

import grpc.aio

import riverrun
from riverrun import RiverrunError
from riverrun._core.codecs import Compression
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record
from tests.e2e.soak.ledger import Lane, value_of
from tests.e2e.soak.world import CALL_TIMEOUT_S, LANES, World

_TICK_S = 0.05
_CHUNK = 250
_CHUNKS_EVERY_S = 1.0
_UNARY_EVERY_S = 0.1
_BURST = 20


async def steady(world: World, name: str, codec: Compression, per_s: int, sizes: range) -> None:
    """Write records one by one at a fixed rate, and time each acknowledgement from its due time."""
    dice, due_s = world.rng(name), time.perf_counter()
    world.ledger.exact(name)
    async with (
        riverrun.Client(world.address) as client,
        client.producer(compression=codec) as producer,
    ):
        while not world.stop.is_set():
            for _ in range(max(1, round(per_s * _TICK_S))):
                lane = dice.choice(LANES)
                number = world.ledger.number(lane, name)
                value = value_of(name, number, _padding(dice, sizes))
                future = producer.send_nowait(lane.topic, value, partition=lane.partition)
                future.add_done_callback(
                    functools.partial(_answered, world, name, lane, number, due_s)
                )
            await producer.drain()
            # A machine that stood still is not asked to catch up: the rate is what is fixed here.
            due_s = max(due_s + _TICK_S, time.perf_counter() - 1.0)
            await world.pause(max(0.0, due_s - time.perf_counter()))


def _answered(
    world: World,
    name: str,
    lane: Lane,
    number: int,
    due_s: float,
    future: asyncio.Future[riverrun.RecordMetadata],
) -> None:
    if future.cancelled():
        return
    error = future.exception()
    if error is not None:
        world.failed(name, f"{lane} {number}: {error}")
        return
    world.latencies_ms.append(1_000 * (time.perf_counter() - due_s))
    world.failed(name, *world.ledger.acked(lane, name, number, future.result().offset))


async def in_chunks(world: World, name: str) -> None:
    """Write a few hundred records at once by `send_many`."""
    dice = world.rng(name)
    async with (
        riverrun.Client(world.address) as client,
        client.producer(batch_bytes=32_768, compression="gzip") as producer,
    ):
        while not world.stop.is_set():
            lane = dice.choice(LANES)
            numbers = [world.ledger.number(lane, name) for _ in range(_CHUNK)]
            padding = _padding(dice, range(50, 400))
            values = [value_of(name, number, padding) for number in numbers]
            try:
                summary = await producer.send_many(lane.topic, values, partition=lane.partition)
            except RiverrunError as error:
                world.failed(name, error)
                return
            if summary.records != len(values):
                world.failed(name, f"{summary} for {len(values)} records")
            for number in numbers:
                world.failed(name, *world.ledger.acked(lane, name, number))
            world.done["chunks"] += 1
            await world.pause(_CHUNKS_EVERY_S)


async def unary(world: World, name: str) -> None:
    """Write single records by the unary call of a generated stub."""
    dice = world.rng(name)
    world.ledger.exact(name)
    async with world.channel() as channel:
        stub = ProducerServiceStub(channel)
        while not world.stop.is_set():
            lane = dice.choice(LANES)
            number = world.ledger.number(lane, name)
            record = Record(value=value_of(name, number, _padding(dice, range(20, 200))))
            request = ProduceRequest(topic=lane.topic, partition=lane.partition, records=[record])
            try:
                response = await stub.Produce(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                world.failed(name, error)
                return
            result = response.results[0]
            world.failed(name, *world.ledger.acked(lane, name, number, result.base_offset))
            world.done["unary calls"] += 1
            await world.pause(_UNARY_EVERY_S)


async def newcomers(world: World, name: str) -> None:
    """Write a burst with a client that has just come and leaves behind it, again and again."""
    dice = world.rng(name)
    while not world.stop.is_set():
        lane = dice.choice(LANES)
        numbers = [world.ledger.number(lane, name) for _ in range(_BURST)]
        try:
            async with riverrun.Client(world.address) as client, client.producer() as producer:
                futures = [
                    producer.send_nowait(
                        lane.topic,
                        value_of(name, number, _padding(dice, range(20, 300))),
                        partition=lane.partition,
                    )
                    for number in numbers
                ]
                await asyncio.gather(*futures)
        except RiverrunError as error:
            world.failed(name, error)
            return
        for number in numbers:
            world.failed(name, *world.ledger.acked(lane, name, number))
        world.done["clients that came and went"] += 1
        await world.pause(dice.uniform(0.5, 1.5))


def _padding(dice: random.Random, sizes: range) -> bytes:
    """Return bytes of which a codec can halve some."""
    size = dice.choice(sizes)
    return dice.randbytes(size // 4) + b"." * (size - size // 4)
