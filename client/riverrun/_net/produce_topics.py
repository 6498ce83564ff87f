"""The topics of a producer: asked for before the first record, and again as they age."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from riverrun._core.producing import ProducerMachine
from riverrun._net.cluster import Cluster
from riverrun._net.metadata import TopicShape, fetch_topic
from riverrun._net.receipts import RecordFutures
from riverrun.errors import FatalError, Reason, RiverrunError, TimedOutError, TopicNotFoundError

_log = logging.getLogger("riverrun")


class ProduceTopics:
    """Teaches the machine the topics that records are for.

    Owns a task for each topic that is being asked for, until it is told to cancel them.

    Args:
        cluster: whom to ask.
        machine: learns what they say.
        uniform: returns a random number in [0, 1): where records without a key begin.
        timeout_s: how long it may take to learn a topic (`delivery_timeout_s`).
        learnt: called with a topic that was loaded, and why it could not be, if so.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: ProducerMachine[RecordFutures],
        uniform: Callable[[], float],
        *,
        timeout_s: float,
        learnt: Callable[[str, RiverrunError | None], None],
    ) -> None:
        self._cluster = cluster
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
            # One that is cancelled before it begins forgets itself so.
            task.add_done_callback(partial(self._over, topic))

    async def loaded(self, topics: Iterable[str]) -> None:
        """Wait until `learnt` has been called for what is being asked for now of these topics."""
        tasks = {self._loads[topic] for topic in topics if topic in self._loads}
        if tasks:
            await asyncio.wait(tasks)

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
                shape = await fetch_topic(self._cluster, topic)
        except TimeoutError:
            trouble = self._cluster.connections.trouble
            raise TimedOutError(
                f"topic {topic}: no broker told about it within {self._timeout_s:g} s "
                f"(delivery_timeout_s){trouble and f': {trouble}'}",
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
                f"topic {topic!r} has no partition {partition}; it has {route.partitions}, from 0",
                reason=Reason.PARTITION_NOT_FOUND,
            )

    def keep(self, topic: str) -> None:
        """Go by what was learnt before, if anything was, although it could not be learnt again."""
        if topic in self._shapes:
            self._shapes[topic] = self._shapes[topic].renewed(asyncio.get_running_loop().time())

    async def _load(self, topic: str) -> None:
        task = asyncio.current_task()
        assert task is not None, "load makes a task of it"
        failure: RiverrunError | None = None
        try:
            await self.learn(topic)
        except RiverrunError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the records that wait must hear of it
            _log.exception("a bug in the client: asking for topic %s", topic)
            text = f"topic {topic}: a bug in the client: {type(error).__name__}: {error}"
            failure = FatalError(text, reason=Reason.INTERNAL)
        # Whoever is told may send again at once, and that asks anew.
        self._over(topic, task)
        self._learnt(topic, failure)

    def _over(self, topic: str, task: asyncio.Task[None]) -> None:
        if self._loads.get(topic) is task:
            del self._loads[topic]
