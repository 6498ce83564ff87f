"""Figures for the metrics page: topics add up their partitions, a store that fails shows nothing."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.topics import TopicFigures
from riverrun_server.ports.log import StorageError
from riverrun_server.ports.partitions import Watermarks
from riverrun_server.runtime.sampling import keep_measuring, keep_sampling, sample
from tests.runtime.manual import ManualThreads, settle


class Flow(NamedTuple):
    appended_bytes: int
    delivered_records: int
    memory_bytes: int
    disk_bytes: int


class Partition:
    def __init__(
        self, topic: str, end: int = 0, size: int = 0, *, refuses: Reason | None = None
    ) -> None:
        self.topic = topic
        self._marks = Watermarks(0, end, end, 1, size)
        self._refuses = refuses
        self.flow = Flow(size * 2, end, size, 1)

    async def watermarks(self) -> Watermarks:
        if self._refuses is not None:
            raise Refusal(self._refuses, "not now")
        return self._marks


async def test_partitions_add_up_to_their_topics():
    partitions = [Partition("a", 5, 100), Partition("b"), Partition("a", 7, 200)]
    partitions.append(Partition("a", refuses=Reason.PARTITION_OFFLINE))
    assert await sample(partitions) == {
        "a": TopicFigures(12, 300, 2, 1, 600, 12, 300, 2),
        "b": TopicFigures(online=1, disk_bytes=1),
    }


async def test_what_others_lead_or_nobody_can_tell_just_now_is_not_offline():
    """An alarm on offline partitions is for damage, not for an election or an etcd that is away."""
    passing = (Reason.NOT_LEADER, Reason.OFFSET_NOT_AVAILABLE, Reason.NOT_READY)
    assert await sample([Partition("a", refuses=reason) for reason in passing]) == {}


async def test_figures_are_published_again_and_again():
    published = asyncio.Queue(10)
    partitions = [Partition(f"t{n}") for n in range(250)]
    task = asyncio.create_task(keep_sampling(lambda: partitions, published.put_nowait, 0.0))
    first, second = await published.get(), await published.get()
    assert len(first) == len(second) == 250
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Store:
    """Answers what a test has prepared."""

    def __init__(self, *answers) -> None:
        self._answers = list(answers)

    def metrics(self):
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_store_is_measured_in_a_thread_again_and_again_though_it_may_fail():
    published, threads = [], ManualThreads()
    store = Store("figures", StorageError("listing tables: no"), "newer figures")
    task = asyncio.create_task(keep_measuring(store, threads, published.append, 0.0))
    for expected in (["figures"], ["figures", None], ["figures", None, "newer figures"]):
        await settle()
        assert len(threads.calls) == 1
        threads.step()
        await settle()
        assert published == expected
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
