"""Readers: one that keeps up, a group that comes and goes, and those that begin with the past."""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio
from google.protobuf.duration_pb2 import Duration

import riverrun
from riverrun import TopicPartition
from riverrun.v1.consumer_pb2 import (
    FROM_EARLIEST,
    Delivery,
    FetchRequest,
    PartitionError,
    ReadRequest,
    StartPosition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.errors_pb2 import ERROR_REASON_OFFSET_OUT_OF_RANGE
from tests.e2e.soak.ledger import Following, Lane
from tests.e2e.soak.world import CALL_TIMEOUT_S, LANES, TOPICS, World

END_TIMEOUT_S = 60.0
_POLL_S = 0.2
# What a member of a group lets gather before it reads on.
_GATHER_S = 0.5
# `from` is a word of Python's.
_EARLIEST = {"from": FROM_EARLIEST}


async def keeping_up(world: World, name: str) -> None:
    """Read everything from the first record on, and after the writers have ended, to the end."""
    following = Following(dict.fromkeys(LANES, 0), from_the_first=True)

    async def read(consumer: riverrun.Consumer) -> None:
        async for view in consumer.batches():
            for record in view.to_records():
                lane = Lane(record.topic, record.partition)
                world.failed(name, *following.take(lane, record.offset, record.value))
                world.failed(name, *world.ledger.seen(lane, record.offset, record.value))
                world.done["records read by the one that keeps up"] += 1

    async with (
        riverrun.Client(world.address) as client,
        client.consumer(*TOPICS, on_reset=lambda reset: world.failed(name, reset)) as consumer,
    ):
        reading = asyncio.create_task(read(consumer), name=f"{name} reads")
        try:
            ended = asyncio.create_task(world.ended.wait(), name=f"{name} waits")
            await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            await _to_the_end(client, following, reading)
        except TimeoutError:
            world.failed(name, f"did not come to the end within {END_TIMEOUT_S:.0f} s")
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
    world.failed(name, *world.ledger.lost(following))


async def _to_the_end(
    client: riverrun.Client, following: Following, reading: asyncio.Task[None]
) -> None:
    """Wait until everything has been read that is there now.

    Raises:
        TimeoutError: it takes too long.
    """
    ends = {
        Lane(end.topic, end.partition): end.high_watermark
        for topic in TOPICS
        for end in await client.admin().list_offsets(topic, "latest")
    }
    async with asyncio.timeout(END_TIMEOUT_S):
        while any(following.next_offset[lane] < end for lane, end in ends.items()):
            if reading.done():
                reading.result()
                raise AssertionError("a consumer without an end has ended")
            await asyncio.sleep(_POLL_S)


async def coming_and_going(world: World, group: str) -> None:
    """Read as a group whose only member leaves all the time, and goes on from what is committed."""
    dice, committed = world.rng(group), dict[Lane, int]()
    while not world.stop.is_set():
        async with (
            riverrun.Client(world.address) as client,
            client.consumer(*TOPICS, group=group) as consumer,
        ):
            following = await _positions(world, group, consumer, committed)
            for _ in range(dice.randint(2, 8)):
                await world.pause(_GATHER_S)
                for record in await consumer.getmany(3_000, timeout_s=0.5):
                    lane = Lane(record.topic, record.partition)
                    world.failed(group, *following.take(lane, record.offset, record.value))
                    world.done["records read by a group"] += 1
                offsets = {TopicPartition(*lane): at for lane, at in following.next_offset.items()}
                await consumer.commit(offsets)
                committed = dict(following.next_offset)
        world.done["members of a group that came and went"] += 1
        await world.pause(dice.uniform(0.0, 2.0))


async def _positions(
    world: World, group: str, consumer: riverrun.Consumer, committed: dict[Lane, int]
) -> Following:
    """Return where a member begins, which has to be what was committed."""
    starts = {Lane(*p): await consumer.position(p) for p in await consumer.assignment()}
    for lane, at in committed.items():
        if starts[lane] != at:
            world.failed(group, f"{lane} was committed at {at}, and it goes on at {starts[lane]}")
    return Following(starts)


async def reading_the_past(world: World, name: str) -> None:
    """Read one partition from its beginning to its end by `Read` or `Fetch`, every few seconds.

    Retention may overtake such a reader, and then it is told so.
    """
    dice = world.rng(name)
    async with world.channel() as channel:
        stub = ConsumerServiceStub(channel)
        while not world.stop.is_set():
            lane, how = dice.choice(LANES), dice.choice((_read, _fetch))
            try:
                errors = await how(world, name, stub, lane)
            except grpc.aio.AioRpcError as error:
                world.failed(name, error)
                return
            for error in errors:
                if error.error.reason != ERROR_REASON_OFFSET_OUT_OF_RANGE:
                    world.failed(name, error)
                world.done["readers of the past that retention overtook"] += 1
            world.done["readings of the past"] += 1
            await world.pause(dice.uniform(1.0, 3.0))


async def _read(
    world: World, name: str, stub: ConsumerServiceStub, lane: Lane
) -> list[PartitionError]:
    place = StartPosition(topic=lane.topic, partition=lane.partition, **_EARLIEST)
    request = ReadRequest(positions=[place], stop_at_end=True)
    following, end, errors = Following({}), 0, []
    async for response in stub.Read(request, timeout=CALL_TIMEOUT_S):
        if response.HasField("started"):
            (began,) = response.started.positions
            following.next_offset[lane], end = began.offset, began.high_watermark
        elif response.HasField("delivery"):
            _take(world, name, following, response.delivery)
        elif response.HasField("partition_error"):
            errors.append(response.partition_error)
    if not errors and following.next_offset[lane] < end:
        world.failed(name, f"{lane} ended at {following.next_offset[lane]}, not at {end}")
    return errors


async def _fetch(
    world: World, name: str, stub: ConsumerServiceStub, lane: Lane
) -> list[PartitionError]:
    following = Following({})
    place = StartPosition(topic=lane.topic, partition=lane.partition, **_EARLIEST)
    end = None
    while end is None or following.next_offset.get(lane, 0) < end:
        request = FetchRequest(positions=[place], max_wait=Duration(seconds=1))
        response = await stub.Fetch(request, timeout=CALL_TIMEOUT_S)
        if response.errors:
            return list(response.errors)
        (delivery,) = response.deliveries
        end = delivery.high_watermark if end is None else end
        _take(world, name, following, delivery)
        if delivery.next_offset >= end:
            break
        place = StartPosition(
            topic=lane.topic, partition=lane.partition, offset=delivery.next_offset
        )
    return []


def _take(world: World, name: str, following: Following, delivery: Delivery) -> None:
    lane = Lane(delivery.topic, delivery.partition)
    for record in delivery.records:
        world.failed(name, *following.take(lane, record.offset, record.value))
        world.done["records read from the past"] += 1
