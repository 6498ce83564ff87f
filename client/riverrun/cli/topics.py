"""Looking for a topic before work on it begins, so that a mistyped name fails at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from riverrun import TopicPartition
from riverrun.cli.exits import Complaint, Exit
from riverrun.errors import TopicNotFoundError

if TYPE_CHECKING:
    from riverrun import Admin, Client, TopicDescription


_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


async def find_topic(
    client: Client, topic: str, partitions: Iterable[int] = (), *, made_by: str = ""
) -> tuple[TopicPartition, ...]:
    """Make sure that a topic is there and has some partitions; return those, else all it has.

    Args:
        client: whom to ask.
        topic: its name.
        partitions: those that it has to have.
        made_by: the option of the command, in words, that would make the topic.

    Raises:
        TopicNotFoundError: there is no such topic; it says how to make it.
        Complaint: it has fewer partitions than that.
    """
    count = (await describe_topic(client, topic, made_by=made_by)).topic.partitions
    chosen = tuple(partitions) or range(count)
    check_partitions(topic, chosen, count)
    return tuple(TopicPartition(topic, partition) for partition in chosen)


async def partition_count(admin: Admin, topic: str) -> int:
    """Tell how many partitions a topic has.

    Raises:
        TopicNotFoundError: there is no such topic.
    """
    return (await _described(admin, topic)).topic.partitions


def check_partitions(topic: str, partitions: Iterable[int], count: int) -> None:
    """Refuse partitions that a topic does not have, in the words of the broker.

    Raises:
        Complaint: one is not there.
    """
    beyond = sorted(partition for partition in partitions if partition >= count)
    if beyond:
        raise Complaint(
            f"topic {topic!r} has no partition {beyond[0]}; it has {count}, from 0",
            Exit.NOT_FOUND,
            "PARTITION_NOT_FOUND",
        )


async def describe_topic(client: Client, topic: str, *, made_by: str = "") -> TopicDescription:
    """Tell everything about a topic that has to be there.

    Raises:
        TopicNotFoundError: there is no such topic; it says how to make it.
    """
    try:
        return await _described(client.admin(), topic)
    except TopicNotFoundError as error:
        error.message = _with_advice(error.message, topic, made_by)
        raise


async def _described(admin: Admin, topic: str) -> TopicDescription:
    try:
        return await admin.describe_topic(topic)
    except TopicNotFoundError as error:
        # Nobody asked to describe it.
        error.message = error.message.removeprefix(f"describe topic {topic}: ").rstrip(". ")
        raise


def _with_advice(told: str, topic: str, made_by: str) -> str:
    """Add the command's own way to make a topic, where a topic can have the name."""
    valid = _NAME.fullmatch(topic) and topic not in {".", ".."} and not topic.startswith("__")
    if not made_by or not valid:
        return told
    if "make it with" in told:
        return f"{told}, or {made_by}"
    if told.endswith("?"):
        return f"{told} If not, {made_by}"
    return f"{told}; {made_by}"
