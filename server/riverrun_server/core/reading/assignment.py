"""What a group gives a stream and takes away: kept until the stream can act on it and tell its reader.

Intuition: a group changes its mind at any time, and a stream may be stuck in one message for minutes.
So changes are noted here, where a later one of a partition undoes an earlier one that nobody has acted
on, and `apply` brings the subscription up to date between two messages. What is noted never grows
beyond a few entries a partition, and what the reader is told comes in the order in which it happened to
each partition. Not here: finding where partitions begin (runtime/assigned_partitions).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import (
    Assigned,
    AssignedPartition,
    Lost,
    MemberPartition,
    Revoking,
)
from riverrun_server.core.reading.places import Position
from riverrun_server.core.reading.subscription import Subscription

# So many partitions in one message: as many as a call may name, some 300 KB at the most.
PARTITIONS_PER_EVENT = 1_000

Each = TypeVar("Each")


class Given(NamedTuple):
    """A partition that a group has given, of which the reader does not know yet."""

    topic: str
    id: PartitionId
    assignment_epoch: int


class Applied(NamedTuple):
    """What the cursors of a stream have to follow.

    Attributes:
        stopped: nothing more is read of them.
        gone: the stream has nothing to do with them any more; some have stopped before.
        begun: they are read from now on, from there; a refusal is for the reader to seek elsewhere.
    """

    stopped: Sequence[PartitionId]
    gone: Sequence[PartitionId]
    begun: Sequence[tuple[PartitionId, Position | Refusal]]


class Assignment:
    """The partitions of one member's stream.

    Transitions of one partition:
        out -> coming (given) -> placed -> held (told: Assigned)
        held -> revoking (told: Revoking) -> out (released, told nothing)
        held or revoking -> out (told: Lost)
        coming or placed -> out, where it is revoked, released or lost before the reader knew of it
    What is told happens when `apply` is called; a partition may be coming again before it is out.

    Args:
        machine: the stream's subscription.
    """

    def __init__(self, machine: Subscription) -> None:
        self._machine = machine
        self._epoch = 0
        self._coming: dict[PartitionId, Given] = {}
        self._placed: dict[PartitionId, Position | Refusal] = {}
        # What the reader has been told that it has.
        self._held: set[PartitionId] = set()
        self._revoking: set[PartitionId] = set()
        # What is to be done, in the order of `apply`; one of them, and what is revoked may be released.
        self._to_lose: dict[PartitionId, None] = {}
        self._to_revoke: dict[PartitionId, None] = {}
        self._to_release: dict[PartitionId, None] = {}

    @property
    def is_coming(self) -> bool:
        """Whether partitions were given that the reader does not know of yet."""
        return bool(self._coming)

    def begun(
        self, epoch: int, partitions: Iterable[Given], besides: Iterable[MemberPartition] = ()
    ) -> None:
        """Tell the reader everything that it has, before it is known where any of it begins."""
        self._reached(epoch)
        coming = [MemberPartition(given.topic, given.id) for given in partitions]
        self._machine.events.append(Assigned(self._epoch, (), [*coming, *besides]))

    def given(self, epoch: int, partitions: Iterable[Given]) -> None:
        """Note partitions that the group has given; `placed` says where each begins."""
        self._reached(epoch)
        for given in partitions:
            assert given.assignment_epoch <= self._epoch, (given, self._epoch)
            assert given.id not in self._coming, given
            assert not self._has(given.id), given
            self._coming[given.id] = given

    def placed(self, given: Given, place: Position | Refusal) -> None:
        """Note where a partition begins, or why nobody can say; late answers change nothing."""
        if self._coming.get(given.id) == given:
            self._placed[given.id] = place

    def revoked(self, epoch: int, partitions: Iterable[PartitionId]) -> list[PartitionId]:
        """Note partitions that the group wants back.

        Returns:
            Those that the reader was never given: it is told nothing of them.
        """
        self._reached(epoch)
        unheard = []
        for partition in partitions:
            self._call_off(partition)
            if not self._has(partition):
                unheard.append(partition)
            elif partition not in self._revoking:
                self._revoking.add(partition)
                self._to_revoke[partition] = None
        return unheard

    def released(self, partitions: Iterable[PartitionId]) -> None:
        """Note partitions that the reader has given up, or that nobody need tell it of."""
        for partition in partitions:
            self._call_off(partition)
            if self._has(partition):
                self._to_release[partition] = None

    def lost(self, epoch: int, partitions: Iterable[PartitionId]) -> list[PartitionId]:
        """Note partitions that the reader has lost without being asked.

        Returns:
            Those that it was never given: it is told nothing of them.
        """
        self._reached(epoch)
        unheard = []
        for partition in partitions:
            self._call_off(partition)
            if self._has(partition):
                self._to_revoke.pop(partition, None)
                self._to_lose[partition] = None
            else:
                unheard.append(partition)
        return unheard

    def apply(self) -> Applied:
        """Bring the subscription up to date with everything noted, and tell its reader."""
        lost, released = list(self._to_lose), list(self._to_release)
        revoking = list(self._to_revoke)
        self._to_lose.clear()
        self._to_revoke.clear()
        self._to_release.clear()
        self._tell(Lost, lost)
        self._machine.unassigned(lost)
        self._tell(Revoking, revoking)
        self._machine.revoking(revoking)
        self._machine.unassigned(released)
        self._held.difference_update(lost, released)
        self._revoking.difference_update(lost, released)
        begun, self._placed = self._placed, {}
        self._begin(begun)
        return Applied(revoking, lost + released, list(begun.items()))

    # Inside.

    def _reached(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)

    def _has(self, partition: PartitionId) -> bool:
        """Return whether the reader has a partition, and will still have it behind all that is noted."""
        return (
            partition in self._held
            and partition not in self._to_lose
            and partition not in self._to_release
        )

    def _call_off(self, partition: PartitionId) -> None:
        """Give nothing of a partition that was on its way."""
        self._coming.pop(partition, None)
        self._placed.pop(partition, None)

    def _begin(self, placed: dict[PartitionId, Position | Refusal]) -> None:
        machine = self._machine
        given = {partition: self._coming.pop(partition) for partition in placed}
        self._held.update(placed)
        told = [
            AssignedPartition(*each, place if isinstance(place, Position) else None)
            for each, place in zip(given.values(), placed.values(), strict=True)
        ]
        for some in _in_parts(told):
            machine.events.append(Assigned(self._epoch, some))
        machine.assigned(place for place in placed.values() if isinstance(place, Position))
        for partition, place in placed.items():
            if isinstance(place, Refusal):
                machine.failed_to_start(given[partition].topic, partition, place)

    def _tell(self, event: type[Revoking | Lost], partitions: Collection[PartitionId]) -> None:
        readings = self._machine.partitions
        named = [MemberPartition(readings[each].topic, each) for each in partitions]
        for some in _in_parts(named):
            self._machine.events.append(event(self._epoch, some))


def _in_parts(told: Sequence[Each]) -> Iterator[Sequence[Each]]:
    for at in range(0, len(told), PARTITIONS_PER_EVENT):
        yield told[at : at + PARTITIONS_PER_EVENT]
