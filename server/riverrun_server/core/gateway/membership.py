"""One member of a group, at the broker that holds its stream: what it has been told, and whether it may be sent anything.

Intuition: the coordinator tells the whole of what a member has, each time that it changes; the member is
told the differences, in order. So a view that was missed, because a stream to the coordinator broke,
is made up for by the next one. A member is itself only as long as its coordinator can know that it
lives: what is delivered rests on a beat that was sent less than the session timeout ago, less a margin,
for then nobody else can have been given the partition (the lease of Gray and Cheriton, 1989, held by the
gateway and granted by the coordinator).

Not here: finding the coordinator (core/groups/search), beats of many members together, what a partition
is read from (core/reading).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.log.batch import PartitionId

# Of the session timeout: what clocks, a loop that is late and a delivery on its way may take together.
_MARGIN = 0.2


@dataclass(frozen=True, slots=True)
class Given:
    """Partitions that the member has from now on, each with the epoch in which it was given."""

    epoch: int
    partitions: Mapping[PartitionId, int]


@dataclass(frozen=True, slots=True)
class Revoking:
    """Partitions that the member is to give up: nothing more of them comes, and it is to acknowledge."""

    epoch: int
    partitions: frozenset[PartitionId]


@dataclass(frozen=True, slots=True)
class Lost:
    """Partitions that the member has no longer, without having been asked."""

    epoch: int
    partitions: frozenset[PartitionId]


Change = Given | Revoking | Lost


class _Revocation(NamedTuple):
    """A partition that was given in `assignment_epoch`, and is to be given up since `told_epoch`."""

    assignment_epoch: int
    told_epoch: int


class Membership:
    """What a gateway knows of one member of which it holds the stream.

    Transitions of the member: apart -> attached (`attached`) -> apart (`detached`: the coordinator moved or
    cannot be reached) -> attached ... While it is apart nothing changes for it until its lease is over.
    Transitions of a partition: unknown -> given (`told`) -> revoking (`told`) -> acknowledged
    (`acknowledged`) -> unknown (`told`); from each of them -> unknown (`told`, as lost). One that is given in
    another epoch is lost first.

    Args:
        session_timeout_s: after which its coordinator gives its partitions to others.
        now: the time, in seconds of a monotonic clock, here and everywhere.

    Attributes:
        changes: what the member is to be told, in order.
        epoch: the member's, as last told.
    """

    def __init__(self, session_timeout_s: float, now: float) -> None:
        self.changes: deque[Change] = deque()
        self.epoch = -1
        self._session_timeout_s = session_timeout_s
        self._is_attached = False
        self._is_half_closed = False
        self._heard_at = now
        self._confirmed_at = now
        self._lease_until = now
        self._given: dict[PartitionId, int] = {}
        self._revoking: dict[PartitionId, _Revocation] = {}
        self._acknowledged: dict[PartitionId, int] = {}

    # The coordinator.

    def attached(self, asked_at: float) -> None:
        """Learn that the coordinator has attached the member, by a call that was sent at `asked_at`."""
        self._is_attached = True
        self.confirmed(asked_at)

    def detached(self) -> None:
        """Learn that the coordinator does not know this stream any more, or cannot be reached."""
        self._is_attached = False

    def confirmed(self, sent_at: float) -> None:
        """Learn that the coordinator has taken a beat that was sent at `sent_at`."""
        self._confirmed_at = max(self._confirmed_at, sent_at)
        lease_s = self._session_timeout_s * (1 - _MARGIN)
        self._lease_until = max(self._lease_until, sent_at + lease_s)

    def told(self, view: MemberView) -> None:
        """Learn what the member has; the differences to what it was told go to `changes`."""
        if view.epoch < self.epoch:
            return
        self.epoch = view.epoch
        self._lose(view)
        self._revoke(view)
        self._give(view)

    def to_acknowledge(self) -> Mapping[PartitionId, int]:
        """Return what the member has given up and the coordinator does not know yet, for all it says.

        Each with the epoch in which it had been given, as `acknowledged` returns them.
        """
        return dict(self._acknowledged)

    # The member.

    def heard(self, now: float) -> None:
        """Note a sign of life: it has said something, or, half-closed, taken something."""
        self._heard_at = max(self._heard_at, now)

    def half_closed(self) -> None:
        """Note that it will say nothing more: its transport alone tells that it lives."""
        self._is_half_closed = True

    def acknowledged(
        self, partitions: Iterable[PartitionId], epoch: int
    ) -> Mapping[PartitionId, int]:
        """Take what the member has given up; return what of it its coordinator is to be told.

        Args:
            partitions: what it says it has given up.
            epoch: the epoch in which it was told to. What it does not have to give up, has lost
                meanwhile, or was told to give up again later, is passed over: its answer has crossed a
                newer change.
        """
        found = {}
        for partition in partitions:
            revocation = self._revoking.get(partition)
            if revocation is not None and revocation.told_epoch <= epoch:
                del self._revoking[partition]
                found[partition] = revocation.assignment_epoch
        self._acknowledged.update(found)
        return found

    @property
    def unacknowledged(self) -> frozenset[PartitionId]:
        """What it was told to give up, and has not."""
        return frozenset(self._revoking)

    # What follows from that.

    def is_alive(self, now: float) -> bool:
        """Return whether the coordinator is to be told that it lives."""
        return self._is_half_closed or now < self._heard_at + self._session_timeout_s

    def beats(self, now: float) -> bool:
        """Return whether it takes part in the next beat.

        A sign of life is passed on until its coordinator knows of it, and then not again: its coordinator
        counts the silence from each beat, and would count that of the member twice.
        """
        # At the same moment nobody can say which was first.
        is_news = self._is_half_closed or self._heard_at >= self._confirmed_at
        return self._is_attached and self.is_alive(now) and is_news

    @property
    def may_deliver_until(self) -> float:
        """When its lease ends, unless another beat is confirmed before."""
        return self._lease_until

    def may_deliver(self, now: float) -> bool:
        """Return whether nobody else can have been given its partitions."""
        return now < self._lease_until

    def assignment_epoch(self, partition: PartitionId) -> int | None:
        """Return the epoch in which it was given a partition that it may commit; None where it may not."""
        if (revocation := self._revoking.get(partition)) is not None:
            return revocation.assignment_epoch
        return self._given.get(partition)

    # Inside.

    def _lose(self, view: MemberView) -> None:
        lost = [p for p, epoch in self._given.items() if not _has(view, p, epoch)]
        lost += [p for p, (epoch, _) in self._revoking.items() if view.revoking.get(p) != epoch]
        for partition in lost:
            self._given.pop(partition, None)
            self._revoking.pop(partition, None)
        for partition, epoch in list(self._acknowledged.items()):
            if view.revoking.get(partition) != epoch:
                del self._acknowledged[partition]
        if lost:
            self.changes.append(Lost(view.epoch, frozenset(lost)))

    def _revoke(self, view: MemberView) -> None:
        """Have given up what is to be, what another gateway may have told it before included."""
        revoking = {
            p: _Revocation(epoch, view.epoch)
            for p, epoch in view.revoking.items()
            if p not in self._revoking and p not in self._acknowledged
        }
        for partition in revoking:
            self._given.pop(partition, None)
        self._revoking.update(revoking)
        if revoking:
            self.changes.append(Revoking(view.epoch, frozenset(revoking)))

    def _give(self, view: MemberView) -> None:
        given = {p: epoch for p, epoch in view.owned.items() if p not in self._given}
        self._given.update(given)
        if given:
            self.changes.append(Given(view.epoch, given))


def _has(view: MemberView, partition: PartitionId, epoch: int) -> bool:
    return epoch in (view.owned.get(partition), view.revoking.get(partition))
