"""Readers: one that keeps up, and a group whose members come and go."""

from __future__ import annotations

import asyncio
import contextlib

import riverrun
from riverrun import TopicPartition
from tests.e2e.soak.ledger import Following, Lane
from tests.e2e.soak.world import LANES, TOPICS, World

END_TIMEOUT_S = 60.0
_POLL_S = 0.2
# What a member of a group lets gather before it reads on.
_GATHER_S = 0.5


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
