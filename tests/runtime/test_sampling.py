"""The figures of topics add their partitions up, damaged ones included."""

from __future__ import annotations

import asyncio

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.topics import TopicFigures
from riverrun_server.ports.partitions import Watermarks
from riverrun_server.runtime.sampling import keep_sampling, sample


class Partition:
    def __init__(self, topic: str, end: int = 0, size: int = 0, *, damaged: bool = False) -> None:
        self.topic = topic
        self._marks = Watermarks(0, end, end, 1, size)
        self._damaged = damaged

    async def watermarks(self) -> Watermarks:
        if self._damaged:
            raise Refusal(Reason.PARTITION_OFFLINE, "damaged")
        return self._marks


async def test_partitions_add_up_to_their_topics():
    partitions = [Partition("a", 5, 100), Partition("b"), Partition("a", 7, 200)]
    partitions.append(Partition("a", damaged=True))
    assert await sample(partitions) == {
        "a": TopicFigures(12, 300, online=2, offline=1),
        "b": TopicFigures(online=1),
    }


async def test_figures_are_published_again_and_again():
    published = asyncio.Queue(10)
    partitions = [Partition(f"t{n}") for n in range(250)]
    task = asyncio.create_task(keep_sampling(lambda: partitions, published.put_nowait, 0.0))
    first, second = await published.get(), await published.get()
    assert len(first) == len(second) == 250
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
