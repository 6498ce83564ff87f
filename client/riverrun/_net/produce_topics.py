"""The topics of a producer: asked for before the first record, and again as they age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from riverrun._core.producing import ProducerMachine
from riverrun._net.channel import Connections
from riverrun._net.metadata import TopicShape, fetch_topic
from riverrun._net.receipts import RecordFutures
from riverrun.errors import Reason, RiverrunError, TimedOutError, TopicNotFoundError


class ProduceTopics:
    """Teaches the machine the topics that records are for.

    Owns a task for each topic that is being asked for, until it is told to cancel them.

    Args:
        connections: finds brokers.
        machine: learns what they say.
        uniform: returns a random number in [0, 1): where records without a key begin.
        timeout_s: how long it may take to learn a topic (`delivery_timeout_s`).
        learnt: called with a topic that was loaded, and why it could not be, if so.
    """

    def __init__(
        self,
        connections: Connections,
        machine: ProducerMachine[RecordFutures],
        uniform: Callable[[], float],
        *,
        timeout_s: float,
        learnt: Callable[[str, RiverrunError | None], None],
    ) -> None:
        self._connections = connections
        self._machine = machine
        self._uniform = uniform
        self._timeout_s = timeout_s
        self._learnt = learnt
        self._shapes: dict[str, TopicShape] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}

    def knows(self, topic: str, partition: int | None) -> bool:
        """Whether a record for that place can go on; a topic that may have grown is asked for."""
        route = self._machine.route(topic)
        if route is None or (partition is not None and partition >= route.partitions):
            return False
        if self._shapes[topic].is_stale(asyncio.get_running_loop().time()):
            self.load(topic)
        return True

    def load(self, topic: str) -> None:
        """Ask for a topic, unless that is being done; `learnt` is called at the end."""
        if topic not in self._loads:
            task = asyncio.create_task(self._load(topic), name=f"riverrun {topic}")
            self._loads[topic] = task
            task.add_done_callback(lambda _: self._loads.pop(topic, None))

    async def loaded(self, topic: str) -> None:
        """Wait until the topic is not being asked for any more."""
        if topic in self._loads:
            await asyncio.wait({self._loads[topic]})

    async def all_loaded(self) -> None:
        """Wait until nothing is being asked for any more."""
        while self._loads:
            await asyncio.wait(self._loads.values())

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel what is being asked for; return the tasks, to be awaited."""
        tasks = [*self._loads.values()]
        for task in tasks:
            task.cancel()
        return tasks

    async def learn(self, topic: str) -> None:
        """Ask for a topic now.

        Raises:
            RiverrunError: there is none, or nobody told in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                shape = await fetch_topic(self._connections, topic)
        except TimeoutError:
            raise TimedOutError(
                f"topic {topic}: no broker told about it within {self._timeout_s:g} s "
                "(delivery_timeout_s)",
                reason=Reason.TIMED_OUT,
            ) from None
        self._shapes[topic] = shape
        first = int(self._uniform() * shape.partitions)
        self._machine.learn_topic(topic, shape.topic_id, shape.partitions, first)

    def check_partition(self, topic: str, partition: int | None) -> None:
        """Refuse a partition that a topic, which has been learnt, does not have.

        Raises:
            TopicNotFoundError: it does not.
        """
        route = self._machine.route(topic)
        assert route is not None, "the topic has been learnt"
        if partition is not None and partition >= route.partitions:
            raise TopicNotFoundError(
                f"topic {topic} has {route.partitions} partitions, numbered from 0; partition "
                f"{partition} does not exist",
                reason=Reason.PARTITION_NOT_FOUND,
            )

    def keep(self, topic: str) -> None:
        """Go by what was learnt before, if anything was, although it could not be learnt again."""
        if topic in self._shapes:
            self._shapes[topic] = self._shapes[topic].renewed(asyncio.get_running_loop().time())

    async def _load(self, topic: str) -> None:
        try:
            await self.learn(topic)
        except RiverrunError as error:
            self._learnt(topic, error)
        else:
            self._learnt(topic, None)
