"""Takes the figures of topics and of the store for the metrics page now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.store import StoreFigures
from riverrun_server.observe.topics import TopicFigures
from riverrun_server.ports.log import StorageError
from riverrun_server.ports.partitions import Flow, Watermarks
from riverrun_server.ports.threads import Threads

F = TypeVar("F")

# Scrapes are rarely closer than this; a thousand partitions take some milliseconds.
INTERVAL_S: Final = 5.0
# What an operator has to do something about; the rest passes, or is another broker's.
_DAMAGED: Final = frozenset({Reason.PARTITION_OFFLINE, Reason.CORRUPT_DATA})
# Between two batches of partitions others get their turn.
_AT_ONCE: Final = 100


class Sampled(Protocol):
    """What is asked of a partition, on the loop that owns it."""

    @property
    def topic(self) -> str:
        """The topic's name."""
        ...

    @property
    def flow(self) -> Flow:
        """What has passed through the partition."""
        ...

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets, or raise a Refusal where it serves nothing."""
        ...


class Measured(Protocol):
    """What is asked of a store."""

    def metrics(self) -> StoreFigures:
        """Return its figures, or raise a StorageError; blocks for some milliseconds."""
        ...


async def sample(partitions: Iterable[Sampled]) -> dict[str, TopicFigures]:
    """Return the figures of each topic that has partitions here."""
    figures: dict[str, TopicFigures] = {}
    for number, partition in enumerate(list(partitions)):
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            marks = await partition.watermarks()
            flow = partition.flow
            one = TopicFigures(
                marks.log_end_offset,
                marks.size_bytes,
                online=1,
                appended_bytes=flow.appended_bytes,
                delivered_records=flow.delivered_records,
                memory_bytes=flow.memory_bytes,
                disk_bytes=flow.disk_bytes,
            )
        except Refusal as refusal:
            if refusal.reason not in _DAMAGED:
                continue  # led elsewhere, which counts it; or it cannot say just now
            one = TopicFigures(offline=1)
        figures[partition.topic] = figures.get(partition.topic, TopicFigures()) + one
    return figures


async def keep_sampling(
    partitions: Callable[[], Iterable[Sampled]],
    publish: Callable[[Mapping[str, TopicFigures]], None],
    every_s: float = INTERVAL_S,
) -> None:
    """Publish the figures of all partitions every so often, until cancelled."""
    while True:
        publish(await sample(partitions()))
        await asyncio.sleep(every_s)


async def keep_measuring(
    store: Measured,
    threads: Threads,
    publish: Callable[[StoreFigures | None], None],
    every_s: float = INTERVAL_S,
) -> None:
    """Publish the figures of a store every so often, None where it has none, until cancelled."""
    while True:
        try:
            figures = await threads.run(store.metrics)
        except StorageError:
            # What is wrong with the disk is told by those who need it for more than figures.
            figures = None
        publish(figures)
        await asyncio.sleep(every_s)


async def keep_publishing(
    take: Callable[[], F | None], publish: Callable[[F], None], every_s: float = INTERVAL_S
) -> None:
    """Publish figures that are at hand every so often, where there are any, until cancelled."""
    while True:
        figures = take()
        if figures is not None:
            publish(figures)
        await asyncio.sleep(every_s)
