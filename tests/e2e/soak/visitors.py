"""Visitors: topics that live for seconds, and the questions and changes of an administrator."""

from __future__ import annotations

import time

import riverrun
from riverrun import RiverrunError
from tests.e2e.soak.world import BY_SIZE, TOPICS, World

_RECORDS = 200
# Somebody writes all the time.
_FIRST_RECORD_S = 20.0
_POLL_S = 0.5


async def topics_come_and_go(world: World, name: str) -> None:
    """Make a topic, write to it, read it, delete it, and make another one."""
    dice = world.rng(name)
    async with riverrun.Client(world.address) as client:
        admin = client.admin()
        while not world.stop.is_set():
            # The same few names again and again: what is made anew must not find what was deleted.
            topic = f"short-lived-{dice.randrange(4)}"
            try:
                await admin.create_topic(topic, partitions=dice.randint(1, 4))
                values = [b"%d" % number for number in range(_RECORDS)]
                async with client.producer() as producer:
                    await producer.send_many(topic, values)
                async with client.consumer(topic, stop_at_end=True) as consumer:
                    read = [record.value async for record in consumer]
                await admin.delete_topic(topic)
            except RiverrunError as error:
                world.failed(name, error)
                return
            if sorted(read, key=lambda value: int(value or -1)) != values:
                world.failed(name, f"wrote {len(values)} records to {topic}, and read {len(read)}")
            world.done["topics made and deleted"] += 1
            await world.pause(dice.uniform(1.0, 3.0))


async def administrator(world: World, name: str, group: str) -> None:
    """Ask everything that can be asked, and change a setting there and back."""
    dice = world.rng(name)
    async with riverrun.Client(world.address) as client:
        admin = client.admin()
        while not world.stop.is_set():
            try:
                listed = {info.name async for info in admin.list_topics()}
                await admin.cluster()
                await admin.group_offsets(group)
                for topic in TOPICS:
                    await admin.describe_topic(topic)
                    await admin.list_offsets(topic, "earliest")
                await admin.alter_topic(
                    BY_SIZE, set={"max.batch.bytes": str(dice.randint(1 << 20, 2 << 20))}
                )
                await admin.alter_topic(BY_SIZE, unset=["max.batch.bytes"])
            except RiverrunError as error:
                world.failed(name, error)
                return
            if missing := set(TOPICS) - listed:
                world.failed(name, f"topics are not listed: {missing}")
            world.done["administrator's rounds"] += 1
            await world.pause(dice.uniform(1.0, 3.0))


async def passing_by(world: World, name: str) -> None:
    """Open a subscription and leave in the middle of it, as a shell does at ^C."""
    dice = world.rng(name)
    while not world.stop.is_set():
        topic = dice.choice(list(TOPICS))
        try:
            async with (
                riverrun.Client(world.address) as client,
                client.consumer(topic, from_="latest") as consumer,
            ):
                until_s = time.monotonic() + _FIRST_RECORD_S
                while not await consumer.getmany(1, timeout_s=_POLL_S) and not world.stop.is_set():
                    if time.monotonic() > until_s:
                        world.failed(name, f"{topic}: no record within {_FIRST_RECORD_S:.0f} s")
                        return
        except RiverrunError as error:
            world.failed(name, error)
            return
        world.done["subscriptions left in the middle"] += 1
        await world.pause(dice.uniform(0.5, 1.5))
