"""Sends events into their topics in the order of time, a day of 2013 after the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime

import riverrun
from examples.flights.events import TOPICS, Event

PARTITIONS = 4

DayDone = Callable[[date], Awaitable[None]]
"""Is told that all events of a day are acknowledged."""


async def create_topics(client: riverrun.Client) -> None:
    """Make the topics.

    Records of 2013 do not expire: how long a topic keeps them counts from their arrival.
    """
    admin = client.admin()
    for topic in TOPICS:
        await admin.create_topic(topic, partitions=PARTITIONS, if_not_exists=True)


async def replay(client: riverrun.Client, events: list[Event], day_done: DayDone) -> None:
    """Send everything; each aircraft is a key, so its events stay in order in their topic.

    Args:
        client: the cluster.
        events: in the order of time.
        day_done: called after each day.
    """
    async with client.producer() as producer:
        for day, group in itertools.groupby(events, day_of):
            today: dict[str, list[riverrun.NewRecord]] = {topic: [] for topic in TOPICS}
            for event in group:
                today[event.topic].append(event.record)
            await asyncio.gather(
                *(producer.send_many(topic, records) for topic, records in today.items())
            )
            await day_done(day)


def day_of(event: Event) -> date:
    """Return the day on which something happened, in UTC."""
    return datetime.fromtimestamp(event.time_ms / 1000, UTC).date()
