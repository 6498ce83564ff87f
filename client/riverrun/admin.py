"""Make, look at, change and delete topics, look at groups and brokers, and say who leads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from functools import partial

from riverrun._core.argument_checks import (
    INT32_MAX,
    check_topic,
    out_of_range,
    texts,
    whole_number,
)
from riverrun._core.attempts import Attempts
from riverrun._core.cluster_descriptions import (
    ClusterDescription,
    DrainResult,
    ElectionResult,
)
from riverrun._core.descriptions import (
    ClusterInfo,
    PartitionOffset,
    TopicDescription,
    TopicInfo,
    TrimResult,
)
from riverrun._core.records import From, TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.cluster_calls import (
    describe_cluster,
    drain_broker,
    elect_leaders,
    fetch_cluster,
)
from riverrun._net.configs import config_texts
from riverrun._net.describing import topic_description, topic_info
from riverrun._net.failures import from_proto
from riverrun._net.offsets import list_offsets, offset_query
from riverrun.group_admin import GroupAdmin
from riverrun.v1 import admin_pb2 as pb


class Admin(GroupAdmin):
    """Calls that make and change things, from `Client.admin()`. It needs no closing.

    Every method raises `NoBrokerError` or `TimedOutError` where no broker answers in time, and the
    error of the broker as it is. Calls that change something are made again only where that cannot do
    it twice.

    Example:
        admin = client.admin()
        await admin.create_topic("orders", partitions=3, if_not_exists=True)
    """

    async def create_topic(
        self,
        topic: str,
        *,
        partitions: int = 0,
        replication_factor: int = 0,
        configs: Mapping[str, str | int] | None = None,
        if_not_exists: bool = False,
        validate_only: bool = False,
    ) -> TopicInfo:
        """Make a topic; 0 means the broker's default.

        Raises:
            TopicExistsError: the name is taken, and `if_not_exists` is False.
            UsageError: the name, the number of partitions or the configuration is refused.

        Example:
            await admin.create_topic("clicks", partitions=6, configs={"retention.ms": "86400000"})
        """
        check_topic(topic)
        request = pb.CreateTopicRequest(
            topic=topic,
            partitions=whole_number("partitions", partitions, 0, INT32_MAX),
            replication_factor=whole_number("replication_factor", replication_factor, 0, INT32_MAX),
            configs=config_texts(configs or {}),
            if_not_exists=if_not_exists,
            validate_only=validate_only,
        )
        answer = await self._connections.call(
            lambda connection, timeout_s: connection.admin.CreateTopic(request, timeout=timeout_s),
            f"create topic {topic}",
            idempotent=if_not_exists or validate_only,
            attempts=Attempts(changes=not validate_only),
        )
        return topic_info(answer.topic, created=answer.created)

    async def list_topics(self, *, include_internal: bool = False) -> AsyncIterator[TopicInfo]:
        """Iterate over all topics by name, a page at a time: `async for t in admin.list_topics()`.

        Example:
            async for topic in admin.list_topics():
                print(topic.name, topic.partitions)
        """
        token = ""
        while True:
            request = pb.ListTopicsRequest(page_token=token, include_internal=include_internal)
            answer = await self._connections.call(
                partial(_list_topics, request),
                "list topics",
                attempts=Attempts(changes=False),
            )
            for topic in answer.topics:
                yield topic_info(topic)
            token = answer.next_page_token
            if not token:
                return

    async def describe_topic(self, topic: str) -> TopicDescription:
        """Tell everything about one topic.

        Raises:
            TopicNotFoundError: there is none of this name.

        Example:
            for partition in (await admin.describe_topic("orders")).partitions:
                print(partition.partition, partition.high_watermark, partition.size_bytes)
        """
        check_topic(topic)
        request = pb.DescribeTopicRequest(topic=topic)
        answer = await self._connections.call(
            lambda connection, timeout_s: connection.admin.DescribeTopic(
                request, timeout=timeout_s
            ),
            f"describe topic {topic}",
            attempts=Attempts(changes=False),
        )
        return topic_description(answer)

    async def alter_topic(
        self,
        topic: str,
        *,
        set: Mapping[str, str | int] | None = None,  # noqa: A002 - the word of the API
        unset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicInfo:
        """Set keys of a topic's configuration, and give others back to the broker's default.

        Example:
            await admin.alter_topic("orders", set={"retention.ms": "3600000"}, unset=["max.batch.bytes"])
        """
        check_topic(topic)
        request = pb.AlterTopicRequest(
            topic=topic,
            set=config_texts(set or {}),
            unset=texts("unset", unset, 'keys, as ["retention.ms"]'),
            validate_only=validate_only,
        )
        answer = await self._connections.call(
            lambda connection, timeout_s: connection.admin.AlterTopic(request, timeout=timeout_s),
            f"alter topic {topic}",
            attempts=Attempts(changes=not validate_only),
        )
        return topic_info(answer.topic)

    async def add_partitions(
        self, topic: str, partitions: int, *, validate_only: bool = False
    ) -> TopicInfo:
        """Give a topic more partitions, `partitions` in all. Keys may move to others by that.

        Example:
            await admin.add_partitions("orders", 6)
        """
        check_topic(topic)
        request = pb.AddPartitionsRequest(
            topic=topic,
            partitions=whole_number("partitions", partitions, 1, INT32_MAX),
            validate_only=validate_only,
        )
        answer = await self._connections.call(
            lambda connection, timeout_s: connection.admin.AddPartitions(
                request, timeout=timeout_s
            ),
            f"add partitions to topic {topic}",
            idempotent=validate_only,
            attempts=Attempts(changes=not validate_only),
        )
        return topic_info(answer.topic)

    async def trim_topic(self, topic: str, before: Mapping[int, int]) -> tuple[TrimResult, ...]:
        """Delete the records before an offset in each partition named, for good.

        Args:
            topic: the topic.
            before: offset by partition; -1 deletes everything that is committed.

        Returns:
            A result for each partition, in the order of `before`.

        Example:
            for result in await admin.trim_topic("orders", {0: -1, 1: -1}):
                print(result.partition, result.log_start_offset, result.error)
        """
        check_topic(topic)
        if not isinstance(before, Mapping):
            raise out_of_range("before", before, "offsets by partition, as {0: 1200}")
        points = [
            pb.TrimPoint(
                partition=whole_number("a partition", partition, 0, INT32_MAX),
                before_offset=whole_number(
                    "an offset", at, -1, expected="a whole number from 0, or -1 for all"
                ),
            )
            for partition, at in before.items()
        ]
        request = pb.TrimTopicRequest(topic=topic, points=points)
        attempts = Attempts()
        answer = await self._connections.call(
            lambda connection, timeout_s: connection.admin.TrimTopic(request, timeout=timeout_s),
            f"trim topic {topic}",
            # Made later again, -1 would also delete what came meanwhile.
            idempotent=-1 not in before.values(),
            attempts=attempts,
        )
        return tuple(_trim_result(result, attempts) for result in answer.results)

    async def delete_topic(self, topic: str, *, topic_id: bytes = b"") -> None:
        """Delete a topic and everything in it, for good.

        With `topic_id`, a topic of the same name with another id is left alone.

        Raises:
            TopicNotFoundError: there is none of this name, or it has another id.

        Example:
            await admin.delete_topic("orders")
        """
        check_topic(topic)
        if not isinstance(topic_id, bytes):
            raise out_of_range("topic_id", topic_id, "bytes, as TopicInfo has it")
        request = pb.DeleteTopicRequest(topic=topic, topic_id=topic_id)
        await self._connections.call(
            lambda connection, timeout_s: connection.admin.DeleteTopic(request, timeout=timeout_s),
            f"delete topic {topic}",
            idempotent=False,
        )

    async def list_offsets(
        self, topic: str, at: From = "earliest", *, partition: int | None = None
    ) -> tuple[PartitionOffset, ...]:
        """Find "earliest", "latest" or a `Time` in one partition of a topic, or in all.

        Raises:
            UsageError: `at` is another kind of place.

        Example:
            for found in await admin.list_offsets("orders", "latest"):
                print(found.partition, found.offset)
        """
        query = offset_query(topic, partition, at)
        return await list_offsets(self._connections, [query])

    async def cluster(self, topics: Iterable[str] = ()) -> ClusterInfo:
        """Tell the brokers, and who leads what in the topics named; none is all.

        Raises:
            TopicNotFoundError: there is none of a name.

        Example:
            for broker in (await admin.cluster()).brokers:
                print(broker.broker_id, broker.endpoint)
        """
        return await fetch_cluster(self._connections, topics)

    async def describe_cluster(self) -> ClusterDescription:
        """Tell how the cluster is: what each broker leads and holds, and which partitions lack something.

        Example:
            for broker in (await admin.describe_cluster()).brokers:
                print(broker.broker_id, broker.leaders, broker.replicas, broker.fenced)
        """
        return await describe_cluster(self._connections)

    async def elect_leaders(
        self, targets: Iterable[str | TopicPartition] = ()
    ) -> tuple[ElectionResult, ...]:
        """Make the first replica of partitions their leader, where it is in sync and serves.

        The brokers do that by themselves, a few partitions a second; this does it at once.

        Args:
            targets: topics, or single partitions; none is everything.

        Returns:
            A result for each partition; without targets, only for those that another broker led.

        Example:
            for result in await admin.elect_leaders(["orders"]):
                print(result.partition, result.outcome, result.leader, result.error)
        """
        return await elect_leaders(self._connections, targets)

    async def drain_broker(
        self, broker_id: int, *, undo: bool = False, force: bool = False
    ) -> DrainResult:
        """Take a broker out of service: it hands on what it leads, and leaves the replicas in sync.

        It returns once that is decided; `describe_cluster` tells how far the broker has come. With `undo`
        it serves again, as its next process does in any case.

        Raises:
            UsageError: there is no such broker, it is fenced, it is the last one; or partitions would have
                no leader, or too few replicas in sync, and `force` is False.

        Example:
            try:
                await admin.drain_broker(3)
            except riverrun.UsageError as error:
                print(error.reason, error.message)
        """
        return await drain_broker(self._connections, broker_id, undo=undo, force=force)


def _trim_result(result: pb.TrimResult, attempts: Attempts) -> TrimResult:
    if not result.HasField("error"):
        return TrimResult(result.partition, result.log_start_offset)
    error = attempts.told(from_proto(result.error))
    return TrimResult(result.partition, result.log_start_offset, error.message, error.outcome_known)


def _list_topics(
    request: pb.ListTopicsRequest, connection: Connection, timeout_s: float
) -> Awaitable[pb.ListTopicsResponse]:
    return connection.admin.ListTopics(request, timeout=timeout_s)
