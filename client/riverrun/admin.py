"""Make, look at, change and delete topics, and look at the offsets of groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from riverrun._core.descriptions import (
    ClusterInfo,
    PartitionOffset,
    TopicDescription,
    TopicInfo,
    TrimResult,
)
from riverrun._core.records import CommittedOffset, From, TopicPartition


class Admin:
    """Calls that make and change things, from `Client.admin()`. It needs no closing.

    Every method raises `NoBrokerError` or `TimedOutError` where no broker answers in time, and the
    error of the broker as it is.
    """

    async def create_topic(
        self,
        topic: str,
        *,
        partitions: int = 0,
        replication_factor: int = 0,
        configs: Mapping[str, str] | None = None,
        if_not_exists: bool = False,
        validate_only: bool = False,
    ) -> TopicInfo:
        """Make a topic; 0 means the broker's default.

        Raises:
            TopicExistsError: the name is taken, and `if_not_exists` was not set.
            UsageError: the name, the number of partitions or the configuration is refused.
        """
        raise NotImplementedError

    def list_topics(self, *, include_internal: bool = False) -> AsyncIterator[TopicInfo]:
        """Iterate over all topics by name, a page at a time: `async for t in admin.list_topics()`."""
        raise NotImplementedError

    async def describe_topic(self, topic: str) -> TopicDescription:
        """Tell everything about one topic.

        Raises:
            TopicNotFoundError: there is none of this name.
        """
        raise NotImplementedError

    async def alter_topic(
        self,
        topic: str,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002 - the word of the API
        unset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicInfo:
        """Set keys of a topic's configuration, and give others back to the broker's default."""
        raise NotImplementedError

    async def add_partitions(
        self, topic: str, partitions: int, *, validate_only: bool = False
    ) -> TopicInfo:
        """Give a topic more partitions, `partitions` in all. Keys may move to others by that."""
        raise NotImplementedError

    async def trim_topic(self, topic: str, before: Mapping[int, int]) -> tuple[TrimResult, ...]:
        """Delete the records before an offset in each partition named, for good.

        Args:
            topic: the topic.
            before: offset by partition; -1 deletes everything that is committed.

        Returns:
            A result for each partition, in the order of `before`.
        """
        raise NotImplementedError

    async def delete_topic(self, topic: str, *, topic_id: bytes = b"") -> None:
        """Delete a topic and everything in it, for good.

        With `topic_id`, a topic of the same name with another id is left alone.

        Raises:
            TopicNotFoundError: there is none of this name, or it has another id.
        """
        raise NotImplementedError

    async def list_offsets(
        self, topic: str, at: From = "earliest", *, partition: int | None = None
    ) -> tuple[PartitionOffset, ...]:
        """Find "earliest", "latest" or a `Time` in one partition of a topic, or in all.

        Raises:
            UsageError: `at` is another kind of place.
        """
        raise NotImplementedError

    async def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] = ()
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far a group has come: in the partitions named, else in all that it committed.

        None stands where the group has never committed, or where that has expired.
        """
        raise NotImplementedError

    async def commit_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | CommittedOffset]
    ) -> None:
        """Set how far a group has come: the next offset to read, by partition.

        Raises:
            RiverrunError: of the first partition that refused; the others may have been stored.
        """
        raise NotImplementedError

    async def cluster(self, topics: Iterable[str] = ()) -> ClusterInfo:
        """Tell the brokers, and who leads what in the topics named; none is all."""
        raise NotImplementedError
