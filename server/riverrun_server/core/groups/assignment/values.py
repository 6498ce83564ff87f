"""What an assignor is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from riverrun_server.core.log.batch import PartitionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A member, as far as it matters for what it should have.

    Attributes:
        member_id: names it in the answer.
        instance_id: names its place where it has one; empty is none.
        rack: where it runs; empty is nowhere.
        topics: the ids of the topics that it reads.
    """

    member_id: str
    instance_id: str = ""
    rack: str = ""
    topics: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignableTopic:
    """A topic that exists.

    Attributes:
        topic_id: names it for good.
        partitions: how many it has.
        racks: for each partition the racks that have a replica of it; empty where nobody knows.
    """

    topic_id: bytes
    partitions: int
    racks: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        """Check that racks are known for all partitions or for none."""
        assert len(self.racks) in {0, self.partitions}, (self.topic_id, self.partitions)


# The partitions of each member, by its member id.
Targets = Mapping[str, frozenset[PartitionId]]

# Takes the members, the topics, and the targets so far: of any members and partitions, also of such
# as are gone. Returns the targets of exactly these members. Each partition of a topic that somebody
# reads is in one of them; a topic that a member names and that is not among these is passed over.
# The same members, topics and targets in another order give the same answer.
Assign = Callable[
    [Iterable[Subscriber], Iterable[AssignableTopic], Targets], dict[str, frozenset[PartitionId]]
]
