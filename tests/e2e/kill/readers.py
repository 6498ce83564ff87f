"""Readers that use the client library: one that stays, and one of a group that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence

import riverrun
from riverrun import Record, RiverrunError, TopicPartition
from tests.e2e.kill.history import Began, Committed, Committing
from tests.e2e.kill.world import PARTITIONS, TOPIC, World

_CONNECT_TIMEOUT_S = 60.0
_POLL_S = 0.1


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

    async def read(consumer: riverrun.Consumer) -> None:
        async for view in consumer.batches():
            note(world, name, view.to_records(), positions)
            if view.next_offset > view.high_watermark:
                world.failed(name, f"given {view.offsets} below {view.high_watermark}")

    async with (
        world.reading(name),
        riverrun.Client(world.bootstrap, connect_timeout_s=_CONNECT_TIMEOUT_S) as client,
        client.consumer(world.topic) as consumer,
    ):
        task = asyncio.create_task(read(consumer), name=f"{name} reads")
        try:
            while not task.done() and not world.at_end(positions):
                await asyncio.wait({task}, timeout=_POLL_S)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def coming_and_going(world: World, group: str) -> None:
    """Read as one group: commit now and then, leave without a word, go on from what is committed."""
    dice, positions = world.rng(group), dict[int, int]()
    async with (
        world.reading(group),
        riverrun.Client(world.address, connect_timeout_s=_CONNECT_TIMEOUT_S) as client,
    ):
        while not world.at_end(positions):
            async with _member(world, group, client, positions) as consumer:
                await _session(world, group, consumer, dice, positions)


def _member(
    world: World, group: str, client: riverrun.Client, positions: dict[int, int]
) -> riverrun.Consumer:
    """Return a member of a group, which begins again where a broker that was cut off has forgotten it."""

    async def begin(places: Sequence[TopicPartition]) -> None:
        for place in places:
            positions[place.partition] = await consumer.position(place)
            world.recorder.add(Began(group, place.partition, positions[place.partition], group))

    consumer = client.consumer(TOPIC, group=group, on_assigned=begin)
    return consumer


async def _session(
    world: World,
    group: str,
    consumer: riverrun.Consumer,
    dice: random.Random,
    positions: dict[int, int],
) -> None:
    await consumer.assignment()
    for _ in range(dice.randint(2, 12)):
        records = await consumer.getmany(dice.randint(1, 400), timeout_s=_POLL_S)
        note(world, group, records, positions)
        if dice.random() < 0.5:
            await _commit(world, group, consumer, positions)
        if world.at_end(positions):
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
