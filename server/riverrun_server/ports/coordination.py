"""The coordinators of groups on other brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Origin


class Home(NamedTuple):
    """Where a group's offsets are kept, and with whom.

    Attributes:
        partition: of the offsets topic.
        leader: the broker that leads it.
        leader_epoch: in which it does; a broker that leads in another one refuses.
    """

    partition: PartitionId
    leader: int
    leader_epoch: int


class Coordinators(Protocol):
    """Other brokers, as those that coordinate groups.

    What is asked of one broker arrives in the order in which it was asked, or not at all: nothing of
    an earlier call can take effect behind a later one, also where the earlier one was given up.
    """

    def commit(
        self,
        home: Home,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Store offsets of a group, all or none; the future says when they are committed.

        Args:
            home: of the group.
            group_id: the group.
            records: of this group.
            origin: who asks.
            within_s: how long the caller waits; what arrives later than that is passed over.

        Raises:
            Refusal: OVERLOADED, LIMIT_EXCEEDED. The future also has InDoubt (the stream ended: they are
                stored, or will be before anything that is asked from now on, or never), NOT_READY (the
                broker was not reached), and what the coordinator says.
        """
        ...

    async def committed(
        self, home: Home, group_id: str, origin: Origin, within_s: float
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed.

        Raises:
            Refusal: as `commit`, and what the future has.
        """
        ...
