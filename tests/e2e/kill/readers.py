"""Readers that use the client library: one that stays, and one of a group that comes and goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import riverrun
from riverrun import Record, RiverrunError, TopicPartition
from tests.e2e.kill.history import Began, Committed, Committing, Ended
from tests.e2e.kill.world import PARTITIONS, TOPIC, World

# How long a reader may take to come to the end after the last record was written.
END_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 60.0
_POLL_S = 0.1


def _at_end(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())


def note(world: World, reader: str, records: list[Record], positions: dict[int, int]) -> None:
    """Take down what a reader was given, and how far that brings it."""
    for partition in {record.partition for record in records}:
        some = [(r.offset, r.value or b"") for r in records if r.partition == partition]
        world.recorder.returned(reader, partition, some)
        positions[partition] = some[-1][0] + 1


async def staying(world: World, name: str) -> None:
    """Read everything from the beginning with one consumer that lives through every crash."""
    positions: dict[int, int] = {}
    for partition in PARTITIONS:
        world.recorder.add(Began(name, partition, 0))
    async with (
        riverrun.Client(world.address, connect_timeout_s=_CONNECT_TIMEOUT_S) as client,
        client.consumer(TOPIC) as consumer,
    ):

        async def read() -> None:
            async for view in consumer.batches():
                note(world, name, view.to_records(), positions)
                if view.next_offset > view.high_watermark:
                    world.failed(name, f"given {view.offsets} below {view.high_watermark}")

        reading = asyncio.create_task(read(), name=f"{name} reads")
        try:
            await asyncio.wait({reading, world.ends}, return_when=asyncio.FIRST_COMPLETED)
            deadline_s = asyncio.get_running_loop().time() + END_TIMEOUT_S
            while not reading.done() and not _at_end(positions, await world.ends):
                if asyncio.get_running_loop().time() > deadline_s:
                    break
                await asyncio.wait({reading}, timeout=_POLL_S)
        finally:
            reading.cancel()
            outcome = (await asyncio.gather(reading, return_exceptions=True))[0]
    if isinstance(outcome, RiverrunError):
        world.failed(name, outcome)
    elif not isinstance(outcome, asyncio.CancelledError):
        world.failed(name, f"ended with {outcome!r}")
    for partition in PARTITIONS:
        world.recorder.add(Ended(name, partition))


async def coming_and_going(world: World, group: str) -> None:
    """Read as one group: commit now and then, leave without a word, go on from what is committed."""
    dice = world.rng(group)
    deadline_s: float | None = None
    positions: dict[int, int] = {}
    async with riverrun.Client(world.address, connect_timeout_s=_CONNECT_TIMEOUT_S) as client:
        while not (world.ends.done() and _at_end(positions, world.ends.result())):
            now_s = asyncio.get_running_loop().time()
            if world.ends.done() and deadline_s is None:
                deadline_s = now_s + END_TIMEOUT_S
            if deadline_s is not None and now_s > deadline_s:
                break
            try:
                async with client.consumer(TOPIC, group=group) as consumer:
                    await _session(world, group, consumer, dice, positions)
            except RiverrunError as error:
                world.failed(group, error)
                return
    for partition in PARTITIONS:
        world.recorder.add(Ended(group, partition))


async def _session(
    world: World,
    group: str,
    consumer: riverrun.Consumer,
    dice: random.Random,
    positions: dict[int, int],
) -> None:
    for place in await consumer.assignment():
        positions[place.partition] = await consumer.position(place)
        world.recorder.add(Began(group, place.partition, positions[place.partition], group))
    for _ in range(dice.randint(2, 12)):
        records = await consumer.getmany(dice.randint(1, 400), timeout_s=_POLL_S)
        note(world, group, records, positions)
        if dice.random() < 0.5:
            await _commit(world, group, consumer, positions)
        if world.ends.done() and _at_end(positions, world.ends.result()):
            await _commit(world, group, consumer, positions)
            return


async def _commit(
    world: World, group: str, consumer: riverrun.Consumer, positions: Mapping[int, int]
) -> None:
    offsets = dict(positions)
    for partition, offset in offsets.items():
        world.recorder.add(Committing(group, partition, offset))
    stored = True
    try:
        await consumer.commit({TopicPartition(TOPIC, p): at for p, at in offsets.items()})
    except RiverrunError:
        # Which of the partitions were stored is not told.
        stored = False
    for partition, offset in offsets.items():
        world.recorder.add(Committed(group, partition, offset, stored))
