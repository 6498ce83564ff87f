"""What all logs of a coordinator share: time, topics, threads, and the bounds of groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from riverrun_server.core.groups.assignment.choice import choose
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.subscriptions import Compile
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.threads import Threads


class AssignableTopics(Protocol):
    """The topics whose partitions members of groups can be given."""

    async def run(self) -> None:
        """Follow the topics until cancelled."""
        ...

    def current(self) -> Mapping[str, AssignableTopic]:
        """Return those that are known here now, by name."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever they are others; returns what ends that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorServices:
    """What the logs of a coordinator share.

    Attributes:
        broker_id: this broker.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        exists: tells whether a partition whose offsets are held is still there.
        caught_up: returns once what the metadata said before is known to `exists` and `topics`.
        topics: that can be shared out.
        dice: spreads what is tried again.
        groups: the bounds of groups.
        compile_pattern: makes a matcher of a pattern of topics' names.
        changed: called where a partition is led by another, or is loaded, or cannot be.
    """

    broker_id: int
    now_ms: Callable[[], int]
    threads: Threads
    exists: Callable[[PartitionId], bool]
    caught_up: Callable[[], Awaitable[None]]
    topics: AssignableTopics
    dice: Dice
    groups: GroupsLimits
    compile_pattern: Compile
    changed: Callable[[PartitionId], None]

    def make_groups(self, has_offsets: Callable[[str], bool]) -> Groups:
        """Return a machine of groups that knows nothing yet."""
        return Groups(self.groups, choose, self.compile_pattern, has_offsets)
