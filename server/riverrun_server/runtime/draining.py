"""Before a broker ends: it says so in the metadata, and waits until others can do without it."""

from __future__ import annotations

import asyncio

import structlog

from riverrun_server.core.cluster import draining
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader
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
                while draining.is_needed(image, process) and await applied.moved():
                    pass
        except (TimeoutError, MetadataError) as error:
            _log.warning("leaderships were not handed on", why=str(error) or "it took too long")
    left = draining.led_by(image, process)
    _log.info("leaderships were handed on", still_led=left)
    return left


async def _say_so(
    image: ClusterImage, applied: Applied, writer: MetadataWriter, process: Leader
) -> None:
    """Mark the registration; where another wrote it meanwhile, again.

    Raises:
        MetadataError: the store did not do it.
    """
    while steps := draining.leaving(image, process):
        try:
            await applied.reached(await writer.commit(steps))
        except PlanOutdated as outdated:
            if not await applied.reached(outdated.revision):
                return
