"""The topics whose records are delivered: they are created and grow, and somebody writes to them."""

from __future__ import annotations

import contextvars
from typing import Any

from riverrun_server.core.log.batch import PartitionId
from tests.rpc.fake_partitions import FakePartition, batch_of, records_of
from tests.sim.groups.world import World


class _Partition(FakePartition):
    """A partition that wakes readers in their own processes."""

    def __init__(self, world: World, topic: str, partition: PartitionId) -> None:
        super().__init__(topic, partition)
        self._world = world
        self.written_at: list[float] = []

    def cursor(self, offset: int, wake: Any) -> Any:
        context, loop = contextvars.copy_context(), self._world.loop
        return super().cursor(offset, lambda: loop.call_soon(wake, context=context))

    def write(self) -> None:
        """Append a record."""
        self.written_at.append(self._world.loop.time())
        self.store(batch_of(records_of(b"r")))


class Topics:
    """All topics, as they are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._topics: dict[str, list[_Partition]] = {}
        self._names: dict[bytes, str] = {}

    def create(self, name: str, partitions: int) -> None:
        topic_id = name.encode().rjust(16, b".")
        self._names[topic_id] = name
        self._topics[name] = []
        self.grow(name, partitions)

    def grow(self, name: str, partitions: int) -> None:
        found = self._topics[name]
        topic_id = name.encode().rjust(16, b".")
        for number in range(len(found), partitions):
            found.append(_Partition(self._world, name, PartitionId(topic_id, number)))

    def names(self) -> list[str]:
        return list(self._topics)

    def sizes(self) -> dict[str, int]:
        return {name: len(found) for name, found in self._topics.items()}

    def id_of(self, name: str) -> bytes:
        return self._topics[name][0].id.topic_id

    def name_of(self, topic_id: bytes) -> str:
        return self._names.get(topic_id, "")

    def partitions(self, name: str) -> list[_Partition]:
        return self._topics[name]

    def all(self) -> list[_Partition]:
        return [each for found in self._topics.values() for each in found]
