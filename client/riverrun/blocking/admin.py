"""Make, look at, change and delete topics, look at groups and brokers, and say who leads, without async."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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
from riverrun.blocking.group_admin import GroupAdmin


class Admin(GroupAdmin):
    """Calls that make and change things, from `Client.admin()`. It needs no closing.

    Everything that `riverrun.Admin` promises holds here.

    Example:
        admin = client.admin()
        admin.create_topic("orders", partitions=3, if_not_exists=True)
    """

    def create_topic(
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
            TopicExistsError: the name is taken, and `if_not_exists` was not set.
            UsageError: the name, the number of partitions or the configuration is refused.

        Example:
            admin.create_topic("clicks", partitions=6, configs={"retention.ms": "86400000"})
        """
        return self._call(
            lambda: self._admin.create_topic(
                topic,
                partitions=partitions,
                replication_factor=replication_factor,
                configs=configs,
                if_not_exists=if_not_exists,
                validate_only=validate_only,
            )
        )

    def list_topics(self, *, include_internal: bool = False) -> Iterator[TopicInfo]:
        """Iterate over all topics by name, a page at a time.

        Example:
            for topic in admin.list_topics():
                print(topic.name, topic.partitions)
        """
        return self._session.each(self._admin.list_topics(include_internal=include_internal))

    def describe_topic(self, topic: str) -> TopicDescription:
        """Tell everything about one topic.

        Raises:
            TopicNotFoundError: there is none of this name.

        Example:
            for partition in admin.describe_topic("orders").partitions:
                print(partition.partition, partition.high_watermark, partition.size_bytes)
        """
        return self._call(lambda: self._admin.describe_topic(topic))

    def alter_topic(
        self,
        topic: str,
        *,
        set: Mapping[str, str | int] | None = None,  # noqa: A002 - the word of the API
        unset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicInfo:
        """Set keys of a topic's configuration, and give others back to the broker's default.

        Example:
            admin.alter_topic("orders", set={"retention.ms": "3600000"}, unset=["max.batch.bytes"])
        """
        return self._call(
            lambda: self._admin.alter_topic(
                topic, set=set, unset=unset, validate_only=validate_only
            )
        )

    def add_partitions(
        self, topic: str, partitions: int, *, validate_only: bool = False
    ) -> TopicInfo:
        """Give a topic more partitions, `partitions` in all. Keys may move to others by that.

        Example:
            admin.add_partitions("orders", 6)
        """
        return self._call(
            lambda: self._admin.add_partitions(topic, partitions, validate_only=validate_only)
        )

    def trim_topic(self, topic: str, before: Mapping[int, int]) -> tuple[TrimResult, ...]:
        """Delete the records before an offset in each partition named, for good.

        Args:
            topic: the topic.
            before: offset by partition; -1 deletes everything that is committed.

        Returns:
            A result for each partition, in the order of `before`.

        Example:
            for result in admin.trim_topic("orders", {0: -1, 1: -1}):
                print(result.partition, result.log_start_offset, result.error)
        """
        return self._call(lambda: self._admin.trim_topic(topic, before))

    def delete_topic(self, topic: str, *, topic_id: bytes = b"") -> None:
        """Delete a topic and everything in it, for good.

        With `topic_id`, a topic of the same name with another id is left alone.

        Raises:
            TopicNotFoundError: there is none of this name, or it has another id.

        Example:
            admin.delete_topic("orders")
        """
        self._call(lambda: self._admin.delete_topic(topic, topic_id=topic_id))

    def list_offsets(
        self, topic: str, at: From = "earliest", *, partition: int | None = None
    ) -> tuple[PartitionOffset, ...]:
        """Find "earliest", "latest" or a `Time` in one partition of a topic, or in all.

        Raises:
            UsageError: `at` is another kind of place.

        Example:
            for found in admin.list_offsets("orders", "latest"):
                print(found.partition, found.offset)
        """
        return self._call(lambda: self._admin.list_offsets(topic, at, partition=partition))

    def cluster(self, topics: Iterable[str] = ()) -> ClusterInfo:
        """Tell the brokers, and who leads what in the topics named; none is all.

        Raises:
            TopicNotFoundError: there is none of a name.

        Example:
            for broker in admin.cluster().brokers:
                print(broker.broker_id, broker.endpoint)
        """
        return self._call(lambda: self._admin.cluster(topics))

    def describe_cluster(self) -> ClusterDescription:
        """Tell how the cluster is: what each broker leads and holds, and which partitions lack something.

        Example:
            for broker in admin.describe_cluster().brokers:
                print(broker.broker_id, broker.leaders, broker.replicas, broker.fenced)
        """
        return self._call(self._admin.describe_cluster)

    def elect_leaders(
        self, targets: Iterable[str | TopicPartition] = ()
    ) -> tuple[ElectionResult, ...]:
        """Make the first replica of partitions their leader, where it is in sync and serves.

        The brokers do that by themselves, a few partitions a second; this does it at once.

        Args:
            targets: topics, or single partitions; none is everything.

        Returns:
            A result for each partition; without targets, only for those that another broker led.

        Example:
            for result in admin.elect_leaders(["orders"]):
                print(result.partition, result.outcome, result.leader, result.error)
        """
        return self._call(lambda: self._admin.elect_leaders(targets))

    def drain_broker(
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
                admin.drain_broker(3)
            except riverrun.UsageError as error:
                print(error.reason, error.message)
        """
        return self._call(lambda: self._admin.drain_broker(broker_id, undo=undo, force=force))
