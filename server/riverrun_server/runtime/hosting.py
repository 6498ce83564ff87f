"""How a broker holds partitions: all of them alone, or as one of several that hold replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import Id, PartitionValue
from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.broker_start import BrokerStart
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import MetadataWriter


class LocalPartition(PartitionAccess, Protocol):
    """A partition that this broker stores."""

    async def open(self) -> None:
        """Recover what memory must know; where the data is damaged it refuses everything instead.

        Raises:
            StorageError: it could not be opened now.
        """
        ...

    def configure(self, config: TopicConfig) -> None:
        """Take a changed configuration."""
        ...

    async def close(self) -> None:
        """Answer everyone and let go; the data stays."""
        ...

    async def drop(self) -> None:
        """Answer everyone and delete all data; may be called again where it raised.

        Raises:
            StorageError: the data is still there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Joined:
    """A process that has registered, and what it does its part with.

    Attributes:
        process: as it may be made leader.
        image: the metadata; others keep it up to date.
        applied: moves on once what the image shows has taken effect.
        writer: of metadata.
        start: takes the process from joined to leading, where it decides that alone.
        make: makes a topic that brokers need, or finds that it is there.
    """

    process: Leader
    image: ClusterImage
    applied: Applied
    writer: MetadataWriter
    start: BrokerStart
    make: Callable[[NewTopic], Awaitable[None]]


class Hosting(Protocol):
    """Which partitions are held here, how they are opened, and what else follows from the metadata.

    Transitions: new -> begun (`begin`) -> running (`run`) -> closed (`close`).
    """

    async def begin(self, joined: Joined) -> int:
        """Take up the process's part; return how many partitions are served although data was lost.

        Raises:
            MetadataError: the store does not do it.
        """
        ...

    def holds(self, state: PartitionValue) -> bool:
        """Return whether a partition is to be open here."""
        ...

    def hold(
        self, topic: str, partition: PartitionId, config: TopicConfig, state: PartitionValue
    ) -> LocalPartition:
        """Return a partition that is held here, to be opened.

        Raises:
            StorageError: the disk could not take it just now.
        """
        ...

    def shown(
        self, local: LocalPartition, config: TopicConfig, state: PartitionValue
    ) -> PartitionAccess:
        """Return a partition that is held here as services see it."""
        ...

    def elsewhere(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        state: PartitionValue | None,
        why: Refusal | None = None,
    ) -> PartitionAccess:
        """Return a partition that is not open here, as services see it.

        Args:
            topic: the topic's name.
            partition: which one.
            config: what holds for it.
            state: who holds it; None where the metadata does not say.
            why: what kept it from being opened, where it is held here.
        """
        ...

    def show(self, topic_ids: Iterable[Id] | None) -> None:
        """Take note that the image has changed, and what is to be open is; None is all topics."""
        ...

    async def run(self) -> None:
        """Do what the process owes the others until cancelled."""
        ...

    async def close(self) -> None:
        """End what `begin` has begun, after the partitions were closed."""
        ...
