"""Who leads a partition, and the partition itself where this broker does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import PartitionAccess


class Leadership(NamedTuple):
    """Who leads a partition, as far as this broker knows.

    It may be behind, and is a hint: whoever acts on it is refused by the partition where it is wrong.

    Attributes:
        leader: the broker's id; None where the metadata names none that is there.
        leader_epoch: of the leadership; it only grows.
        here: the partition itself, never a way to another broker, where this process leads it.
    """

    leader: int | None
    leader_epoch: int
    here: PartitionAccess | None = None


class Leaderships(Protocol):
    """Who leads what."""

    def of(self, partition: PartitionId) -> Leadership:
        """Return who leads a partition; nobody where it is not known."""
        ...

    def watch(self, partition: PartitionId, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` on the loop whenever `of` may return something else; return what ends that."""
        ...
