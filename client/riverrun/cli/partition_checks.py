"""Which partitions `doctor` finds offline or without a leader, and what their broker says of them."""

from __future__ import annotations

import asyncio

from riverrun import Admin, PartitionDescription, RiverrunError, TopicNotFoundError
from riverrun.cli.finding import Finding

SHOWN = 20
"""So many offline partitions are told of one by one; a store that is lost has thousands."""
ASKED_AT_ONCE = 8


async def check_partitions(admin: Admin) -> list[Finding]:
    """Look at every partition, those of internal topics too: groups cannot commit without them."""
    try:
        topics = [topic.name async for topic in admin.list_topics(include_internal=True)]
        turn = asyncio.Semaphore(ASKED_AT_ONCE)
        described = await asyncio.gather(*[_partitions(admin, topic, turn) for topic in topics])
    except RiverrunError as error:
        advice = "see the broker's log, and run this again"
        return [Finding("partitions", "failed", error.message, advice)]
    named = [
        (f"{topic}[{partition.partition}]", partition)
        for topic, partitions in zip(topics, described, strict=True)
        for partition in partitions
    ]
    return judge_partitions(named)


def judge_partitions(named: list[tuple[str, PartitionDescription]]) -> list[Finding]:
    """Tell of each partition that cannot be used, or that all can."""
    trouble = [
        (name, partition.error or "no broker leads it; start the one that did")
        for name, partition in named
        if partition.error or partition.leader < 0
    ]
    if not trouble:
        return [Finding("partitions", "ok", f"{len(named)}, each with a leader and online")]
    findings = [
        Finding("partition", "failed", f"{name} cannot be used", why)
        for name, why in trouble[:SHOWN]
    ]
    if len(trouble) > SHOWN:
        found = f"{len(trouble) - SHOWN} more cannot be used"
        advice = "`riverrun topic describe TOPIC` tells of each"
        findings.append(Finding("partitions", "failed", found, advice))
    return findings


async def _partitions(
    admin: Admin, topic: str, turn: asyncio.Semaphore
) -> tuple[PartitionDescription, ...]:
    """Describe the partitions of a topic; none where it has been deleted meanwhile."""
    async with turn:
        try:
            return (await admin.describe_topic(topic)).partitions
        except TopicNotFoundError:
            return ()
