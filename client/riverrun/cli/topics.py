"""Looking for a topic before work on it begins, so that a mistyped name fails at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from riverrun import TopicPartition
from riverrun.cli.exits import Complaint, Exit

if TYPE_CHECKING:
    from riverrun import Client


async def find_topic(
    client: Client, topic: str, partitions: Iterable[int] = ()
) -> tuple[TopicPartition, ...]:
    """Make sure that a topic is there and has some partitions; return those, else all it has.

    Raises:
        TopicNotFoundError: there is no such topic.
        Complaint: it has fewer partitions than that.
    """
    count = (await client.admin().describe_topic(topic)).topic.partitions
    chosen = tuple(partitions) or range(count)
    beyond = [partition for partition in chosen if partition >= count]
    if beyond:
        raise Complaint(
            f"topic {topic} has no partition {beyond[0]}; it has {count}, from 0",
            Exit.NOT_FOUND,
            "PARTITION_NOT_FOUND",
        )
    return tuple(TopicPartition(topic, partition) for partition in chosen)
