"""Readers on nothing but generated stubs, and who asks for the high watermark all the time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import grpc.aio

from riverrun.v1.consumer_pb2 import (
    FROM_COMMITTED,
    FROM_EARLIEST,
    FROM_LATEST,
    CommitOffsetRequest,
    Delivery,
    ListOffsetsRequest,
    OffsetCommit,
    OffsetQuery,
    ReadRequest,
    StartPosition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from tests.e2e.kill.calls import AGAIN_S, patiently
from tests.e2e.kill.history import Began, Committed, Committing, Measured, Place
from tests.e2e.kill.world import CALL_TIMEOUT_S, END_TIMEOUT_S, PARTITIONS, TOPIC, World, consumers

# `from` is a word of Python's.
_COMMITTED = {"from": FROM_COMMITTED}
_EARLIEST = {"from": FROM_EARLIEST}
_LATEST = {"from": FROM_LATEST}


async def measuring(world: World) -> None:
    """Ask for the high watermarks from beginning to end."""
    async with world.channel() as channel:
        stub = consumers(channel)
        while not world.ends.done():
            await _measure(world, stub)
            await asyncio.sleep(AGAIN_S)


async def measure_once(world: World) -> None:
    """Ask for the high watermarks now, on a connection of its own."""
    async with world.channel() as channel:
        await _measure(world, consumers(channel))


async def _measure(world: World, stub: ConsumerServiceStub) -> None:
    request = ListOffsetsRequest(queries=[OffsetQuery(topic=TOPIC, **_LATEST)])
    asked_at = len(world.recorder.events)
    answer = await patiently(lambda: stub.ListOffsets(request, timeout=CALL_TIMEOUT_S))
    for found in answer.answers:
        if found.HasField("error"):
            world.failed("measuring", found.error)
        else:
            world.recorder.add(Measured(asked_at, found.partition, found.high_watermark))


async def resuming(world: World, group: str) -> None:
    """Read by `Read`; where that breaks go on from where it was, or from what is committed."""
    dice, positions = world.rng(group), dict[int, int]()
    async with world.reading(group), world.channel() as channel:
        while not world.at_end(positions):
            await _read(world, group, consumers(channel), dice, positions)


async def _read(
    world: World,
    group: str,
    stub: ConsumerServiceStub,
    dice: random.Random,
    positions: dict[int, int],
) -> None:
    """Read until the stream breaks or enough was read."""
    fresh = not positions or dice.random() < 0.5
    places = [
        StartPosition(topic=TOPIC, partition=partition, **_COMMITTED)
        if fresh
        else StartPosition(topic=TOPIC, partition=partition, offset=positions[partition])
        for partition in PARTITIONS
    ]
    request = ReadRequest(
        positions=places,
        group_id=group,
        max_records=dice.randint(1, 3000),
        stop_at_end=world.ends.done() or dice.random() < 0.3,
    )
    timeout_s = None if request.stop_at_end else dice.uniform(0.2, 2.0)
    try:
        async for response in stub.Read(request, timeout=timeout_s):
            if response.HasField("started"):
                for place in response.started.positions:
                    if fresh:
                        world.recorder.add(Began(group, place.partition, place.offset, group))
                    positions[place.partition] = place.offset
            elif response.HasField("delivery"):
                _note(world, group, response.delivery, positions)
                if dice.random() < 0.3:
                    await _commit(world, group, stub, positions)
            elif response.HasField("position_reset") or response.HasField("partition_error"):
                world.failed(group, response)
    except grpc.aio.AioRpcError:
        await asyncio.sleep(AGAIN_S)
    await world.pause(dice.uniform(0.0, 0.2))


def _note(world: World, group: str, delivery: Delivery, positions: dict[int, int]) -> None:
    if delivery.first_offset != positions[delivery.partition]:
        expected = positions[delivery.partition]
        what = f"a delivery begins at {delivery.first_offset}, the last one ended at {expected}"
        world.failed(group, what)
    records = [(record.offset, record.value) for record in delivery.records]
    world.recorder.returned(group, delivery.partition, records)
    positions[delivery.partition] = delivery.next_offset
    if delivery.next_offset > delivery.high_watermark:
        world.failed(group, f"{delivery.next_offset} is past the high watermark: {delivery}")


async def _commit(
    world: World, group: str, stub: ConsumerServiceStub, positions: Mapping[int, int]
) -> None:
    offsets = dict(positions)
    for partition, offset in offsets.items():
        world.recorder.add(Committing(group, partition, offset))
    commits = [OffsetCommit(topic=TOPIC, partition=p, offset=at) for p, at in offsets.items()]
    request = CommitOffsetRequest(group_id=group, offsets=commits)
    stored = dict.fromkeys(offsets, False)
    try:
        answer = await stub.CommitOffset(request, timeout=CALL_TIMEOUT_S)
        stored = {result.partition: not result.HasField("error") for result in answer.results}
    except grpc.aio.AioRpcError:
        pass
    for partition, offset in offsets.items():
        world.recorder.add(Committed(group, partition, offset, stored[partition]))


async def read_everything(world: World) -> dict[int, list[Place]]:
    """Read all partitions from beginning to end."""
    places = [StartPosition(topic=world.topic, partition=p, **_EARLIEST) for p in PARTITIONS]
    request = ReadRequest(positions=places, stop_at_end=True)
    logs: dict[int, list[Place]] = {partition: [] for partition in PARTITIONS}
    async with world.channel() as channel:
        async for response in consumers(channel).Read(
            request, timeout=2 * END_TIMEOUT_S, wait_for_ready=True
        ):
            assert not response.HasField("partition_error"), response
            for record in response.delivery.records:
                logs[response.delivery.partition].append((record.offset, record.value))
    return logs
