"""Before a broker ends: it says so in the metadata, and waits until others can do without it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import structlog

from riverrun_server.core.cluster import keys, partition_changes
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader, Standing, broker_epoch
from riverrun_server.core.cluster.steps import Step, Write
from riverrun_server.core.cluster.values import BrokerRegistration, PartitionValue
from riverrun_server.ports.metadata import MetadataError
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated

_log = structlog.stdlib.get_logger(__name__)


async def hand_on(
    image: ClusterImage,
    applied: Applied,
    writer: MetadataWriter,
    process: Leader,
    timeout_s: float,
) -> int:
    """Have the controller give what a process leads to others; return how much it still leads.

    It leaves the replicas in sync too, so that nobody's acknowledgements wait for it. What nobody
    else could lead stays, and so does everything where the metadata store is away.

    Args:
        image: the metadata as applied.
        applied: moves on with the image.
        writer: of metadata.
        process: that is about to end.
        timeout_s: how long it may take.
    """
    if set(image.brokers) != {process.broker_id}:
        try:
            async with asyncio.timeout(timeout_s):
                await _say_so(image, applied, writer, process)
                while _is_needed(image, process) and await applied.moved():
                    pass
        except (TimeoutError, MetadataError) as error:
            _log.warning("leaderships were not handed on", why=str(error) or "it took too long")
    left = sum(_leads(value, process) for value in _partitions(image))
    _log.info("leaderships were handed on", still_led=left)
    return left


async def _say_so(
    image: ClusterImage, applied: Applied, writer: MetadataWriter, process: Leader
) -> None:
    """Mark the registration; where another wrote it meanwhile, again.

    Raises:
        MetadataError: the store did not do it.
    """
    while True:
        found = image.brokers.get(process.broker_id)
        if found is None or broker_epoch(found) != process.broker_epoch or found.value.draining:
            return
        value = _draining(found.value, process)
        step = Step((Write(keys.broker(process.broker_id), value, found.mod_revision),))
        try:
            await applied.reached(await writer.commit((step,)))
        except PlanOutdated as outdated:
            if not await applied.reached(outdated.revision):
                return


def _is_needed(image: ClusterImage, process: Leader) -> bool:
    """Return whether others could yet take over what a process leads, or do without it in sync."""
    standing = Standing(image.brokers)
    return any(
        partition_changes.successor(value, standing) is not None
        if _leads(value, process)
        else standing.leads(value) and any(each.broker == process.broker_id for each in value.isr)
        for value in _partitions(image)
    )


def _draining(registration: BrokerRegistration, process: Leader) -> BrokerRegistration:
    return dataclasses.replace(registration, draining=True, broker_epoch=process.broker_epoch)


def _partitions(image: ClusterImage) -> Iterator[PartitionValue]:
    """Yield the partitions of the topics that are there."""
    for topic in image.topics.values():
        for partition in image.partitions.get(topic.value.topic_id, {}).values():
            yield partition.value


def _leads(value: PartitionValue, process: Leader) -> bool:
    return (value.leader, value.leader_broker_epoch) == (process.broker_id, process.broker_epoch)
