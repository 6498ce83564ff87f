"""What one client knows of its cluster: the leader map, and what keeps it fresh.

A cluster of one broker needs none of that, and costs nothing here. Where there are several, one of
them pushes who leads what (WatchMetadata), and brokers that could not be reached are looked for in
the background, while others serve in their place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Set
from typing import TypeAlias

import grpc.aio

from riverrun._core.attempts import Attempts
from riverrun._core.backoff import Backoff, BackoffConfig
from riverrun._core.leader_map import ANY, Leader, LeaderMap, TopicNews
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connection, Connections
from riverrun._net.failures import being_cancelled, from_stream, is_connection_trouble
from riverrun.errors import (
    ClosedError,
    LeaderHint,
    RetriableError,
    RiverrunError,
    TopicNotFoundError,
)
from riverrun.v1 import metadata_pb2

_log = logging.getLogger("riverrun")

# A broker that cannot be reached has others in its place: no hurry.
_LOOKING = BackoffConfig(first_s=0.5, max_s=30.0)

# Who has denied that it leads a partition is asked again after so long, or up to twice that.
_PARDON_S = 5.0

# So long after a topic, or more partitions of it, became known here, its leaders may not know them.
_NEW_S = 10.0

Listener: TypeAlias = Callable[[Set[TopicPartition]], None]
"""Told of partitions that are now to be had from another broker."""


class Cluster:
    """The leader map of one client. Owns the watch, and who looks for brokers; they end with the connections.

    Args:
        connections: to its brokers.
        uniform: returns a random number in [0, 1), for delays.

    Attributes:
        connections: to its brokers.
        leaders: who leads what, as far as is known.
    """

    def __init__(self, connections: Connections, uniform: Callable[[], float]) -> None:
        self.connections = connections
        self.leaders = LeaderMap()
        self._uniform = uniform
        self._listeners: list[Listener] = []
        self._topics: set[str] = set()
        self._watched: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self._call: grpc.aio.Call | None = None
        self._looking: dict[int, asyncio.Task[None]] = {}
        self._delays: dict[int, Backoff] = {}
        self._grown_s: dict[str, float] = {}
        self._pardons: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._closed = False
        connections.at_close(self.close)

    def listen(self, listener: Listener) -> None:
        """Tell it of every partition whose destination changes."""
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Tell it nothing any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def ask(self, topics: Iterable[str]) -> metadata_pb2.ClusterMetadata:
        """Ask any broker about topics, and go by what it says.

        Raises:
            RiverrunError: no broker answers, or it refuses.
        """
        request = metadata_pb2.GetMetadataRequest(topics=topics)
        named = ", ".join(request.topics)
        response = await self.connections.call(
            lambda connection, timeout_s: connection.metadata.GetMetadata(
                request, timeout=timeout_s
            ),
            f"get metadata of {named}",
            attempts=Attempts(changes=False),
        )
        self.learn(response.cluster)
        return response.cluster

    async def connect_to(self, broker_id: int, *, again: bool) -> Connection:
        """Find a broker; where any will do, it may be the one that could not be reached.

        Args:
            broker_id: which one, or ANY.
            again: as Connections.connect has it.

        Raises:
            RiverrunError: as Connections.connect and connect_to.
        """
        if broker_id != ANY:
            return await self.connections.connect_to(broker_id)
        connection = await self.connections.connect(again=again)
        self.reachable(connection.info.broker_id)
        return connection

    def follow(self, topics: Iterable[str]) -> None:
        """Be told of changes of these topics too, from now on, where there are several brokers."""
        self._topics |= {*topics}
        if not self.leaders.several or self._closed or not self._topics:
            return
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="riverrun metadata")
        elif self._call is not None and self._topics != self._watched:
            # The next watch begins with everything.
            self._call.cancel()

    def learn(self, cluster: metadata_pb2.ClusterMetadata) -> None:
        """Go by what a broker says of the cluster."""
        brokers = {broker.broker_id: broker.endpoint for broker in cluster.brokers}
        news = [_news(topic) for topic in cluster.topics]
        before = [self.leaders.partitions(topic.topic) for topic in news]
        changed = self.leaders.learn(cluster.revision, brokers, news)
        for topic, had in zip(news, before, strict=True):
            if self.leaders.partitions(topic.topic) != had:
                self._grown_s[topic.topic] = asyncio.get_running_loop().time()
        self._changed(changed)

    def judged(self, topic: str, error: RiverrunError) -> RiverrunError:
        """Return what a broker's error about a topic means; one may not have heard of a new topic yet.

        Args:
            topic: by name.
            error: what the broker says.
        """
        if not isinstance(error, TopicNotFoundError) or not self.leaders.several:
            return error
        young_s = asyncio.get_running_loop().time() - self._grown_s.get(topic, -_NEW_S)
        if self.leaders.partitions(topic) is None or young_s >= _NEW_S:
            return error
        return RetriableError(error.message, reason=error.reason)

    def hinted(self, partition: TopicPartition, hint: LeaderHint) -> bool:
        """Follow a hint; return whether it was news."""
        changed = self.leaders.hinted(partition, hint.broker_id, hint.endpoint, hint.leader_epoch)
        self._changed(changed)
        return bool(changed)

    def denied(self, partition: TopicPartition, broker_id: int) -> None:
        """Take that a broker does not lead a partition, and knows no more than we do."""
        changed = self.leaders.denied(partition, broker_id)
        if changed and not self._closed:
            delay_s = _PARDON_S * (1 + self._uniform())
            timer = asyncio.get_running_loop().call_later(delay_s, self._pardon, partition)
            self._pardons[partition] = timer
        self._changed(changed)

    def unreachable(self, broker_id: int, error: RiverrunError) -> None:
        """Do without a broker, and look for it in the background."""
        if self._closed or broker_id not in self.leaders.endpoints:
            return
        if broker_id not in self._looking:
            _log.info("others serve in its place: %s", error)
            task = asyncio.create_task(self._look_for(broker_id), name="riverrun broker")
            self._looking[broker_id] = task
        self._changed(self.leaders.unreachable(broker_id))

    def reachable(self, broker_id: int) -> None:
        """Go to a broker itself again."""
        changed = self.leaders.reachable(broker_id)
        looking = self._looking.pop(broker_id, None)
        if looking is not None and looking is not asyncio.current_task():
            looking.cancel()
        self._changed(changed)

    def steady(self, broker_id: int) -> None:
        """Take that a broker does its work."""
        self._delays.pop(broker_id, None)

    async def close(self) -> None:
        """End the watch, and look for nobody any more."""
        self._closed = True
        self._listeners.clear()
        tasks = [*self._looking.values()]
        if self._watching is not None:
            tasks.append(self._watching)
        if self._call is not None:
            self._call.cancel()
        for timer in self._pardons.values():
            timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pardon(self, partition: TopicPartition) -> None:
        self._pardons.pop(partition, None)
        self._changed(self.leaders.pardoned(partition))

    def _changed(self, partitions: Set[TopicPartition]) -> None:
        self.connections.endpoints = self.leaders.endpoints
        # Also where this is how it became known that there are several.
        self.follow(())
        if partitions:
            for listener in tuple(self._listeners):
                listener(partitions)

    async def _watch(self) -> None:
        """Have one broker after the other tell what changes, for as long as there are several."""
        backoff = Backoff(self._uniform)
        while True:
            connection: Connection | None = None
            delay_s = 0.0
            try:
                connection = await self.connections.connect(again=True)
                if await self._hear(connection):
                    backoff.reset()
                # It ended in order: the broker goes away.
                self.connections.lost(connection)
                delay_s = backoff.next_s()
            except asyncio.CancelledError:
                # gRPC says so too where a call is cancelled: there are more topics to be told of.
                if being_cancelled():
                    raise
            except ClosedError:
                return
            except grpc.aio.AioRpcError as failure:
                assert connection is not None, "somebody was asked"
                error = from_stream(failure, "watch metadata", connection.endpoint)
                _log.info("who leads what is not told for a moment: %s", error)
                if is_connection_trouble(error):
                    self.connections.lost(connection)
                delay_s = backoff.next_s(error.retry_after_s)
            except RiverrunError as error:
                delay_s = backoff.next_s(error.retry_after_s)
            finally:
                self._call = None
            await asyncio.sleep(delay_s)

    async def _hear(self, connection: Connection) -> bool:
        """Take what one broker tells until it ends; return whether it has told anything."""
        self._watched = {*self._topics}
        limit = connection.info.limits.max_partitions_per_call
        named = sorted(self._watched) if len(self._watched) <= limit or not limit else []
        call = connection.metadata.WatchMetadata(metadata_pb2.WatchMetadataRequest(topics=named))
        self._call = call
        told = False
        try:
            while isinstance(news := await call.read(), metadata_pb2.WatchMetadataResponse):
                told = True
                self.learn(news.cluster)
        finally:
            call.cancel()
        return told

    async def _look_for(self, broker_id: int) -> None:
        """Try a broker now and then until it answers or is gone from the cluster."""
        delays = self._delays.setdefault(broker_id, Backoff(self._uniform, _LOOKING))
        while broker_id in self.leaders.endpoints:
            await asyncio.sleep(delays.next_s())
            try:
                await self.connections.connect_to(broker_id)
            except ClosedError:
                break
            except RiverrunError:
                continue
            _log.info("broker %d can be reached again", broker_id)
            self.reachable(broker_id)
            return
        self._looking.pop(broker_id, None)


def _news(topic: metadata_pb2.TopicMetadata) -> TopicNews:
    leaders = tuple(Leader(each.leader, each.leader_epoch) for each in topic.partitions)
    return TopicNews(topic.topic, topic.topic_id, leaders)
